"""The workers of one run: how many there are, which of them this is, what they tell each other.

A launcher (torchrun, an Indexed Job, a Kubeflow TrainJob) says so in RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR and MASTER_PORT. The first three are taken out of the environment and each worker sees
one GPU: for every library below this is a process alone, and what is shared is shared here.

The first worker alone checkpoints, evaluates and publishes; the others end when it has ended. One
that fails leaves its exit code and sentence in the store, so that all end with them.
"""

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.distributed import peer_watchdog
from trainer.errors import JobError, SettingsError, UnreachableError
from trainer.runtime.signals import Stopped, interruption
from trainer.settings import Settings

if TYPE_CHECKING:
    import torch

FAILURE, DONE, LEFT, RUN = "failure", "done", "left", "run"  # keys of the store
LINGER_S = 10.0  # how long the others have to read why a worker ends
POLL_S = 0.2


@dataclass
class Workers:
    """This process among `size` workers. Alone, it needs nobody and `join` does nothing."""

    rank: int = 0
    size: int = 1
    _store: Any = field(default=None, repr=False)
    _lifeline: peer_watchdog.Lifeline | None = field(default=None, repr=False)
    _patience_s: float = 0.0

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> "Workers":
        """What the launcher said, taken out of `environ`. Before torch is imported."""
        said = {name: environ.pop(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        wrong = [f"{n}={v}" for n, v in said.items() if v and not v.isdigit()]
        size = int(said["WORLD_SIZE"] or 1) if not wrong else 1
        missing = [n for n in ("MASTER_ADDR", "MASTER_PORT") if size > 1 and not environ.get(n)]
        if wrong or missing or not int(said["RANK"] or 0) < size:
            told = ", ".join(f"{name}={value}" for name, value in said.items())
            raise SettingsError(
                f"the launcher set {told}{''.join(f', no {n}' for n in missing)}; start workers "
                "with torchrun, or set RANK below WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
            )
        _see_one_gpu(environ, int(said["LOCAL_RANK"] or 0))
        return cls(int(said["RANK"] or 0), size)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def quiet(self, settings: Settings) -> Settings:
        """`settings` for this worker: the others only warn, and the first speaks."""
        if self.is_main:
            return settings
        return replace(
            settings,
            log_format="json",
            log_level="WARNING",
            metrics_port=None,
            report_to=(),
            hub_repo="",
        )

    def per_worker_name(self, name: str) -> str:
        """`name` for a folder of this worker's: others may run on the same machine."""
        return name if self.is_main else f"{name}-worker-{self.rank}"

    @contextlib.contextmanager
    def session(self, run: str, *, minutes: float) -> Iterator[None]:
        """Meet the others for `run`; leave when the first worker is through or one has failed.

        Raises UnreachableError when they are not there within `minutes`, or when one of them is
        gone, and what another worker failed with.
        """
        if self.size == 1:
            yield
            return
        try:
            self._join(run, minutes)
            yield
        except OtherFailed as other:
            self._leave(failed=True)
            raise other.error from None
        except (Exception, Stopped) as error:
            self._tell(error)
            raise
        if self.is_main:
            self._store.set(DONE, "1")
            self._leave()
        else:
            self._wait_for_first()

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Each value summed over all workers."""
        if self.size == 1:
            return list(values)
        import torch

        total = torch.tensor(values, dtype=torch.float64)
        with self.translate_errors():
            torch.distributed.all_reduce(total)
        added: list[float] = total.tolist()
        return added

    def all_reduce_tensors(self, tensors: Sequence["torch.Tensor"]) -> None:
        """Each tensor in place becomes the sum of all workers' tensors."""
        if self.size == 1:
            return
        import torch

        with self.translate_errors():
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)
            if any(tensor.is_cuda for tensor in tensors):
                torch.cuda.synchronize()
                self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """What a GPU gathered or added up is of no use when a worker was lost meanwhile."""
        if self._lifeline is not None and self._lifeline.broken:
            raise RuntimeError("a worker was lost while a GPU waited for it")

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

    @contextlib.contextmanager
    def all_through(self, seconds: float) -> Iterator[None]:
        """Left when all workers are through with what is inside, for which one may need `seconds`
        longer than another. Who is lost is noticed by those that wait."""
        if self.size == 1:
            yield
            return
        import torch.distributed as dist

        patience = timedelta(seconds=self._patience_s + seconds)
        with self.translate_errors():
            group = dist.new_group(backend="gloo", timeout=patience)
        yield
        with self.translate_errors():
            through = dist.barrier(group, async_op=True)
            while not through.is_completed():  # a signal is heard meanwhile
                time.sleep(POLL_S)
            through.wait()
            dist.destroy_process_group(group)

    def broadcast_int(self, number: int = 0) -> int:
        """The first worker's `number`, on all of them at the same time."""
        import torch

        said = torch.tensor(number)
        with self.translate_errors():
            torch.distributed.broadcast(said, src=0)
        return int(said)

    def mark(self, key: str) -> None:
        """The others, in `wait_for`, go on."""
        with self.translate_errors():
            self._store.set(key, "1")

    def wait_for(self, key: str) -> None:
        """Until the first worker has marked `key`. Not a barrier: what it does before that may
        take longer than those wait."""
        with self.translate_errors():
            while not self._ask(lambda: self._store.check([key]), self._patience_s):
                if self._ask(lambda: self._store.check([FAILURE]), self._patience_s):
                    raise RuntimeError("it failed")
                time.sleep(POLL_S)

    def broadcast_bytes(self, content: bytes) -> bytes:
        """The first worker's `content`, on all of them."""
        return content if self.size == 1 else self._broadcast(content)

    def broadcast_folder(self, folder: Path | None, into: Path) -> Path | None:
        """The first worker's `folder`: itself there, a copy of its files in `into` elsewhere."""
        if self.size == 1:
            return folder
        files = sorted(folder.iterdir()) if folder is not None and self.is_main else []
        listed = {path.name: path.stat().st_size for path in files}
        listed = json.loads(self._broadcast(json.dumps(listed).encode()))
        content = self._broadcast(b"".join(path.read_bytes() for path in files))
        if self.is_main or not listed:
            return folder if self.is_main else None
        into.mkdir(parents=True, exist_ok=True)
        start = 0
        for name, size in listed.items():
            (into / name).write_bytes(content[start : start + size])
            start += size
        return into

    def _broadcast(self, content: bytes) -> bytes:
        import torch

        (size,) = self.all_reduce_sum(len(content) if self.is_main else 0)
        if not size:
            return b""
        shape = torch.zeros(int(size), dtype=torch.uint8)
        payload = torch.frombuffer(bytearray(content), dtype=torch.uint8) if self.is_main else shape
        with self.translate_errors():
            torch.distributed.broadcast(payload, src=0)
        return payload.numpy().tobytes()

    def _join(self, run: str, minutes: float) -> None:
        import torch
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        self._patience_s = 60 * max(minutes, 0.1)
        patience = timedelta(seconds=self._patience_s)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            self._store, *_ = next(rendezvous("env://", self.rank, self.size, timeout=patience))
            dist.init_process_group(
                backend, store=self._store, rank=self.rank, world_size=self.size, timeout=patience
            )
        except RuntimeError as error:
            raise UnreachableError(
                f"the {self.size} workers did not meet within {minutes:g} minutes "
                f"({_line(error)}); check that all of them run and reach MASTER_ADDR, then start "
                "again"
            ) from error
        with self.translate_errors():
            asked = self._store.compare_set(RUN, "", run).decode()
        # Asked of all before anyone goes on: who starts to load is not there to hear of it.
        if self.all_reduce_sum(asked != run) != [0]:
            raise SettingsError(
                f"worker {self.rank} has other settings or data than another worker; start all "
                "workers with the same"
            )
        with self.translate_errors():
            self._lifeline = peer_watchdog.Lifeline(self.rank, self.size)

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Around whatever torch.distributed does for all: raises why another worker is gone."""
        import torch

        try:
            yield
        except torch.OutOfMemoryError:  # this worker's own, while it made room
            raise
        except RuntimeError as error:  # all that torch.distributed raises
            raise self._reason(error) from error

    def _reason(self, error: RuntimeError) -> "OtherFailed":
        """Why a worker stopped answering: what it left in the store, if it could."""
        with contextlib.suppress(RuntimeError):  # the store dies with the first worker
            rank, code, sentence = json.loads(self._ask(self._failure))
            return OtherFailed(_of_code(code)(f"worker {rank}: {sentence}"))
        return OtherFailed(
            UnreachableError(
                f"another worker ended or cannot be reached ({_line(error)}); start again to go on "
                "from the last checkpoint"
            )
        )

    def _failure(self) -> str:
        end = time.monotonic() + LINGER_S / 2
        while time.monotonic() < end:
            if self._store.check([FAILURE]):
                return str(self._store.get(FAILURE).decode())
            time.sleep(POLL_S)
        raise RuntimeError("nobody has said why")

    def _ask(self, question: Callable[[], Any], seconds: float = LINGER_S) -> Any:
        """What the store answers. By itself it waits for a lost host as long as TCP does."""
        answers: queue.SimpleQueue[tuple[Any, RuntimeError | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                answers.put((question(), None))
            except RuntimeError as error:
                answers.put((None, error))

        threading.Thread(target=run, daemon=True).start()
        try:
            answer, error = answers.get(timeout=seconds)
        except queue.Empty:
            raise RuntimeError("the first worker does not answer") from None
        if error is not None:
            raise error
        return answer

    def _tell(self, error: BaseException) -> None:
        """Leave the reason for the others, before their next word to this worker fails."""
        if isinstance(error, Stopped):
            error = interruption()
        code = getattr(error, "exit_code", JobError.exit_code)
        sentence = str(error) or type(error).__name__
        if self._store is None:  # it met nobody
            return
        with contextlib.suppress(RuntimeError):
            told = json.dumps([self.rank, code, sentence])
            self._ask(lambda: self._store.compare_set(FAILURE, "", told))
        self._leave(failed=True)

    def _leave(self, *, failed: bool = False) -> None:
        """End the group; whoever keeps the store waits until the others have read it."""
        import torch.distributed as dist

        if self._lifeline is not None:
            self._lifeline.let_go(peer_watchdog.FAILED if failed else peer_watchdog.DONE)
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
        with contextlib.suppress(RuntimeError):
            end = time.monotonic() + LINGER_S
            left = self._ask(lambda: self._store.add(LEFT, 1))
            while self.is_main and left < self.size and time.monotonic() < end:
                time.sleep(POLL_S)
                left = self._store.add(LEFT, 0)
        if self._lifeline is not None:
            self._lifeline.end(LINGER_S)

    def _wait_for_first(self) -> None:
        """Until the run is published."""
        self.wait_for(DONE)
        self._leave()


class OtherFailed(Exception):
    """Another worker's failure, as it arrives here; `together` turns it into `error`."""

    def __init__(self, error: JobError) -> None:
        self.error = error


def _see_one_gpu(environ: MutableMapping[str, str], number: int) -> None:
    """Of the visible GPUs this worker's alone: a library that sees more would use more."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible is not None else [str(number)] * (number + 1)
    if number < len(names):
        environ["CUDA_VISIBLE_DEVICES"] = names[number]


def _of_code(code: int) -> type[JobError]:
    return next((kind for kind in JobError.__subclasses__() if kind.exit_code == code), JobError)


def _line(error: BaseException) -> str:
    """The first line of what torch.distributed says, without its source positions."""
    return str(error).split("\n")[0].rpartition("] ")[2][:200]
