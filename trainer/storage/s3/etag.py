"""What an object's ETag says about its bytes, checked while they pass."""

import hashlib
import os
import re
from collections.abc import Callable

from trainer.storage.buffers import Bytes

# boto3's own switch for checks of what comes in.
SWITCH = "AWS_RESPONSE_CHECKSUM_VALIDATION"
MOST_PARTS = 10_000


_SHAPE = re.compile(r"([0-9a-f]{32})(?:-(\d{1,5}))?")


def is_possible(etag: str) -> bool:
    """Whether an ETag of this shape is to be taken for a digest."""
    return _SHAPE.fullmatch(etag) is not None and os.environ.get(SWITCH) != "when_required"


class EtagCheck:
    """Feed it an object's bytes in order, then ask whether they are those of its ETag.

    An ETag is the MD5 of the object, or, when it was uploaded in parts, the MD5 of the MD5s of the
    parts and their number. `first_part` tells how long the first one is. Where an ETag is
    something else (SSE-KMS, S3 Express), there is nothing to compare with, and all bytes are right.
    """

    def __init__(self, etag: str, size: int, first_part: Callable[[], int]) -> None:
        found = _SHAPE.fullmatch(etag) if is_possible(etag) else None
        self._wanted = found[1] if found else ""
        parts = int(found[2]) if found and found[2] else 0
        self._part_bytes = size
        if self._wanted and parts:
            self._part_bytes = first_part()
            even = self._part_bytes > 0 and -(-size // self._part_bytes) == parts
            self._wanted = self._wanted if even else ""
        self._has_parts = parts > 0
        self._md5 = _md5()
        self._in_part = 0
        self._parts: list[bytes] = []

    def update(self, data: Bytes) -> None:
        if not self._wanted:
            return
        view = memoryview(data)
        while len(view):
            taken = min(len(view), max(1, self._part_bytes - self._in_part))
            self._md5.update(view[:taken])
            self._in_part += taken
            view = view[taken:]
            if self._has_parts and self._in_part == self._part_bytes:
                self._end_part()

    def holds(self) -> bool:
        if not self._wanted:
            return True
        if self._has_parts:
            if self._in_part:
                self._end_part()
            return _md5(b"".join(self._parts)).hexdigest() == self._wanted
        return self._md5.hexdigest() == self._wanted

    def _end_part(self) -> None:
        self._parts.append(self._md5.digest())
        self._md5, self._in_part = _md5(), 0


def _md5(data: bytes = b"") -> "hashlib._Hash":
    return hashlib.md5(data, usedforsecurity=False)
