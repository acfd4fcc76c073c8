"""The checkpoints of a run beside it in its store, where a fresh machine finds them.

A background thread pushes each while training goes on, its manifest last, and then drops those
that newer ones replace.
"""

import logging
import queue
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from trainer.errors import DataError, UnreachableError
from trainer.runs.layout import METRICS, checkpoint_name, step_of
from trainer.runtime import signals
from trainer.storage import Store, fetch_verified, read_manifest
from trainer.storage.lease import publish_alone
from trainer.storage.manifest import MANIFEST, delete_with_manifests

log = logging.getLogger(__name__)

KEPT = 2  # never fewer valid ones than this
Sizes = dict[str, int]
"""bytes of each object of a checkpoint, by its name below it"""


class CheckpointStore:
    """The checkpoints below `under` in `store`; `owner` names this process and its restarts.

    `pushed` is called, in the background thread, after each push.
    """

    def __init__(self, store: Store, under: str, owner: str, pushed: Callable[[], None]) -> None:
        self._store = store
        self._under = under
        self._owner = owner
        self._pushed = pushed
        self._pending: queue.Queue[Path | None] = queue.Queue()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def push(self, path: Path) -> None:
        """Store the checkpoint in the folder `path`, soon and in the background."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._push_all, daemon=True, name="checkpoints")
            self._thread.start()
        self._pending.put(path)

    def raise_if_push_failed(self) -> None:
        """Raise the error that ended the background push, if one did."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Wait until every checkpoint is pushed; raise what stopped one.

        After a signal no longer than the grace period: a store that hangs has timeouts beyond it.
        """
        if self._thread is not None:
            self._pending.put(None)
            while self._thread.is_alive() and not signals.out_of_time():
                self._thread.join(timeout=0.2)
            if self._thread.is_alive():
                raise UnreachableError(f"{self._store.uri}: no answer within the grace period")
            self._thread = None
        self.raise_if_push_failed()

    def checkpoints(self) -> dict[int, Sizes]:
        """What there is of each, by step; also what a kill left of one, which has no manifest."""
        steps: dict[int, Sizes] = {}
        for stored in self._store.list(self._under + "/"):
            folder, _, name = stored.name.removeprefix(self._under + "/").partition("/")
            if step_of(folder):
                steps.setdefault(step_of(folder), {})[name] = stored.size
        return steps

    def is_whole(self, step: int, sizes: Sizes) -> bool:
        """Whether every object of the manifest is there in its size; digests cost a reading."""
        try:
            listed = read_manifest(self._store, self._name(step))
        except DataError:
            return False
        if not listed:
            return False
        return all(sizes.get(name) == content.size for name, content in listed.items())

    def push_unless_whole(self, path: Path, sizes: Sizes) -> None:
        """Push the checkpoint in `path`, of which the store has `sizes`, if something is amiss."""
        step = step_of(path.name)
        if self.is_whole(step, sizes):
            return
        if MANIFEST in sizes:  # it would stand in the way
            self.delete(step)
        self.push(path)

    def fetch(self, step: int, into: Path) -> None:
        """Bring a checkpoint to the folder `into`. Raises DataError when it is not whole."""
        fetch_verified(self._store, self._name(step), into)

    def delete(self, step: int) -> None:
        delete_with_manifests(self._store, self._name(step))

    def _push_all(self) -> None:
        while (path := self._pending.get()) is not None:
            if not path.is_dir():  # retired while it waited for a slow store; newer ones follow
                continue
            try:
                publish_alone(path, self._store, f"{self._under}/{path.name}", self._owner)
                self._show_metrics(path)
                self._pushed()
                self._retire()
            except BaseException as error:
                self._failure = error
                return

    def _show_metrics(self, path: Path) -> None:
        """The steps so far under one name, for whoever follows the run. Not beside `run.json`:
        another process may have published the run meanwhile, with its own."""
        if (path / METRICS).is_file():
            self._store.write(f"{self._under}/{METRICS}", (path / METRICS).read_bytes())

    def _retire(self) -> None:
        stored = self.checkpoints()
        whole = {step for step, sizes in stored.items() if self.is_whole(step, sizes)}
        for step in replaced(stored, whole):
            self.delete(step)

    def _name(self, step: int) -> str:
        return f"{self._under}/{checkpoint_name(step)}"


def replaced(steps: Collection[int], whole: Collection[int]) -> list[int]:
    """Those of `steps` than which KEPT whole checkpoints are newer, oldest first.

    By step: the clock of a machine says nothing about order. One that lacks an object is not
    counted, so that what is kept can be used.
    """
    return [step for step in sorted(steps) if sum(kept > step for kept in whole) >= KEPT]
