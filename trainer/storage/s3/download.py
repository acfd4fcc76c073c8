"""Objects on their way in: small ones whole, large ones in ranges that travel at once."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from trainer.runtime.json_records import LARGEST_BYTES
from trainer.storage import files
from trainer.storage.buffers import Buffers, Bytes
from trainer.storage.parallel import in_order
from trainer.storage.s3 import etag
from trainer.storage.s3.connection import Connection
from trainer.storage.s3.errors import TruncatedError, code_of
from trainer.storage.store import (
    DamagedError,
    Stored,
    WrongContentError,
    retry_if_damaged,
)

# Smaller ones cost a server more. Of one object as many are in memory, beside the one that is
# looked at.
RANGE_BYTES, RANGES_AHEAD = 16 << 20, 6


def download(connection: Connection, stored: Stored, path: Path) -> str:
    """Put the object at `path`; its SHA-256. As in Store."""

    def fetch() -> str:
        with files.staged(path, synced=False) as file:
            return files.copy(Download(connection, stored, Buffers()).chunks(), file)[1]

    return retry_if_damaged(fetch)


def read(connection: Connection, name: str) -> tuple[bytes | None, str]:
    """A small object, of which no more is read than shows that it is not, and its ETag; (None, "")
    when it is absent. Asks once."""
    from botocore.exceptions import ClientError

    try:
        answer = connection.client.get_object(**connection.at(name))
        body = answer["Body"]
        data = bytes(body.read(LARGEST_BYTES + 1))
        if len(data) <= LARGEST_BYTES:
            body.read(1)  # at its end botocore looks whether all has come
        return data, str(answer.get("ETag", "*"))
    except ClientError as error:
        if code_of(error.response) != "NoSuchKey":
            raise
        return None, ""


@dataclass(frozen=True, slots=True)
class _Arrived:
    """The bytes of one range."""

    data: Bytes
    buffer: bytearray | None
    """where they lie, when it is to be used again"""
    etag_is_digest: bool = True
    """whether the object's ETag can be one"""


class Download:
    """One object on its way in."""

    def __init__(
        self, connection: Connection, stored: Stored, buffers: Buffers | None = None
    ) -> None:
        """In one of `buffers` a chunk is the caller's only until it takes the next one."""
        self._connection = connection
        self._stored = stored
        self._buffers = buffers

    def chunks(self) -> Iterator[Bytes]:
        """As in Store: several ranges are under way at once, each in one GET."""
        size = self._stored.size
        starts = range(0, max(size, 1), RANGE_BYTES)
        ranges = [range(start, min(start + RANGE_BYTES, size)) for start in starts]
        check = None
        for arrived in in_order(self._fetch, ranges, ahead=RANGES_AHEAD):
            check = check or self._check(arrived)
            # While the caller does its part; a thread for a small object would cost more than that.
            checking = Thread(target=check.update, args=(arrived.data,), daemon=True)
            (checking.start if len(ranges) > 1 else checking.run)()
            yield arrived.data
            if len(ranges) > 1:
                checking.join()
            if self._buffers is not None and arrived.buffer is not None:
                self._buffers.give_back(arrived.buffer)
        if check is not None and not check.holds():
            raise DamagedError(
                f"{self._connection.printable(self._stored.name)}: its bytes are not those of its "
                f"ETag; store it again, or set {etag.SWITCH}=when_required if its ETags are no "
                "digests"
            )

    def _fetch(self, wanted: range) -> _Arrived:
        """Those bytes of the object, by the fast path or, where that gives up, by boto3."""
        buffer = None
        if self._buffers is not None:
            buffer = self._buffers.take(min(RANGE_BYTES, self._stored.size))

        def fetch() -> _Arrived:
            return self._by_fast_path(wanted, buffer) or self._by_boto3(wanted, buffer)

        return self._connection.retried(self._stored.name, fetch)

    def _by_fast_path(self, wanted: range, buffer: bytearray | None) -> _Arrived | None:
        """None when it has to come by boto3: also when only that one checks its bytes."""
        connection, stored = self._connection, self._stored
        if (fast_path := connection.fast_path) is None or not etag.is_possible(stored.version):
            return None
        headers = {
            "If-Match": f'"{stored.version}"',
            **connection.options.headers(storing=False),
            **self._range(wanted),
        }
        found = fast_path.get(connection.key(stored.name), len(wanted), headers, buffer)
        if found is None:
            return None
        data, head = found
        if (
            head.get("x-amz-server-side-encryption", "").startswith("aws:kms")
            or "x-amz-server-side-encryption-customer-algorithm" in head
        ):
            connection.fast_path = None  # no ETag here is a digest; boto3 knows other checksums
            return None
        whole = head.get("Content-Range", f"/{len(wanted)}").rpartition("/")[2] == str(stored.size)
        same = whole and head.get("ETag", "").strip('"') == stored.version
        return _Arrived(data, buffer) if same else None

    def _by_boto3(self, wanted: range, buffer: bytearray | None) -> _Arrived:
        answer = self._answer(wanted)
        data = bytes(answer["Body"].read())
        if len(data) != len(wanted):
            raise TruncatedError
        secret = answer.get("ServerSideEncryption", "").startswith("aws:kms")
        is_digest = not secret and "SSECustomerAlgorithm" not in answer
        return _Arrived(data, buffer, is_digest)

    def _answer(self, wanted: range) -> Any:
        """boto3's, once it is sure that it is about the object that was listed."""
        from botocore.exceptions import ClientError

        stored, conditions = self._stored, self._range(wanted)
        if stored.version:
            conditions["IfMatch"] = stored.version
        try:
            answer = self._connection.client.get_object(
                **self._connection.at(stored.name), **conditions
            )
        except ClientError as error:
            if code_of(error.response) not in ("PreconditionFailed", "InvalidRange"):
                raise
            answer = None
        if answer is None:
            raise self._not_as_listed("was replaced")
        length = _whole_length(answer, stored.size)
        if length != stored.size:
            if stored.version and answer.get("ETag", "").strip('"') in ("", stored.version):
                raise TruncatedError  # this very object, or something that is no object
            raise self._not_as_listed(f"has {length} bytes")
        return answer

    def _range(self, wanted: range) -> dict[str, str]:
        """The header, and boto3's parameter, that asks for a part of the object only."""
        if len(wanted) == self._stored.size:
            return {}
        return {"Range": f"bytes={wanted.start}-{wanted.stop - 1}"}

    def _check(self, first: _Arrived) -> etag.EtagCheck:
        version = self._stored.version if first.etag_is_digest else ""
        return etag.EtagCheck(version, self._stored.size, self._first_part_bytes)

    def _first_part_bytes(self) -> int:
        """The length of the first part that was uploaded; 0 when the server does not tell."""
        from botocore.exceptions import ClientError

        def ask() -> int:
            try:
                answer = self._connection.client.head_object(
                    **self._connection.at(self._stored.name), PartNumber=1
                )
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status >= 500 and status != 501:
                    raise
                return 0
            return int(answer["ContentLength"])

        return self._connection.retried(self._stored.name, ask)

    def _not_as_listed(self, fact: str) -> WrongContentError:
        return WrongContentError(
            f"{self._connection.printable(self._stored.name)}: {fact} where {self._stored.size} "
            f"bytes of version {self._stored.version or 'any'} were listed; start again once "
            "nothing writes to it"
        )


def _whole_length(answer: Any, unknown: int) -> int:
    """The length of the whole object, of which `answer` may hold a part."""
    whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
    return int(whole) if whole.isdigit() else int(answer.get("ContentLength", unknown))
