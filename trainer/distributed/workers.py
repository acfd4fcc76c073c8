"""The workers of one run: how many there are, which of them this is, how they meet and part.

A launcher (torchrun, an Indexed Job, a Kubeflow TrainJob) says so in RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_ADDR and MASTER_PORT. The first three are taken out of the environment and each worker sees
one GPU: for every library below this is a process alone, and what is shared is shared here.

The main worker alone checkpoints, evaluates and publishes; the others end when it has ended.
"""

import contextlib
import time
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from datetime import timedelta

from trainer.distributed import peer_watchdog
from trainer.distributed.collectives import ProcessGroup
from trainer.distributed.failures import POLL_S, OtherFailed, first_line, publish_failure
from trainer.distributed.peer_watchdog import PeerWatchdog
from trainer.distributed.shared_store import SharedStore
from trainer.errors import SettingsError, UnreachableError
from trainer.runtime.signals import Stopped
from trainer.settings import Settings

DONE, LEFT, RUN = "done", "left", "run"  # keys of the store
LINGER_S = 10.0  # how long the others have to read why a worker ends


class Workers(ProcessGroup):
    """This process among `size` workers. Alone, it needs nobody and `session` does nothing."""

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> "Workers":
        """What the launcher said, taken out of `environ`. Before torch is imported.

        Raises SettingsError where that is no number, or incomplete.
        """
        given = {name: environ.pop(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        wrong = [f"{n}={v}" for n, v in given.items() if v and not v.isdigit()]
        size = int(given["WORLD_SIZE"] or 1) if not wrong else 1
        missing = [n for n in ("MASTER_ADDR", "MASTER_PORT") if size > 1 and not environ.get(n)]
        if wrong or missing or not int(given["RANK"] or 0) < size:
            listed = ", ".join(f"{name}={value}" for name, value in given.items())
            raise SettingsError(
                f"the launcher set {listed}{''.join(f', no {n}' for n in missing)}; start workers "
                "with torchrun, or set RANK below WORLD_SIZE, MASTER_ADDR and MASTER_PORT"
            )
        _see_one_gpu(environ, int(given["LOCAL_RANK"] or 0))
        return cls(int(given["RANK"] or 0), size)

    def settings_for_rank(self, settings: Settings) -> Settings:
        """`settings` for this worker: the main one speaks, the others only warn."""
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
        """Meet the others for `run`; leave when the main worker is through or one has failed.

        Raises UnreachableError when they are not there within `minutes`, or when one of them is
        gone, and what another worker failed with.
        """
        if self.size == 1:
            yield
            return
        try:
            self._join(run, minutes)
            yield
            if not self.is_main:  # which evaluates and publishes, and may fail there
                self.wait_for_flag(DONE)
        except OtherFailed as other:
            self._leave(failed=True)
            raise other.error from None
        except (Exception, Stopped) as error:
            if self._store is not None:  # it has met somebody
                publish_failure(self._store, self.rank, error)
                self._leave(failed=True)
            raise
        if self.is_main:
            self._met().set(DONE)
        self._leave(failed=False)

    def _join(self, run: str, minutes: float) -> None:
        self._timeout_s = 60 * max(minutes, 0.1)
        try:
            self._rendezvous()
        except RuntimeError as error:
            raise UnreachableError(
                f"the {self.size} workers did not meet within {minutes:g} minutes "
                f"({first_line(error)}); check that all of them run and reach MASTER_ADDR, then "
                "start again"
            ) from error
        with self.translate_errors():
            asked = self._met().set_once(RUN, run)
        # Asked of all before anyone goes on: who starts to load is not there to hear of it.
        if self.all_reduce_sum(asked != run) != [0]:
            raise SettingsError(
                f"worker {self.rank} has other settings or data than another worker; start all "
                "workers with the same"
            )
        with self.translate_errors():
            self._watchdog = PeerWatchdog(self.rank, self.size)

    def _rendezvous(self) -> None:
        import torch
        import torch.distributed as dist
        from torch.distributed.rendezvous import rendezvous

        timeout = timedelta(seconds=self._timeout_s)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, *_ = next(rendezvous("env://", self.rank, self.size, timeout=timeout))
        self._store = SharedStore(store)
        dist.init_process_group(
            backend, store=store, rank=self.rank, world_size=self.size, timeout=timeout
        )

    def _leave(self, *, failed: bool) -> None:
        """End the group; the main worker keeps the store until the others have read it."""
        import torch.distributed as dist

        if self._watchdog is not None:
            self._watchdog.announce_exit(peer_watchdog.FAILED if failed else peer_watchdog.DONE)
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
        with contextlib.suppress(RuntimeError):
            end = time.monotonic() + LINGER_S
            store = self._met()
            left = store.ask(lambda store: store.add(LEFT, 1))
            while self.is_main and left < self.size and time.monotonic() < end:
                time.sleep(POLL_S)
                left = store.add(LEFT, 0)
        if self._watchdog is not None:
            self._watchdog.join(LINGER_S)


def _see_one_gpu(environ: MutableMapping[str, str], number: int) -> None:
    """Of the visible GPUs this worker's alone: a library that sees more would use more."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible is not None else [str(number)] * (number + 1)
    if number < len(names):
        environ["CUDA_VISIBLE_DEVICES"] = names[number]
