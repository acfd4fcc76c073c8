"""That a worker is gone, noticed while a GPU waits for it.

A kernel of NCCL waits for a dead worker's part without end, and the process waits for the kernel in
the driver, deaf to signals. gloo sees a closed connection at once: a thread of each worker waits,
on connections that carry nothing else, for what the next one says when it leaves.
"""

import contextlib
import threading
from datetime import timedelta
from typing import Any

DONE, FAILED = 0, 1  # what is said
WITHOUT_END = timedelta(days=1000)
GIVING_UP_S = 10.0


class Lifeline:
    """Between this worker and its neighbours in a ring. Made by all workers at the same time."""

    def __init__(self, rank: int, size: int) -> None:
        import torch.distributed as dist

        self._before, self._next = (rank - 1) % size, (rank + 1) % size
        self._group = dist.new_group(backend="gloo", timeout=WITHOUT_END)
        self._leaving = threading.Lock()
        self._has_left = False
        self._said: Any = None
        self.broken = False
        """whether what a GPU has computed since with the others' parts is of no use"""
        self._thread = threading.Thread(target=self._listen, name="lifeline", daemon=True)
        self._thread.start()

    def let_go(self, word: int) -> None:
        """This worker leaves, because it is through or because something has failed."""
        import torch
        import torch.distributed as dist

        with self._leaving:
            self._has_left = True
        if self.broken:
            self._thread.join(GIVING_UP_S)
        with contextlib.suppress(RuntimeError):  # not waited for: that one may be gone
            self._said = dist.isend(torch.tensor([word]), self._before, group=self._group)

    def end(self, seconds: float) -> None:
        """Wait for the next worker's word: a thread that hears it while Python ends aborts it."""
        self._thread.join(seconds)

    def _listen(self) -> None:
        import torch
        import torch.distributed as dist

        heard = torch.tensor([FAILED])
        with contextlib.suppress(RuntimeError):  # a connection that breaks says it failed
            dist.recv(heard, self._next, group=self._group)
        with self._leaving:
            if int(heard) == DONE or self._has_left:
                return
            self.broken = True
        if torch.cuda.is_available() and dist.group.WORLD is not None:
            # Only NCCL's part: the words that say why the worker is gone go by gloo.
            dist.group.WORLD._get_backend(torch.device("cuda")).abort()
