"""Data in, a finished run out, and back in with every byte checked."""

import json
import logging
import threading
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from trainer.errors import DataError, DoesNotFitError
from trainer.monitoring.counting import counting
from trainer.runtime import keys
from trainer.runtime.json_records import parse_json, well_formed
from trainer.runtime.regular_files import append
from trainer.storage import files
from trainer.storage.local import FolderStore
from trainer.storage.manifest import MANIFEST, Published, read_manifest, write_manifest
from trainer.storage.parallel import in_parallel
from trainer.storage.s3.store import BucketStore
from trainer.storage.store import BucketLike, Content, Store, Stored, WrongContentError
from trainer.uris import split_bucket_uri

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class _Open(Protocol):
    def __call__(self, bucket: str, root: str, *, retry_minutes: float) -> BucketLike: ...


BUCKET_STORES: dict[str, _Open] = {"s3": BucketStore}
"""The store behind each of `uris.SCHEMES`."""


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


def open_store(uri: str, *, retry_minutes: float) -> Store:
    """The store at `s3://bucket/prefix/` or in a local folder.

    Raises SettingsError for any other URI. Nothing is touched yet: see `Store.probe`.
    """
    if "://" not in uri:
        return FolderStore(Path(uri))
    scheme, bucket, key = split_bucket_uri(uri)
    return BUCKET_STORES[scheme](bucket, key, retry_minutes=retry_minutes)


def fetch(
    uri: str,
    into: Path,
    *,
    retry_minutes: float,
    wanted: Callable[[str], bool] = lambda name: True,
) -> list[Fetched]:
    """The files at `uri`, sorted by name.

    A local folder or file is read where it is. Objects below a prefix of a bucket, or the one
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
    index = _DownloadIndex(into)
    index.remove_all_but(names)
    files.refuse_without_room(into, _bytes_missing(listed, into), uri)
    fetched = _at_once(
        "fetching",
        lambda stored: _fetch_one(store, stored, into, index),
        listed,
        store.small_object_bytes,
    )
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
        return Published(finished, is_ours=False)
    local = FolderStore(folder)
    found = [stored for stored in local.unread() if stored.name != MANIFEST]
    if not found:
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

    objects = dict(_at_once("publishing", upload, found, store.small_object_bytes))
    uploaded()
    return write_manifest(store, under, objects)


def fetch_verified(
    store: Store, under: str, into: Path, *, only_prefix: str = ""
) -> dict[str, Content]:
    """Download what a run's manifest lists to `into/<name>`, checking size and SHA-256; by name.

    `only_prefix` limits it to names that start so; nothing else below `into` has such a name
    afterwards. Raises DataError when there is no finished run or its manifest is wrong about
    sizes, JobError naming the key when an object is wrong twice.
    """
    run_uri = store.uri + under
    manifest = read_manifest(store, under)
    if manifest is None:
        raise DataError(f"{run_uri}: there is no finished run, for it has no {MANIFEST}")
    contents = {n: content for n, content in manifest.items() if n.startswith(only_prefix)}
    if not contents:
        raise DataError(f"{run_uri}: its {MANIFEST} lists nothing below {only_prefix!r}")
    keys.refuse_unsafe(contents, run_uri)
    keys.refuse_collisions(contents, run_uri)
    files.sweep(into)
    wanted = [Stored(name, content.size, content.sha256) for name, content in contents.items()]
    try:
        files.refuse_without_room(into, _bytes_missing(wanted, into), run_uri)
    except DoesNotFitError:
        _refuse_other_sizes(store, under, wanted)
        raise
    _remove_all_but(contents, into, only_prefix)
    _at_once(
        "fetching",
        lambda stored: _fetch_exactly(store, f"{under}/{stored.name}", into, stored),
        wanted,
        store.small_object_bytes,
    )
    return contents


def _refuse_other_sizes(store: Store, under: str, wanted: list[Stored]) -> None:
    """Raise DataError where a manifest, which anybody can write, lists sizes that are not so."""
    sizes = {stored.name: stored.size for stored in store.list(f"{under}/")}
    for one in wanted:
        if sizes.get(name := f"{under}/{one.name}") != one.size:
            raise _not_as_listed(store, name)


def _remove_all_but(names: Collection[str], into: Path, prefix: str) -> None:
    """What an earlier run of another content left would be read with what is fetched."""
    there = FolderStore(into)
    for stored in there.unread():
        if stored.name.startswith(prefix) and stored.name not in names:
            there.path(stored.name).unlink(missing_ok=True)


def objects_at(uri: str, *, retry_minutes: float) -> tuple[Store, list[Stored]]:
    """What a bucket's URI names: one object or, like a folder, all below it. None is no error."""
    scheme, bucket, key = split_bucket_uri(uri)
    parent, _, leaf = key.rpartition("/")
    if leaf:
        beside = BUCKET_STORES[scheme](bucket, parent, retry_minutes=retry_minutes)
        one = beside.find(leaf)
        if one:
            return beside, [one]
    below = BUCKET_STORES[scheme](bucket, key, retry_minutes=retry_minutes)
    return below, below.list()


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


def _fetch_one(store: Store, stored: Stored, into: Path, index: "_DownloadIndex") -> Fetched:
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


def _at_once(
    what: str, action: Callable[[Stored], Result], wanted: list[Stored], small_bytes: int
) -> list[Result]:
    """`action` of many small objects at once, then of the others, of which each fills the way;
    counted as `what`."""
    with counting(what, len(wanted)) as add:

        def counted(stored: Stored) -> Result:
            done = action(stored)
            add(1)
            return done

        small = [stored for stored in wanted if stored.size <= small_bytes]
        big = [stored for stored in wanted if stored.size > small_bytes]
        return in_parallel(counted, small) + [counted(stored) for stored in big]


def _fetch_exactly(store: Store, name: str, into: Path, content: Stored) -> None:
    path = FolderStore(into).path(content.name)
    if files.holds(path, content.size, content.version):
        return
    for _ in range(2):  # once more, for damage on the way
        with suppress(WrongContentError):
            if store.download(Stored(name, content.size, ""), path) == content.version:
                return
    path.unlink(missing_ok=True)
    raise _not_as_listed(store, name)


def _not_as_listed(store: Store, name: str) -> WrongContentError:
    where = keys.printable(store.uri, name)
    return WrongContentError(f"{where}: is not what its {MANIFEST} lists; publish the run again")


class _DownloadIndex:
    """What a folder already holds, one JSON line a download, beside it: a kill loses no line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder.with_name(folder.name + ".index.jsonl")
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, str]] = {}
        with files.disk_errors(self._path):
            lines = (
                self._path.read_text(errors="replace", encoding="utf-8").splitlines()
                if self._path.exists()
                else []
            )
        for line in lines:
            with suppress(ValueError), well_formed("a line"):  # the last one may be cut
                name, version, sha256 = parse_json(line)
                self._known[name] = (version, sha256)

    def sha256(self, stored: Stored) -> str:
        version, sha256 = self._known.get(stored.name, ("", ""))
        return sha256 if version == stored.version else ""

    def add(self, stored: Stored, sha256: str) -> None:
        line = json.dumps([stored.name, stored.version, sha256]) + "\n"
        with self._lock, files.disk_errors(self._path):
            append(self._path, line.encode())

    def remove_all_but(self, names: list[str]) -> None:
        """What was removed from the bucket must not be read any more."""
        for name in self._known.keys() - set(names):
            if not keys.fault(name):
                with files.disk_errors(self._folder):
                    FolderStore(self._folder).path(name).unlink(missing_ok=True)
