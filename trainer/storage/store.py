"""What a folder and a bucket have in common."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from trainer.errors import DataError, JobError
from trainer.runtime.json_records import LARGEST_BYTES
from trainer.storage.buffers import Bytes

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Stored:
    """One object of a listing."""

    name: str
    """relative to the store's root, separated by '/'"""
    size: int
    """bytes"""
    version: str
    """changes with the content: ETag in a bucket, SHA-256 in a folder; "" accepts any"""


@dataclass(frozen=True)
class Content:
    """What an object has to be."""

    size: int
    sha256: str


class WrongContentError(DataError):
    """An object is not the one that was listed."""


class OvertakenError(JobError):
    """Another process stored something under this name meanwhile."""


class DamagedError(WrongContentError):
    """The bytes that arrived are not those that were stored; another try may bring them."""


def small(data: bytes, name: str) -> bytes:
    """`data` of the object `name`. Raises DataError where there is more than any record has."""
    if len(data) > LARGEST_BYTES:
        raise DataError(
            f"{name}: has more than {LARGEST_BYTES >> 20} MiB, so no run has written it; remove it"
        )
    return data


def retry_if_damaged(read: Callable[[], Result]) -> Result:
    """What `read` returns; when its bytes arrived damaged, it is called once more."""
    try:
        return read()
    except DamagedError as error:
        log.warning("%s; reading it again", error)
    # Outside of the except block: what the failed try had already placed is let go.
    return read()


class Store(Protocol):
    """A folder or a prefix of a bucket.

    Every method raises NotAllowedError, UnreachableError (after the retry time), SettingsError
    (wrong region, not an S3 server) or JobError (disk full). A name that could leave the root
    is a DataError.
    """

    @property
    def uri(self) -> str:
        """Names the store in messages; holds no secret."""

    @property
    def small_object_bytes(self) -> int:
        """Up to this size objects are best moved many at once; a larger one fills the way alone."""

    def list(self, prefix: str = "") -> list[Stored]:
        """Every object whose name starts with `prefix`, sorted by name; no placeholders."""

    def read(self, name: str) -> bytes | None:
        """The whole of a small object; None when it is absent. Raises DataError as `small`."""

    def download(self, stored: Stored, path: Path) -> str:
        """Put the object at `path`, complete or not at all; its SHA-256.

        It is not synced: whoever finds it after a crash compares it with its digest.

        Raises WrongContentError, a DataError, when size or version is not as listed.
        """

    def chunks(self, stored: Stored) -> Iterator[Bytes]:
        """The object's bytes in order, for what need not land on this disk.

        Raises WrongContentError as `download`; at the end, DamagedError when the bytes that were
        given are not the object's.
        """

    def upload(self, path: Path, name: str, *, over: str | None = None) -> Content:
        """Store the file at `path` as `name`, complete or not at all; what was stored.

        With `over`, a small one only over the object of that version, "" for none: raises
        OvertakenError when something else is there.
        """

    def write(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        """Store `data`; False when `only_if_absent` and the name was taken.

        Of many concurrent writers exactly one gets True, if their data differs.
        """

    def update(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Store `change` of what is there (None when absent), or nothing when that is None.

        `change` may be called again: of many who do this at once, none undoes another's. A server
        or a disk that can neither compare nor lock keeps what was stored last.
        """

    def delete(self, names: Iterable[str]) -> None:
        """Remove the objects; absent ones are no error."""

    def probe(self) -> None:
        """Prove that the store can be written: write a tiny object and remove it.

        Raises SettingsError when bucket or folder cannot be used at all.
        """

    def abort_stale_uploads(self, prefix: str = "") -> None:
        """Remove what uploads that broke off left behind under `prefix`."""


class BucketLike(Store, Protocol):
    """A store that other people fill too, and whose every URI may name one object or a prefix."""

    def find(self, name: str) -> Stored | None:
        """The one object of this name; None when it is absent."""
