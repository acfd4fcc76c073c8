"""A prefix of an S3 bucket as a store."""

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from trainer.errors import JobError, NotAllowedError, SettingsError
from trainer.storage.buffers import Bytes
from trainer.storage.parallel import in_parallel
from trainer.storage.s3 import download, upload
from trainer.storage.s3.connection import Connection
from trainer.storage.store import Content, Stored, small

log = logging.getLogger(__name__)

MOST_RACES = 100


class BucketStore:
    """Objects below `root` in `bucket`. Safe to use from many threads."""

    small_object_bytes = download.RANGE_BYTES  # what is larger comes in several ranges at once

    def __init__(self, bucket: str, root: str = "", *, retry_minutes: float) -> None:
        self._connection = Connection(bucket, root, retry_minutes)
        self.uri = self._connection.uri

    def list(self, prefix: str = "") -> list[Stored]:
        listed = self._connection.retried(prefix, lambda: list(self._listed(prefix)))
        return sorted(listed, key=lambda stored: stored.name)

    def find(self, name: str) -> Stored | None:
        """As in BucketLike. HEAD would do it too, but hides S3's error codes."""
        first = self._connection.retried(name, lambda: next(self._listed(name, MaxKeys=1), None))
        return first if first and first.name == name else None

    def read(self, name: str) -> bytes | None:
        return self._read(name)[0]

    def download(self, stored: Stored, path: Path) -> str:
        return download.download(self._connection, stored, path)

    def chunks(self, stored: Stored) -> Iterator[Bytes]:
        return download.Download(self._connection, stored).chunks()

    def upload(self, path: Path, name: str, *, over: str | None = None) -> Content:
        return upload.upload(self._connection, path, name, over)

    def write(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        condition = {"IfNoneMatch": "*"} if only_if_absent else {}
        return upload.write(self._connection, name, data, condition)

    def update(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """As in Store, by the ETag; a server that does not know conditions gets a plain write."""
        for _ in range(MOST_RACES):
            there, etag = self._read(name)
            data = change(there)
            if data is None:
                return
            condition = {"IfMatch": etag} if there is not None else {"IfNoneMatch": "*"}
            if upload.write(self._connection, name, data, condition, or_plainly=True):
                return
        where = self._connection.printable(name)
        raise JobError(f"{where}: others write it all the time; start again")

    def delete(self, names: Iterable[str]) -> None:
        """As in Store. One request each: XML cannot carry every key to a bulk delete."""
        in_parallel(self._delete, names)

    def probe(self) -> None:
        name = f".probe-{secrets.token_hex(8)}"
        # A listing first: only it tells a web page or another region from a server that refuses.
        self._connection.retried(
            "", lambda: next(self._listed(name), None), missing_bucket=SettingsError
        )
        self.write(name, b"probe", only_if_absent=True)
        self._delete(name)

    def abort_stale_uploads(self, prefix: str = "") -> None:
        """As in Store: every multipart upload there, for a run has one writer."""
        try:
            upload.abort_stale(self._connection, prefix)
        except NotAllowedError as error:
            log.warning("stale uploads stay: %s", error)

    def _listed(self, prefix: str, **limits: int) -> Iterator[Stored]:
        root = self._connection.root
        for page in self._connection.pages("list_objects_v2", prefix, **limits):
            for found in page.get("Contents", []):
                name, size = found["Key"][len(root) :], int(found["Size"])
                placeholder = size == 0 and found["Key"].endswith("/")
                if not placeholder:
                    yield Stored(name, size, found["ETag"].strip('"'))

    def _read(self, name: str) -> tuple[bytes | None, str]:
        data, etag = self._connection.retried(name, lambda: download.read(self._connection, name))
        return data and small(data, self.uri + name), etag

    def _delete(self, name: str) -> None:
        at = self._connection.at(name)
        self._connection.retried(name, lambda: self._connection.client.delete_object(**at))
