"""A prefix of an S3 bucket as a store."""

import hashlib
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from trainer.errors import DataError, JobError, NotAllowedError, SettingsError
from trainer.storage import files, retry
from trainer.storage.buffers import Buffers, Bytes
from trainer.storage.endpoints import refuse_link_local
from trainer.storage.keys import shown
from trainer.storage.parallel import WORKERS, in_order, in_parallel
from trainer.storage.s3 import etag, request_options
from trainer.storage.s3.fast_path import open_wire
from trainer.storage.store import (
    Content,
    DamagedError,
    OvertakenError,
    Stored,
    WrongContentError,
    again_if_damaged,
)
from trainer.uris import publishable_uri

log = logging.getLogger(__name__)
Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
# Of one object as many are in memory, beside the one that is looked at.
PART_BYTES, PARTS_AHEAD = 8 << 20, 8  # of an upload
RANGE_BYTES, RANGES_AHEAD = 16 << 20, 6  # of a download: smaller ones cost a server more
MOST_RACES = 100
CHECKSUMS = {f"Checksum{kind}" for kind in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")}


class BucketStore:
    """Objects below `root` in `bucket`. Safe to use from many threads."""

    def __init__(self, bucket: str, root: str = "", *, retry_minutes: float) -> None:
        self._bucket = bucket
        self._root = root.rstrip("/") + "/" if root.strip("/") else ""
        self._retry_minutes = retry_minutes
        self.uri = f"s3://{bucket}/{self._root}"
        session, self._client = _client(self.uri)
        refuse_link_local("AWS_ENDPOINT_URL_S3", self._client.meta.endpoint_url)
        self._endpoint = publishable_uri(self._client.meta.endpoint_url)
        self._terms = request_options.agreed()
        self._client.meta.events.register("provide-client-params.s3", self._terms.add_to)
        self._wire = open_wire(session, self._client, bucket, READ_TIMEOUT_S)
        # A page can look like an empty bucket or, after boto3's own handler, like error 500;
        # the wildcard puts this handler in front of that one.
        self._client.meta.events.register("before-parse.*.ListObjectsV2", self._refuse_web_page)

    def list(self, prefix: str = "") -> list[Stored]:
        return self._try(prefix, lambda: sorted(self._listed(prefix), key=lambda s: s.name))

    def find(self, name: str) -> Stored | None:
        """The one object of this name. HEAD would do it too, but hides S3's error codes."""
        listed = self._try(name, lambda: next(self._listed(name, MaxKeys=1), None))
        return listed if listed and listed.name == name else None

    def read(self, name: str) -> bytes | None:
        return self._try(name, lambda: self._get(name))[0]

    def download(self, stored: Stored, path: Path) -> str:
        def fetch() -> str:
            with files.staged(path, synced=False) as file:
                return files.copy(self._chunks(stored, Buffers()), file)[1]

        return again_if_damaged(fetch)

    def chunks(self, stored: Stored) -> Iterator[Bytes]:
        return self._chunks(stored)

    def _chunks(self, stored: Stored, buffers: Buffers | None = None) -> Iterator[Bytes]:
        """As in Store: several parts are under way at once, each in one GET.

        In one of `buffers` a chunk is the caller's only until it takes the next one.
        """
        parts = [
            range(start, min(start + RANGE_BYTES, stored.size))
            for start in range(0, max(stored.size, 1), RANGE_BYTES)
        ]

        def fetch(part: range) -> tuple[Bytes, bool, bytearray | None]:
            buffer = None if buffers is None else buffers.take(len(parts[0]))
            return *self._fetch_part(stored, part, buffer), buffer

        check = None
        for data, is_digest, buffer in in_order(fetch, parts, ahead=RANGES_AHEAD):
            if check is None:
                version = stored.version if is_digest else ""
                check = etag.EtagCheck(version, stored.size, lambda: self._first_part_bytes(stored))
            # While the caller does its part; a thread for a small object would cost more than that.
            checking = Thread(target=check.update, args=(data,), daemon=True)
            (checking.start if len(parts) > 1 else checking.run)()
            yield data
            if len(parts) > 1:
                checking.join()
            if buffers is not None and buffer is not None:
                buffers.give_back(buffer)
        if check is not None and not check.holds():
            raise DamagedError(
                f"{shown(self.uri, stored.name)}: its bytes are not those of its ETag; store it "
                f"again, or set {etag.SWITCH}=when_required if its ETags are no digests"
            )

    def upload(self, path: Path, name: str, *, over: str | None = None) -> Content:
        """As in Store. Every part carries a checksum that the server compares."""
        with files.disk_errors(path):
            size = path.stat().st_size
        if over is not None and size <= PART_BYTES:
            return self._send_over(path, name, size, over)
        send = self._send_in_parts if size > PART_BYTES else self._send
        return self._try(name, lambda: send(path, name, size), missing_bucket=SettingsError)

    def write(self, name: str, data: bytes, *, only_if_absent: bool = False) -> bool:
        return self._write(name, data, {"IfNoneMatch": "*"} if only_if_absent else {})

    def update(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """As in Store, by the ETag; a server that does not know conditions gets a plain write."""
        for _ in range(MOST_RACES):
            there, etag = self._try(name, lambda: self._get(name))
            data = change(there)
            if data is None:
                return
            condition = {"IfMatch": etag} if there is not None else {"IfNoneMatch": "*"}
            if self._write(name, data, condition, or_plainly=True):
                return
        raise JobError(f"{shown(self.uri, name)}: others write it all the time; start again")

    def delete(self, names: Iterable[str]) -> None:
        """As in Store. One request each: XML cannot carry every key to a bulk delete."""
        in_parallel(self._delete, names)

    def probe(self) -> None:
        name = f".probe-{secrets.token_hex(8)}"
        # A listing first: only it tells a web page or another region from a server that refuses.
        self._try("", lambda: next(self._listed(name), None), missing_bucket=SettingsError)
        self.write(name, b"probe", only_if_absent=True)
        self._delete(name)

    def abort_stale_uploads(self, prefix: str = "") -> None:
        """As in Store: every multipart upload there, for a run has one writer."""
        try:
            for name, upload_id in self._try(prefix, lambda: list(self._uploads(prefix))):
                self._abort(name, upload_id)
        except NotAllowedError as error:
            log.warning("stale uploads stay: %s", error)

    def _listed(self, prefix: str, **limits: int) -> Iterator[Stored]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._root + prefix, **limits):
            for found in page.get("Contents", []):
                name, size = found["Key"][len(self._root) :], int(found["Size"])
                placeholder = size == 0 and found["Key"].endswith("/")
                if not placeholder:
                    yield Stored(name, size, found["ETag"].strip('"'))

    def _refuse_web_page(self, response_dict: Any, **_: Any) -> None:
        is_page = "html" in response_dict["headers"].get("content-type", "")
        if is_page and response_dict["status_code"] in (200, 404, 405):
            raise retry.not_s3(self._endpoint).error(self.uri)

    def _get(self, name: str) -> tuple[bytes | None, str]:
        """A small object and its ETag; (None, "") when it is absent."""
        from botocore.exceptions import ClientError

        try:
            answer = self._client.get_object(**self._at(name))
            return bytes(answer["Body"].read()), str(answer.get("ETag", "*"))
        except ClientError as error:
            if retry.code_of(error.response) != "NoSuchKey":
                raise
            return None, ""

    def _fetch_part(
        self, stored: Stored, part: range, buffer: bytearray | None
    ) -> tuple[Bytes, bool]:
        return self._try(stored.name, lambda: self._part(stored, part, buffer))

    def _part(self, stored: Stored, part: range, buffer: bytearray | None) -> tuple[Bytes, bool]:
        """Those bytes of the object, and whether its ETag can be a digest of it."""
        wanted = {"IfMatch": stored.version} if stored.version else {}
        if len(part) != stored.size:
            wanted["Range"] = f"bytes={part.start}-{part.stop - 1}"
        if (found := self._part_by_wire(stored, len(part), wanted, buffer)) is not None:
            return found, True
        answer = self._open(stored, wanted)
        data = bytes(answer["Body"].read())
        if len(data) != len(part):
            raise retry.TruncatedError
        secret = answer.get("ServerSideEncryption", "").startswith("aws:kms")
        return data, not secret and "SSECustomerAlgorithm" not in answer

    def _part_by_wire(
        self, stored: Stored, size: int, wanted: dict[str, str], buffer: bytearray | None
    ) -> Bytes | None:
        """None when it has to come by boto3: also when only that one checks its bytes."""
        if (wire := self._wire) is None or not etag.is_possible(stored.version):
            return None
        headers = {"If-Match": f'"{stored.version}"', **self._terms.headers(storing=False)}
        if "Range" in wanted:
            headers["Range"] = wanted["Range"]
        found = wire.get(self._root + stored.name, size, headers, buffer)
        if found is None:
            return None
        data, head = found
        if (
            head.get("x-amz-server-side-encryption", "").startswith("aws:kms")
            or "x-amz-server-side-encryption-customer-algorithm" in head
        ):
            self._wire = None  # no ETag here is a digest, and boto3 knows other checksums
            return None
        whole = head.get("Content-Range", f"/{size}").rpartition("/")[2] == str(stored.size)
        return data if whole and head.get("ETag", "").strip('"') == stored.version else None

    def _open(self, stored: Stored, wanted: dict[str, str]) -> Any:
        from botocore.exceptions import ClientError

        try:
            answer = self._client.get_object(**self._at(stored.name), **wanted)
        except ClientError as error:
            code = retry.code_of(error.response)
            if code not in ("PreconditionFailed", "InvalidRange"):
                raise
            answer = None
        if answer is None:
            raise _not_as_listed(self.uri, stored, "was replaced")
        length = _whole_length(answer, stored.size)
        if length != stored.size:
            if stored.version and answer.get("ETag", "").strip('"') in ("", stored.version):
                raise retry.TruncatedError  # this very object, or something that is no object
            raise _not_as_listed(self.uri, stored, f"has {length} bytes")
        return answer

    def _first_part_bytes(self, stored: Stored) -> int:
        """The length of the first part that was uploaded; 0 when the server does not tell."""
        from botocore.exceptions import ClientError

        def ask() -> int:
            try:
                answer = self._client.head_object(**self._at(stored.name), PartNumber=1)
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status >= 500 and status != 501:
                    raise
                return 0
            return int(answer["ContentLength"])

        return self._try(stored.name, ask)

    def _send(self, path: Path, name: str, size: int) -> Content:
        data = _bytes_of(path, range(size))
        sha256 = hashlib.sha256(data).hexdigest()
        headers, wire = self._terms.headers(storing=True), self._wire
        if wire is None or not wire.put(self._root + name, data, sha256, headers):
            self._client.put_object(**self._at(name), Body=data)
        return Content(len(data), sha256)

    def _send_over(self, path: Path, name: str, size: int, over: str) -> Content:
        data = _bytes_of(path, range(size))
        condition = {"IfMatch": f'"{over}"'} if over else {"IfNoneMatch": "*"}
        if not self._write(name, data, condition, or_plainly=True):
            raise OvertakenError(f"{shown(self.uri, name)}: another process wrote it; start again")
        return Content(len(data), hashlib.sha256(data).hexdigest())

    def _send_in_parts(self, path: Path, name: str, size: int) -> Content:
        """Several at once. One that fails is sent again; an upload that is gone starts over."""
        step = max(PART_BYTES, -(-size // etag.MOST_PARTS))
        parts = [range(start, min(start + step, size)) for start in range(0, size, step)]
        upload = self._client.create_multipart_upload(**self._at(name))["UploadId"]
        at = {**self._at(name), "UploadId": upload}

        def send(number: int) -> tuple[bytes, dict[str, Any]]:
            data = _bytes_of(path, parts[number - 1])
            answer = self._try_part(
                name, lambda: self._client.upload_part(**at, PartNumber=number, Body=data)
            )
            sums = {key: value for key, value in answer.items() if key in CHECKSUMS}
            return data, {"PartNumber": number, "ETag": answer["ETag"], **sums}

        digest, sent, length = hashlib.sha256(), [], 0
        try:
            for data, part in in_order(send, range(1, len(parts) + 1), ahead=PARTS_AHEAD):
                digest.update(data)
                length += len(data)
                sent.append(part)
            done = {"MultipartUpload": {"Parts": sent}}
            self._try_part(name, lambda: self._client.complete_multipart_upload(**at, **done))
        except Exception:
            with suppress(Exception):
                self._client.abort_multipart_upload(**at)
            raise
        return Content(length, digest.hexdigest())

    def _try_part(self, name: str, action: Callable[[], Result]) -> Result:
        def explain(error: Exception) -> retry.Failure | None:
            response = getattr(error, "response", None)
            if response and retry.code_of(response) == "NoSuchUpload":
                return None  # aborted as stale by another pod, or complete and its answer lost
            return retry.explain(error, self._endpoint, SettingsError)

        return retry.retry(action, explain, shown(self.uri, name), self._retry_minutes)

    def _write(
        self, name: str, data: bytes, condition: dict[str, str], *, or_plainly: bool = False
    ) -> bool:
        """PUT if `condition` holds, else False; `or_plainly` for servers that know none."""
        from botocore.exceptions import ClientError

        attempts = 0

        def put() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                return self._put(name, data, condition, retried=attempts > 1)
            except ClientError as error:
                if not or_plainly or retry.code_of(error.response) != "NotImplemented":
                    raise
            return self._put(name, data, {}, retried=False)

        return self._try(name, put, missing_bucket=SettingsError)

    def _put(self, name: str, data: bytes, condition: dict[str, str], *, retried: bool) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._client.put_object(**self._at(name), Body=data, **condition)
        except ClientError as error:
            code = retry.code_of(error.response)
            gone = code == "NoSuchKey" and "IfMatch" in condition
            if code != "PreconditionFailed" and not gone:
                raise
            retried = retried or error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
            # The answer to our own success may have been lost on the way.
            return retried and self._get(name)[0] == data
        return True

    def _delete(self, name: str) -> None:
        self._try(name, lambda: self._client.delete_object(**self._at(name)))

    def _uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        pages = self._client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._root + prefix):
            for upload in page.get("Uploads", []):
                yield upload["Key"][len(self._root) :], upload["UploadId"]

    def _abort(self, name: str, upload_id: str) -> None:
        def abort() -> None:
            from botocore.exceptions import ClientError

            try:
                self._client.abort_multipart_upload(**self._at(name), UploadId=upload_id)
            except ClientError as error:
                if retry.code_of(error.response) != "NoSuchUpload":
                    raise

        self._try(name, abort)

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._root + name}

    def _try(
        self,
        name: str,
        action: Callable[[], Result],
        missing_bucket: type[JobError] = DataError,
    ) -> Result:
        return retry.retry(
            action,
            lambda error: retry.explain(error, self._endpoint, missing_bucket),
            where=shown(self.uri, name),
            minutes=self._retry_minutes,
        )


def _whole_length(answer: Any, unknown: int) -> int:
    """The length of the whole object, of which `answer` may hold a part."""
    whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
    return int(whole) if whole.isdigit() else int(answer.get("ContentLength", unknown))


def _bytes_of(path: Path, part: range) -> bytes:
    with files.disk_errors(path), path.open("rb") as file:
        file.seek(part.start)
        return file.read(len(part))


def _not_as_listed(uri: str, stored: Stored, fact: str) -> WrongContentError:
    return WrongContentError(
        f"{shown(uri, stored.name)}: {fact} where {stored.size} bytes of version "
        f"{stored.version or 'any'} were listed; start again once nothing writes to it"
    )


def _client(where: str) -> Any:
    """botocore's session and client."""
    import botocore.session
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"mode": "standard", "total_max_attempts": 2},
        max_pool_connections=2 * WORKERS,
    )

    def explain(error: Exception) -> retry.Failure | None:
        if isinstance(error, ValueError):  # its text quotes the URL with the password in it
            step = "write it as http://host:port"
            return retry.Failure(SettingsError, "AWS_ENDPOINT_URL_S3 is not a URL", step)
        return retry.explain(error, "boto3", SettingsError)

    def make() -> Any:
        session = botocore.session.get_session()
        session.register_component("data_loader", _loader())
        return session, session.create_client("s3", config=config)

    return retry.retry(make, explain, where, minutes=0)


@cache
def _loader() -> Any:
    """Reads botocore's descriptions of S3 once for all clients: most of what making one takes."""
    import botocore.session

    return botocore.session.get_session().get_component("data_loader")
