"""Data in, a finished run out, and back in with every byte checked."""

import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from trainer.errors import DataError, SettingsError
from trainer.storage import files, keys
from trainer.storage.keys import shown
from trainer.storage.local import FolderStore
from trainer.storage.parallel import in_parallel
from trainer.storage.s3.store import RANGE_BYTES, BucketStore
from trainer.storage.store import Content, Store, Stored, WrongContentError
from trainer.uris import publishable_uri

log = logging.getLogger(__name__)

Result = TypeVar("Result")

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Fetched:
    """One file of the data, ready to be read at `path`. A corpus may be a million of them."""

    name: str
    folder: Path
    size: int
    sha256: str

    @property
    def path(self) -> Path:
        return self.folder / self.name


@dataclass(frozen=True)
class Published:
    """What the manifest of a run lists, by name below the run."""

    objects: Mapping[str, Content]
    is_ours: bool
    """False: the run was published before, and this call changed nothing"""


def open_store(uri: str, *, retry_minutes: float) -> Store:
    """The store at `s3://bucket/prefix/` or in a local folder.

    Raises SettingsError for any other URI. Nothing is touched yet: see `Store.probe`.
    """
    if "://" not in uri:
        return FolderStore(Path(uri))
    bucket, key = _bucket_and_key(uri)
    return BucketStore(bucket, key, retry_minutes=retry_minutes)


def fetch(
    uri: str,
    into: Path,
    *,
    retry_minutes: float,
    wanted: Callable[[str], bool] = lambda name: True,
) -> list[Fetched]:
    """The files at `uri`, sorted by name.

    A local folder or file is read where it is. Objects below an `s3://` prefix, or the one
    object of that key, are downloaded to `into`, unless it holds the same content already; only
    those whose name is `wanted`.
    Raises DataError when there is nothing, or when a key cannot safely become a path.
    """
    if "://" not in uri:
        return _in_place(Path(uri).expanduser())
    store, found = objects_at(uri, retry_minutes=retry_minutes)
    listed = [stored for stored in found if wanted(stored.name)]
    if not found:
        raise DataError(f"{uri}: holds no objects; list it with `aws s3 ls --recursive {uri}`")
    names = [stored.name for stored in listed]
    keys.refuse_unsafe(names, store.uri)
    keys.refuse_collisions(names, store.uri)
    files.sweep(into)
    index = _Index(into)
    index.remove_all_but(names)
    files.refuse_without_room(into, _bytes_missing(listed, into), uri)
    fetched = _at_once(lambda stored: _fetch_one(store, stored, into, index), listed)
    fetched.sort(key=lambda file: file.name)
    log.info("fetched files=%d bytes=%d from %s", len(fetched), sum(f.size for f in fetched), uri)
    return fetched


def publish(
    folder: Path,
    store: Store,
    under: str,
    *,
    around: Callable[[], AbstractContextManager[None]] | None = None,
    uploaded: Callable[[], None] = lambda: None,
) -> Published:
    """Upload every file of `folder` below `under/`, then the manifest that makes it a run.

    With `around` each upload is done within it, and over what was there at the beginning only: it
    raises OvertakenError where another process has written since. `uploaded` is called before the
    manifest is written. A run that has a manifest is left as it is. Raises DataError for an empty
    folder.
    """
    finished = read_manifest(store, under)
    if finished is not None:
        return Published(_contents(finished), is_ours=False)
    local = FolderStore(folder)
    files = [stored for stored in local.unread() if stored.name != MANIFEST]
    if not files:
        raise DataError(f"{folder}: holds no files; there is nothing to publish")
    store.abort_stale_uploads(f"{under}/")
    listed = store.list(f"{under}/") if around is not None else []
    there = {stored.name: stored.version for stored in listed}

    def upload(file: Stored) -> tuple[str, Content]:
        name = f"{under}/{file.name}"
        if around is None:
            return file.name, store.upload(local.path(file.name), name)
        with around():
            return file.name, store.upload(local.path(file.name), name, over=there.get(name, ""))

    objects = dict(_at_once(upload, files))
    uploaded()
    if store.write(f"{under}/{MANIFEST}", _manifest(objects), only_if_absent=True):
        return Published(objects, is_ours=True)
    winner = _contents(read_manifest(store, under) or {"objects": {}})
    if winner != objects:
        log.warning("%s: another process published a different run first", _run(store, under))
    return Published(winner, is_ours=False)


def read_manifest(store: Store, under: str) -> dict[str, Any] | None:
    """`{"objects": {name: {"size": bytes, "sha256": hex}}}` of a finished run; None without one.

    Raises DataError when it is broken.
    """
    data = store.read(f"{under}/{MANIFEST}")
    if data is None:
        return None
    try:
        manifest = json.loads(data)
        sound = all(map(_is_content, manifest["objects"].values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise DataError(f"{_run(store, under)}: its {MANIFEST} is broken; publish the run again")
    return dict(manifest)


def fetch_verified(
    store: Store, under: str, into: Path, *, only_prefix: str = ""
) -> dict[str, Content]:
    """Download what a run's manifest lists to `into/<name>`, checking size and SHA-256; by name.

    `only_prefix` limits it to names that start so. Raises DataError when there is no finished
    run, JobError naming the key when an object is wrong twice.
    """
    manifest = read_manifest(store, under)
    if manifest is None:
        raise DataError(f"{_run(store, under)}: there is no finished run, for it has no {MANIFEST}")
    contents = {n: c for n, c in _contents(manifest).items() if n.startswith(only_prefix)}
    if not contents:
        raise DataError(f"{_run(store, under)}: its {MANIFEST} lists nothing below {only_prefix!r}")
    keys.refuse_unsafe(contents, _run(store, under))
    keys.refuse_collisions(contents, _run(store, under))
    files.sweep(into)
    wanted = [Stored(name, content.size, content.sha256) for name, content in contents.items()]
    files.refuse_without_room(into, _bytes_missing(wanted, into), _run(store, under))
    _at_once(lambda stored: _fetch_exactly(store, f"{under}/{stored.name}", into, stored), wanted)
    return contents


def objects_at(uri: str, *, retry_minutes: float) -> tuple[Store, list[Stored]]:
    """What an `s3://` URI names: one object or, like a folder, all below it. None is no error."""
    bucket, key = _bucket_and_key(uri)
    parent, _, leaf = key.rpartition("/")
    if leaf:
        beside = BucketStore(bucket, parent, retry_minutes=retry_minutes)
        one = beside.find(leaf)
        if one:
            return beside, [one]
    below = BucketStore(bucket, key, retry_minutes=retry_minutes)
    return below, below.list()


def _bucket_and_key(uri: str) -> tuple[str, str]:
    found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", uri, re.DOTALL)
    if not found:
        shown_uri = publishable_uri(uri)
        raise SettingsError(f"{shown_uri}: is no s3://bucket/prefix/; correct the URI")
    return found[1], found[2] or ""


def _in_place(path: Path) -> list[Fetched]:
    with files.disk_errors(path):
        path.stat()
        if path.is_file():
            return [Fetched(path.name, path.parent, path.stat().st_size, files.sha256_of(path))]
    if not path.is_dir():
        raise DataError(f"{path}: is neither a file nor a folder; name one")
    listed = FolderStore(path).list()
    if not listed:
        raise DataError(f"{path}: holds no files; put some there or name another folder")
    keys.refuse_unsafe([stored.name for stored in listed], str(path))
    return [Fetched(s.name, path, s.size, s.version) for s in listed]


def _fetch_one(store: Store, stored: Stored, into: Path, index: "_Index") -> Fetched:
    path = FolderStore(into).path(stored.name)
    sha256 = index.sha256(stored)
    if not (sha256 and files.holds(path, stored.size, sha256)):
        sha256 = store.download(stored, path)
        index.add(stored, sha256)
    return Fetched(stored.name, into, stored.size, sha256)


def _bytes_missing(listed: list[Stored], into: Path) -> int:
    """What is still to be written, by size: a file of the right one is taken for the object."""

    def is_there(stored: Stored) -> bool:
        with suppress(OSError):
            return (into / stored.name).stat().st_size == stored.size
        return False

    return sum(stored.size for stored in listed if not is_there(stored))


def _at_once(action: Callable[[Stored], Result], wanted: list[Stored]) -> list[Result]:
    """`action` of many small objects at once; a big one comes in several parts at once already."""
    small = [stored for stored in wanted if stored.size <= RANGE_BYTES]
    big = [stored for stored in wanted if stored.size > RANGE_BYTES]
    return in_parallel(action, small) + [action(stored) for stored in big]


def _fetch_exactly(store: Store, name: str, into: Path, content: Stored) -> None:
    path = FolderStore(into).path(content.name)
    if files.holds(path, content.size, content.version):
        return
    for _ in range(2):  # once more, for damage on the way
        with suppress(WrongContentError):
            if store.download(Stored(name, content.size, ""), path) == content.version:
                return
    path.unlink(missing_ok=True)
    raise WrongContentError(
        f"{shown(store.uri, name)}: is not what its {MANIFEST} lists; publish the run again"
    )


def _manifest(objects: Mapping[str, Content]) -> bytes:
    listed = {name: asdict(content) for name, content in objects.items()}
    return json.dumps({"objects": listed}, indent=1, sort_keys=True).encode()


def _contents(manifest: Mapping[str, Any]) -> dict[str, Content]:
    return {
        name: Content(entry["size"], entry["sha256"]) for name, entry in manifest["objects"].items()
    }


def _is_content(entry: Any) -> bool:
    return isinstance(entry["size"], int) and isinstance(entry["sha256"], str)


def _run(store: Store, under: str) -> str:
    return store.uri + under


class _Index:
    """What a folder already holds, one JSON line a download, beside it: a kill loses no line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder.with_name(folder.name + ".index.jsonl")
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, str]] = {}
        with files.disk_errors(self._path):
            lines = (
                self._path.read_text(errors="replace").splitlines() if self._path.exists() else []
            )
        for line in lines:
            with suppress(ValueError, TypeError):  # the last one may be cut
                name, version, sha256 = json.loads(line)
                self._known[name] = (version, sha256)

    def sha256(self, stored: Stored) -> str:
        version, sha256 = self._known.get(stored.name, ("", ""))
        return sha256 if version == stored.version else ""

    def add(self, stored: Stored, sha256: str) -> None:
        line = json.dumps([stored.name, stored.version, sha256]) + "\n"
        with self._lock, files.disk_errors(self._path), self._path.open("a") as file:
            file.write(line)

    def remove_all_but(self, names: list[str]) -> None:
        """What was removed from the bucket must not be read any more."""
        for name in self._known.keys() - set(names):
            if not keys.fault(name):
                with files.disk_errors(self._folder):
                    FolderStore(self._folder).path(name).unlink(missing_ok=True)
