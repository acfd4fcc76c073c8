"""Checkpoints that are complete or absent, on local disk and beside the run in its store.

A checkpoint is staged, fsynced, described by a manifest with SHA-256 digests and renamed into
place; then a background thread pushes it while training goes on, manifest last. Everything in
it is safetensors or JSON, so that reading one executes nothing.
"""

import json
import logging
import os
import queue
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.errors import DataError, UnreachableError
from trainer.runtime import signals
from trainer.storage import FolderStore, Store, fetch_verified, read_manifest
from trainer.storage.lease import publish_alone
from trainer.storage.transfer import MANIFEST

log = logging.getLogger(__name__)

FINGERPRINT = "fingerprint.json"
ROWS = "metrics.jsonl"
KEPT = 2  # never fewer valid ones than this
_NAME = re.compile(r"step-(\d{6,})")


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
        self._store = store
        self._under = under
        self._fingerprint = fingerprint
        self._owner = owner
        self._pending: queue.Queue[Path | None] = queue.Queue()
        self._failure: BaseException | None = None
        self._pusher: threading.Thread | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("*.partial"):
            shutil.rmtree(leftover)

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Let `write` fill a staging folder, then make it the checkpoint of `step` and push it.

        Raises what an earlier push failed with, so that a run does not train on for nothing; by
        then what it trained since is saved, and the next start pushes it.
        """
        final = self._folder / f"step-{step:06d}"
        if not final.is_dir():
            self._write(final, write)
        self.raise_if_push_failed()
        self._push(final)
        return final

    def _write(self, final: Path, write: Callable[[Path], None]) -> None:
        staging = final.with_suffix(".partial")
        staging.mkdir()
        try:
            write(staging)
            (staging / FINGERPRINT).write_text(self._fingerprint)
            _seal(staging)
            staging.rename(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        _sync_folder(self._folder)

    def newest(self, unusable: Callable[[Path], str | None] = lambda _: None) -> Path | None:
        """The newest valid checkpoint, brought to disk; invalid ones are named and skipped.

        `unusable` says what is wrong with the content of one that is what its manifest says: a
        manifest can be written by anybody.
        """
        local = {_step(path.name): path for path in self._folder.iterdir() if _step(path.name)}
        stored = self._stored()
        for step in sorted({*local, *stored}, reverse=True):
            path = self._folder / f"step-{step:06d}"
            if step in local:
                fault = self._fault(path) or unusable(path)
                if fault is None:
                    if not self._has_all(step, stored.get(step, {})):
                        if MANIFEST in stored.get(step, {}):  # it would stand in the way
                            self._delete_stored(step)
                        self._push(path)
                    return path
                log.warning("checkpoint %s is invalid and is not used: %s", path.name, fault)
                shutil.rmtree(path)
            if MANIFEST in stored.get(step, {}) and self._bring(path, step, unusable):
                return path
        if local or any(MANIFEST in sizes for sizes in stored.values()):
            log.warning("no checkpoint of this run can be used; it starts from its first step")
        return None

    def discard(self) -> None:
        """Remove all, for a run that starts over: by step, old ones would outlive its own."""
        for path in self._folder.iterdir():
            if _step(path.name):
                shutil.rmtree(path)
        for step in sorted(self._stored()):
            self._delete_stored(step)

    def raise_if_push_failed(self) -> None:
        """Raise the error that ended the background push, if one did."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Wait until every checkpoint is pushed; raise what stopped one.

        After a signal no longer than the grace period: a store that hangs has timeouts beyond it.
        """
        if self._pusher is not None:
            self._pending.put(None)
            while self._pusher.is_alive() and not signals.out_of_time():
                self._pusher.join(timeout=0.2)
            if self._pusher.is_alive():
                raise UnreachableError(f"{self._store.uri}: no answer within the grace period")
            self._pusher = None
        self.raise_if_push_failed()

    def _push(self, path: Path) -> None:
        if self._pusher is None:
            self._pusher = threading.Thread(target=self._push_all, daemon=True, name="checkpoints")
            self._pusher.start()
        self._pending.put(path)

    def _push_all(self) -> None:
        while (path := self._pending.get()) is not None:
            if not path.is_dir():  # retired while it waited for a slow store; newer ones follow
                continue
            try:
                publish_alone(path, self._store, f"{self._under}/{path.name}", self._owner)
                self._show_rows(path)
                self._retire()
            except BaseException as error:
                self._failure = error
                return

    def _show_rows(self, path: Path) -> None:
        """The rows so far under one name, for whoever follows the run. Not beside `run.json`:
        another process may have published the run meanwhile, with its own."""
        if (path / ROWS).is_file():
            self._store.write(f"{self._under}/{ROWS}", (path / ROWS).read_bytes())

    def _retire(self) -> None:
        """Drop all but the newest, by step: the clock of a node says nothing about order.

        One that lacks a part is not counted, so that what is kept can be used.
        """
        whole = {_step(path.name) for path in self._folder.iterdir() if _is_whole(path)}
        for path in list(self._folder.iterdir()):
            if _is_old(_step(path.name), whole):
                shutil.rmtree(path, ignore_errors=True)
        stored = self._stored()
        whole = self._whole_steps(stored)
        for step in sorted(stored):  # also what a kill left of one, which has no manifest
            if _is_old(step, whole):
                self._delete_stored(step)

    def _delete_stored(self, step: int) -> None:
        """Manifest first: without it the rest is no checkpoint."""
        under = self._name(step)
        names = [under + "/" + name for name in self._stored().get(step, {})]
        self._store.delete([name for name in names if name.endswith("/" + MANIFEST)])
        self._store.delete([name for name in names if not name.endswith("/" + MANIFEST)])

    def _stored(self) -> dict[int, dict[str, int]]:
        """Size of each object in the store by its name below each step."""
        steps: dict[int, dict[str, int]] = {}
        for stored in self._store.list(self._under + "/"):
            folder, _, name = stored.name.removeprefix(self._under + "/").partition("/")
            if _step(folder):
                steps.setdefault(_step(folder), {})[name] = stored.size
        return steps

    def _whole_steps(self, stored: dict[int, dict[str, int]]) -> set[int]:
        """Those of `stored` that have every object of their manifest in its size."""
        return {step for step, sizes in stored.items() if self._has_all(step, sizes)}

    def _has_all(self, step: int, sizes: dict[str, int]) -> bool:
        try:
            listed = (read_manifest(self._store, self._name(step)) or {"objects": {}})["objects"]
        except DataError:
            return False
        return bool(listed) and all(sizes.get(n) == entry["size"] for n, entry in listed.items())

    def _name(self, step: int) -> str:
        return f"{self._under}/step-{step:06d}"

    def _bring(self, path: Path, step: int, unusable: Callable[[Path], str | None]) -> bool:
        """Download the stored checkpoint of this name; False, with the fault logged, if invalid."""
        staging = path.with_suffix(".partial")
        damage = None
        try:
            fetch_verified(self._store, self._name(step), staging)
            _seal(staging)
            fault = self._fault(staging)
            if fault is None:
                fault = damage = unusable(staging)
        except DataError as error:
            fault = damage = str(error)
        if damage is not None:
            self._delete_stored(step)  # it would stand in the way of a good one of this step
        if fault is not None:
            log.warning("stored checkpoint %s is invalid and is not used: %s", path.name, fault)
            shutil.rmtree(staging, ignore_errors=True)
            return False
        staging.rename(path)
        _sync_folder(self._folder)
        return True

    def _fault(self, folder: Path) -> str | None:
        """What makes the checkpoint in `folder` unusable, None when nothing does."""
        try:
            wanted = json.loads((folder / MANIFEST).read_text())["objects"]
            other = (folder / FINGERPRINT).read_text() != self._fingerprint
        except (OSError, ValueError, KeyError, TypeError):
            return "its manifest or fingerprint is missing or broken"
        found = _objects(folder)
        wrong = [n for n in sorted({*wanted, *found}) if wanted.get(n) != found.get(n)]
        if wrong:
            return f"{', '.join(wrong)} is not what was written"
        return "it belongs to another run" if other else None


def _seal(folder: Path) -> None:
    """Write the manifest and make everything in `folder` durable."""
    manifest = folder / MANIFEST
    manifest.unlink(missing_ok=True)
    manifest.write_text(json.dumps({"objects": _objects(folder)}, indent=1, sort_keys=True))
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _objects(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and digest of every file but the manifest."""
    return {
        stored.name: {"size": stored.size, "sha256": stored.version}
        for stored in FolderStore(folder).list()
        if stored.name != MANIFEST
    }


def _is_whole(folder: Path) -> bool:
    """Whether a checkpoint has every file of its manifest in its size; digests cost a reading."""
    try:
        listed = json.loads((folder / MANIFEST).read_text())["objects"]
        return all((folder / n).stat().st_size == entry["size"] for n, entry in listed.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_old(step: int, whole: set[int]) -> bool:
    """Whether KEPT whole checkpoints are newer than `step`, which is 0 for anything else."""
    return step > 0 and len([kept for kept in whole if kept > step]) >= KEPT


def _step(name: str) -> int:
    """The optimizer step in a checkpoint's name, 0 when it is none."""
    match = _NAME.fullmatch(name)
    return int(match.group(1)) if match else 0
