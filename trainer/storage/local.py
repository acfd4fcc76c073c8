"""A local folder as a store."""

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from trainer.errors import DataError
from trainer.runtime import keys
from trainer.runtime.json_records import LARGEST_BYTES
from trainer.runtime.regular_files import open_regular
from trainer.storage import files
from trainer.storage.store import Content, OvertakenError, Stored, WrongContentError, small

log = logging.getLogger(__name__)

STALE_S = 3600


class FolderStore:
    """Objects are files below `folder`, which is created by the first write and removed with the
    last object, if it was not there before."""

    small_object_bytes = 16 << 20  # a larger file keeps a disk busy by itself

    def __init__(self, folder: Path) -> None:
        self._root = folder.expanduser().absolute()
        self.uri = f"{self._root}/"
        ways = (self._root, *self._root.parents)
        self._absent = [folder for folder in ways if not os.path.lexists(folder)]

    def unread(self) -> list[Stored]:
        """As `list`, but without reading the files: with no version."""
        found = (Stored(self._name(p), p.stat().st_size, "") for p in self._files(""))
        return sorted(found, key=lambda stored: stored.name)

    def list(self, prefix: str = "") -> list[Stored]:
        """As in Store; reads every file once, for its SHA-256.

        What is not a plain file inside the folder (links that leave it, pipes, sockets) is
        skipped with a warning. An absent folder is empty, and what another process removes
        meanwhile is not there.
        """
        found = (self._stored(path) for path in self._files(prefix))
        return sorted((s for s in found if s is not None), key=lambda stored: stored.name)

    def read(self, name: str) -> bytes | None:
        path = self.path(name)
        with files.disk_errors(path):
            try:
                with open_regular(path) as file:
                    return small(file.read(LARGEST_BYTES + 1), str(path))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def download(self, stored: Stored, path: Path) -> str:
        source = self.path(stored.name)
        with files.staged(path, synced=False) as target:
            size, sha256 = files.copy(files.chunks_of(source), target)
            if size != stored.size or stored.version not in ("", sha256):
                raise WrongContentError(
                    f"{source}: is not what was listed ({size} of {stored.size} bytes); "
                    "start again once nothing writes to it"
                )
        return sha256

    def chunks(self, stored: Stored) -> Iterator[bytes]:
        return files.chunks_of(self.path(stored.name))

    def upload(self, path: Path, name: str, *, over: str | None = None) -> Content:
        """As in Store, but for the moment between the last look and the renaming, where there was
        an object already."""
        place = self.path(name)
        if over == "":
            part = files.part_of(place)
            with files.staged(part) as target:
                content = Content(*files.copy(files.chunks_of(path), target))
            if not files.appear(part, place, lambda: _renamed(part, place)):
                raise _overtaken(place)
            return content
        with files.staged(place) as target:
            content = Content(*files.copy(files.chunks_of(path), target))
            if over is not None:
                target.flush()
                os.fsync(target.fileno())  # a slow disk would make a moment of seconds
                if self._version(name) != over:
                    raise _overtaken(place)
            return content

    def write(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        path = self.path(name)
        if only_if_absent:
            return files.create(path, data)
        with files.staged(path) as file:
            file.write(data)
        return True

    def update(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        with files.locked(self.path(name)):
            data = change(self.read(name))
            if data is not None:
                self.write(name, data)
        self._remove_if_empty(self._absent)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            path = self.path(name)
            with files.disk_errors(path):
                path.unlink(missing_ok=True)
            self._remove_if_empty([*path.parents[: name.count("/")], *self._absent])

    def _remove_if_empty(self, folders: Iterable[Path]) -> None:
        """Inner ones first; the first that is not empty ends it."""
        with suppress(OSError):
            for folder in folders:
                with suppress(FileNotFoundError):
                    folder.rmdir()

    def probe(self) -> None:
        name = f".probe-{secrets.token_hex(8)}"
        self.write(name, b"probe", only_if_absent=True)
        self.delete([name])

    def abort_stale_uploads(self, prefix: str = "") -> None:
        files.sweep(self._root / prefix, older_than_s=STALE_S)

    def path(self, name: str) -> Path:
        """Where `name` lies. Raises DataError when that is outside of the folder."""
        keys.refuse_unsafe([name], self.uri)
        path = self._root / name
        if not _real(path).is_relative_to(_real(self._root)):
            where = keys.printable(self.uri, name)
            raise DataError(f"{where}: leads out of {self._root}; replace the link by its target")
        return path

    def _files(self, prefix: str) -> Iterator[Path]:
        try:
            yield from self._walked(prefix)
        except RecursionError:
            raise DataError(f"{self.uri}: its folders are nested too deep") from None

    def _walked(self, prefix: str) -> Iterator[Path]:
        for folder, subfolders, names in os.walk(self._root, onerror=_unless_absent):
            for name in subfolders.copy():
                # Kubernetes mounts a ConfigMap as links into a folder named ..<time>.
                if name.startswith("..") or self._leads_elsewhere(Path(folder, name)):
                    subfolders.remove(name)
            for name in names:
                path = Path(folder, name)
                wanted = self._name(path).startswith(prefix) and not name.startswith(files.PART)
                if wanted and self._is_ours(path):
                    yield path

    def _leads_elsewhere(self, folder: Path) -> bool:
        if folder.is_symlink():
            log.warning("%r is skipped: a link to a folder", str(folder))
        return folder.is_symlink()

    def _is_ours(self, path: Path) -> bool:
        with files.disk_errors(path):
            real = _real(path)
            if real.is_relative_to(_real(self._root)) and real.is_file():
                return True
            if not os.path.lexists(path):
                return False
        log.warning("%r is skipped: not a file of this folder", str(path))
        return False

    def _stored(self, path: Path) -> Stored | None:
        with files.disk_errors(path), suppress(FileNotFoundError):
            return Stored(self._name(path), path.stat().st_size, files.sha256_of(path))
        return None

    def _version(self, name: str) -> str:
        stored = self._stored(self.path(name))
        return stored.version if stored is not None else ""

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def _overtaken(place: Path) -> OvertakenError:
    return OvertakenError(f"{place}: another process wrote it; start again")


def _renamed(part: Path, place: Path) -> bool:
    """In one step where nobody else writes it in this moment."""
    if place.exists():
        return False
    part.replace(place)
    return True


def _real(path: Path) -> Path:
    """Links followed as far as they lead: Path.resolve raises on a loop, differently by version."""
    return Path(os.path.realpath(path))


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        with files.disk_errors(Path(error.filename)):
            raise error
