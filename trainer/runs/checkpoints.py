"""Checkpoints that are complete or absent, on this machine's disk and in the run's store.

A checkpoint is staged, fsynced, described by a manifest with SHA-256 digests and renamed into
place; then it is pushed to the store while training goes on. Everything in it is safetensors or
JSON, so that reading one executes nothing.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from trainer.errors import DataError
from trainer.runs.checkpoint_store import CheckpointStore, replaced
from trainer.runs.layout import FINGERPRINT, checkpoint_name, step_of
from trainer.storage import Store
from trainer.storage.files import sync_folder
from trainer.storage.manifest import MANIFEST, contents_of, decode, seal

log = logging.getLogger(__name__)

Unusable = Callable[[Path], str | None]
"""What is wrong with the content of a checkpoint that is what its manifest says; None: nothing."""


class Checkpoints:
    """The checkpoints of one run: `folder` on disk and `under` in `store`.

    `fingerprint` says what the run is; a checkpoint of any other run is never used. Only one
    process may use `folder` at a time (`only_process`); `owner` names it to those that use the
    same store.
    """

    def __init__(
        self, folder: Path, store: Store, under: str, fingerprint: str, owner: str
    ) -> None:
        self._folder = folder
        self._fingerprint = fingerprint
        self._store = CheckpointStore(store, under, owner, pushed=self._retire)
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.partial"):
            shutil.rmtree(leftover)

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a staging folder, then make it the checkpoint of `step` and push it.

        Raises what an earlier push failed with, so that a run does not train on for nothing; by
        then what it trained since is saved, and the next start pushes it.
        """
        final = self._folder / checkpoint_name(step)
        if not final.is_dir():
            self._write(final, write)
        self._store.raise_if_push_failed()
        self._store.push(final)
        return final

    def newest(self, unusable: Unusable = lambda _: None) -> Path | None:
        """The newest valid checkpoint, brought to disk; invalid ones are named and skipped.

        `unusable` is asked as well, for a manifest can be written by anybody.
        """
        local, stored = self._local(), self._store.checkpoints()
        for step in sorted({*local, *stored}, reverse=True):
            path, sizes = self._folder / checkpoint_name(step), stored.get(step, {})
            if step in local and self._keep_if_valid(path, unusable):
                self._store.push_unless_whole(path, sizes)
                return path
            if MANIFEST in sizes and self._fetch(step, path, unusable):
                return path
        if local or any(MANIFEST in sizes for sizes in stored.values()):
            log.warning("no checkpoint of this run can be used; it starts from its first step")
        return None

    def discard(self) -> None:
        """Remove all, for a run that starts over: by step, old ones would outlive its own."""
        for path in self._local().values():
            shutil.rmtree(path)
        for step in sorted(self._store.checkpoints()):
            self._store.delete(step)

    def raise_if_push_failed(self) -> None:
        """Raise the error that ended the background push, if one did."""
        self._store.raise_if_push_failed()

    def finish(self) -> None:
        """Wait until every checkpoint is pushed, as CheckpointStore; raise what stopped one."""
        self._store.finish()

    def _local(self) -> dict[int, Path]:
        return {step_of(path.name): path for path in self._folder.iterdir() if step_of(path.name)}

    def _write(self, final: Path, write: Callable[[Path], None]) -> None:
        staging = final.with_suffix(".partial")
        staging.mkdir()
        try:
            write(staging)
            (staging / FINGERPRINT).write_text(self._fingerprint, encoding="utf-8")
            seal(staging)
            staging.rename(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        sync_folder(self._folder)

    def _keep_if_valid(self, path: Path, unusable: Unusable) -> bool:
        """Whether the checkpoint on disk can be used; it is removed, and named, when not."""
        fault = self._fault(path) or unusable(path)
        if fault is None:
            return True
        log.warning("checkpoint %s is invalid and is not used: %s", path.name, fault)
        shutil.rmtree(path)
        return False

    def _fetch(self, step: int, path: Path, unusable: Unusable) -> bool:
        """Bring the stored checkpoint to `path`; False, with the fault logged, if invalid."""
        staging = path.with_suffix(".partial")
        damage = None
        try:
            self._store.fetch(step, staging)
            seal(staging)
            fault = self._fault(staging)
            if fault is None:
                fault = damage = unusable(staging)
        except DataError as error:
            fault = damage = str(error)
        if damage is not None:
            self._store.delete(step)  # it would stand in the way of a good one of this step
        if fault is not None:
            log.warning("stored checkpoint %s is invalid and is not used: %s", path.name, fault)
            shutil.rmtree(staging, ignore_errors=True)
            return False
        staging.rename(path)
        sync_folder(self._folder)
        return True

    def _fault(self, folder: Path) -> str | None:
        """What makes the checkpoint in `folder` unusable, None when nothing does."""
        try:
            wanted = decode((folder / MANIFEST).read_bytes())
            other = (folder / FINGERPRINT).read_text(encoding="utf-8") != self._fingerprint
        except (OSError, ValueError):
            return "its manifest or fingerprint is missing or broken"
        found = contents_of(folder)
        wrong = [n for n in sorted({*wanted, *found}) if wanted.get(n) != found.get(n)]
        if wrong:
            return f"{', '.join(wrong)} is not what was written"
        return "it belongs to another run" if other else None

    def _retire(self) -> None:
        local = self._local()
        for step in replaced(local, {step for step, path in local.items() if _is_whole(path)}):
            shutil.rmtree(local[step], ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint has every file of its manifest in its size; digests cost a reading."""
    try:
        listed = decode((folder / MANIFEST).read_bytes())
        return all((folder / n).stat().st_size == content.size for n, content in listed.items())
    except (OSError, ValueError):
        return False
