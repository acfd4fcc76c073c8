"""What workers do together, as torch.distributed and NCCL call it.

For one worker alone a collective gives back what it was given. Each of the others raises
OtherFailed where another worker has failed or is gone.
"""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.distributed import failures
from trainer.distributed.failures import FAILURE, POLL_S
from trainer.distributed.peer_watchdog import PeerWatchdog
from trainer.distributed.shared_store import SharedStore
from trainer.runtime import keys
from trainer.runtime.json_records import json_object

if TYPE_CHECKING:
    import torch


@dataclass
class ProcessGroup:
    """This process is number `rank` of `size`; rank 0 is the main one."""

    rank: int = 0
    size: int = 1
    _store: SharedStore | None = field(default=None, repr=False)
    _watchdog: PeerWatchdog | None = field(default=None, repr=False)
    _timeout_s: float = 0.0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def translate_errors(self) -> contextlib.AbstractContextManager[None]:
        """Around whatever torch.distributed does for all: raises OtherFailed."""
        return failures.translate_errors(self._store)

    def raise_if_peer_lost(self) -> None:
        """RuntimeError where a worker was lost: what a GPU gathered or reduced is of no use."""
        if self._watchdog is not None and self._watchdog.peer_lost:
            raise RuntimeError("a worker was lost while a GPU waited for it")

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Each value summed over all workers, in float64."""
        if self.size == 1:
            return list(values)
        import torch

        total = torch.tensor(values, dtype=torch.float64)
        with self.translate_errors():
            torch.distributed.all_reduce(total)
        summed: list[float] = total.tolist()
        return summed

    def all_reduce_min(self, *values: int) -> list[int]:
        """The smallest of all workers' for each value."""
        if self.size == 1:
            return list(values)
        import torch

        smallest = torch.tensor(values, dtype=torch.int64)
        with self.translate_errors():
            torch.distributed.all_reduce(smallest, torch.distributed.ReduceOp.MIN)
        found: list[int] = smallest.tolist()
        return found

    def all_reduce_tensors(self, tensors: Sequence["torch.Tensor"]) -> None:
        """Each tensor becomes, in place, the sum of all workers' tensors."""
        if self.size == 1:
            return
        import torch

        with self.translate_errors():
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)
            if any(tensor.is_cuda for tensor in tensors):
                torch.cuda.synchronize()
                self.raise_if_peer_lost()

    def broadcast_int(self, number: int = 0) -> int:
        """The main worker's `number`, on all of them at the same time. Not for one alone."""
        import torch

        payload = torch.tensor(number)
        with self.translate_errors():
            torch.distributed.broadcast(payload, src=0)
        return int(payload)

    def broadcast_bytes(self, content: bytes) -> bytes:
        """The main worker's `content`, on all of them."""
        if self.size == 1:
            return content
        import torch

        (size,) = self.all_reduce_sum(len(content) if self.is_main else 0)
        if not size:
            return b""
        empty = torch.zeros(int(size), dtype=torch.uint8)
        payload = torch.frombuffer(bytearray(content), dtype=torch.uint8) if self.is_main else empty
        with self.translate_errors():
            torch.distributed.broadcast(payload, src=0)
        return payload.numpy().tobytes()

    def broadcast_folder(self, folder: Path | None, into: Path) -> Path | None:
        """The main worker's `folder`: itself there, a copy of its files in `into` elsewhere."""
        if self.size == 1:
            return folder
        files = sorted(folder.iterdir()) if folder is not None and self.is_main else []
        sizes = {path.name: path.stat().st_size for path in files}
        sizes = json_object(self.broadcast_bytes(json.dumps(sizes).encode()))
        keys.refuse_unsafe(sizes, "what the first worker sends")
        content = self.broadcast_bytes(b"".join(path.read_bytes() for path in files))
        if self.is_main or not sizes:
            return folder if self.is_main else None
        into.mkdir(parents=True, exist_ok=True)
        start = 0
        for name, size in sizes.items():
            (into / name).write_bytes(content[start : start + size])
            start += size
        return into

    @contextlib.contextmanager
    def exit_barrier(self, extra_s: float) -> Iterator[None]:
        """Left when all workers are through with what is inside, for which one may need `extra_s`
        longer than another. Who is lost is noticed by those that wait."""
        if self.size == 1:
            yield
            return
        import torch.distributed as dist

        timeout = timedelta(seconds=self._timeout_s + extra_s)
        with self.translate_errors():
            group = dist.new_group(backend="gloo", timeout=timeout)
        yield
        with self.translate_errors():
            barrier = dist.barrier(group, async_op=True)
            while not barrier.is_completed():  # a signal is heard meanwhile
                time.sleep(POLL_S)
            barrier.wait()
            dist.destroy_process_group(group)

    def set_flag(self, key: str) -> None:
        """The others, in `wait_for_flag`, go on."""
        with self.translate_errors():
            self._met().set(key)

    def wait_for_flag(self, key: str) -> None:
        """Until the main worker has set it. Not a barrier: what it does before that may take
        longer than those wait."""
        with self.translate_errors():
            store = self._met()
            while not store.ask(lambda store: store.has(key), self._timeout_s):
                if store.ask(lambda store: store.has(FAILURE), self._timeout_s):
                    raise RuntimeError("it failed")
                time.sleep(POLL_S)

    def _met(self) -> SharedStore:
        assert self._store is not None, "outside of a session"
        return self._store
