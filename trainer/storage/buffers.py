"""Memory for what arrives, used again: new pages for each part cost a tenth of a download."""

from contextlib import suppress

Bytes = bytes | memoryview


class Buffers:
    """Of one size each, as many as are in use at once. Safe to use from many threads."""

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        with suppress(IndexError):
            return self._free.pop()
        return bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        self._free.append(buffer)
