"""That a worker is gone, noticed while a GPU waits for it.

A kernel of NCCL waits for a dead worker's contribution without end, and the process waits for the
kernel in the driver, deaf to signals. gloo sees a closed connection at once: a thread of each
worker waits, on connections that carry nothing else, for what the next one sends when it leaves.
"""

import contextlib
import threading
from datetime import timedelta
from typing import Any

DONE, FAILED = 0, 1  # what a worker sends when it leaves
WITHOUT_END = timedelta(days=1000)
GIVING_UP_S = 10.0


class PeerWatchdog:
    """Watches this worker's neighbour in a ring. Made by all workers at the same time."""

    def __init__(self, rank: int, size: int) -> None:
        import torch.distributed as dist

        self._previous, self._next = (rank - 1) % size, (rank + 1) % size
        self._group = dist.new_group(backend="gloo", timeout=WITHOUT_END)
        self._leaving = threading.Lock()
        self._has_left = False
        self._sent: Any = None
        self.peer_lost = False
        """whether what a GPU has reduced or gathered since then is of no use"""
        self._thread = threading.Thread(target=self._listen, name="peer-watchdog", daemon=True)
        self._thread.start()

    def announce_exit(self, status: int) -> None:
        """This worker leaves: DONE, or FAILED."""
        import torch
        import torch.distributed as dist

        with self._leaving:
            self._has_left = True
        if self.peer_lost:
            self._thread.join(GIVING_UP_S)
        with contextlib.suppress(RuntimeError):  # not waited for: that one may be gone
            self._sent = dist.isend(torch.tensor([status]), self._previous, group=self._group)

    def join(self, timeout_s: float) -> None:
        """Wait for the next worker's exit: a thread that hears it while Python ends aborts it."""
        self._thread.join(timeout_s)

    def _listen(self) -> None:
        import torch
        import torch.distributed as dist

        status = torch.tensor([FAILED])
        with contextlib.suppress(RuntimeError):  # a connection that breaks says it failed
            dist.recv(status, self._next, group=self._group)
        with self._leaving:
            if int(status) == DONE or self._has_left:
                return
            self.peer_lost = True
        if torch.cuda.is_available() and dist.group.WORLD is not None:
            # Only NCCL's part: what says why the worker is gone is sent by gloo.
            dist.group.WORLD._get_backend(torch.device("cuda")).abort()
