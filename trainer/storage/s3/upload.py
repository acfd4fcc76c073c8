"""Objects on their way out: small ones in one PUT, large ones in parts that travel at once."""

import hashlib
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from trainer.errors import SettingsError
from trainer.storage import files
from trainer.storage.parallel import in_order
from trainer.storage.s3 import download, etag
from trainer.storage.s3.connection import Connection
from trainer.storage.s3.errors import code_of
from trainer.storage.store import Content, OvertakenError

PART_BYTES, PARTS_AHEAD = 8 << 20, 8  # as many are in memory, beside the one that is looked at
CHECKSUMS = {f"Checksum{kind}" for kind in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")}


def upload(connection: Connection, path: Path, name: str, over: str | None) -> Content:
    """Store the file at `path`, as in Store. Every part carries a checksum that is compared."""
    with files.disk_errors(path):
        size = path.stat().st_size
    if over is not None and size <= PART_BYTES:
        return _send_over(connection, path, name, size, over)
    send = _send_in_parts if size > PART_BYTES else _send
    return connection.retried(
        name, lambda: send(connection, path, name, size), missing_bucket=SettingsError
    )


def write(
    connection: Connection,
    name: str,
    data: bytes,
    condition: dict[str, str],
    *,
    or_plainly: bool = False,
) -> bool:
    """PUT if `condition` holds, else False; `or_plainly` for servers that know none."""
    from botocore.exceptions import ClientError

    attempts = 0

    def put() -> bool:
        nonlocal attempts
        attempts += 1
        try:
            return _put(connection, name, data, condition, retried=attempts > 1)
        except ClientError as error:
            if not or_plainly or code_of(error.response) != "NotImplemented":
                raise
        return _put(connection, name, data, {}, retried=False)

    return connection.retried(name, put, missing_bucket=SettingsError)


def abort_stale(connection: Connection, prefix: str) -> None:
    """Abort every multipart upload below `prefix`."""

    def found() -> list[tuple[str, str]]:
        pages = connection.pages("list_multipart_uploads", prefix)
        return [
            (upload["Key"][len(connection.root) :], upload["UploadId"])
            for page in pages
            for upload in page.get("Uploads", [])
        ]

    for name, upload_id in connection.retried(prefix, found):
        connection.retried(name, partial(_abort, connection, name, upload_id))


def _send(connection: Connection, path: Path, name: str, size: int) -> Content:
    data = _bytes_of(path, range(size))
    sha256 = hashlib.sha256(data).hexdigest()
    headers, fast_path = connection.options.headers(storing=True), connection.fast_path
    if fast_path is None or not fast_path.put(connection.key(name), data, sha256, headers):
        connection.client.put_object(**connection.at(name), Body=data)
    return Content(len(data), sha256)


def _send_over(connection: Connection, path: Path, name: str, size: int, over: str) -> Content:
    data = _bytes_of(path, range(size))
    condition = {"IfMatch": f'"{over}"'} if over else {"IfNoneMatch": "*"}
    if not write(connection, name, data, condition, or_plainly=True):
        where = connection.printable(name)
        raise OvertakenError(f"{where}: another process wrote it; start again")
    return Content(len(data), hashlib.sha256(data).hexdigest())


def _send_in_parts(connection: Connection, path: Path, name: str, size: int) -> Content:
    """Several at once. One that fails is sent again; an upload that is gone starts over."""
    client = connection.client
    step = max(PART_BYTES, -(-size // etag.MOST_PARTS))
    parts = [range(start, min(start + step, size)) for start in range(0, size, step)]
    upload_id = client.create_multipart_upload(**connection.at(name))["UploadId"]
    at = {**connection.at(name), "UploadId": upload_id}

    def retried(request: Any) -> Any:
        # Aborted as stale by another pod, or complete and its answer lost.
        return connection.retried(
            name, request, missing_bucket=SettingsError, but_not="NoSuchUpload"
        )

    def send(number: int) -> tuple[bytes, dict[str, Any]]:
        data = _bytes_of(path, parts[number - 1])
        answer = retried(lambda: client.upload_part(**at, PartNumber=number, Body=data))
        sums = {key: value for key, value in answer.items() if key in CHECKSUMS}
        return data, {"PartNumber": number, "ETag": answer["ETag"], **sums}

    digest, sent, length = hashlib.sha256(), [], 0
    try:
        for data, part in in_order(send, range(1, len(parts) + 1), ahead=PARTS_AHEAD):
            digest.update(data)
            length += len(data)
            sent.append(part)
        listed = {"MultipartUpload": {"Parts": sent}}
        retried(lambda: client.complete_multipart_upload(**at, **listed))
    except Exception:
        with suppress(Exception):
            client.abort_multipart_upload(**at)
        raise
    return Content(length, digest.hexdigest())


def _put(
    connection: Connection, name: str, data: bytes, condition: dict[str, str], *, retried: bool
) -> bool:
    from botocore.exceptions import ClientError

    try:
        connection.client.put_object(**connection.at(name), Body=data, **condition)
    except ClientError as error:
        code = code_of(error.response)
        gone = code == "NoSuchKey" and "IfMatch" in condition
        if code != "PreconditionFailed" and not gone:
            raise
        retried = retried or error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
        # The answer to our own success may have been lost on the way.
        return retried and download.read(connection, name)[0] == data
    return True


def _abort(connection: Connection, name: str, upload_id: str) -> None:
    from botocore.exceptions import ClientError

    try:
        connection.client.abort_multipart_upload(**connection.at(name), UploadId=upload_id)
    except ClientError as error:
        if code_of(error.response) != "NoSuchUpload":
            raise


def _bytes_of(path: Path, part: range) -> bytes:
    with files.disk_errors(path), path.open("rb") as file:
        file.seek(part.start)
        return file.read(len(part))
