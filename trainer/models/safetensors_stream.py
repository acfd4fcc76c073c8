"""A safetensors file as a stream: its tensors one after the other, on the device that needs them.

The file is read ahead of the tensor that is in work, and never lies in memory as a whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from trainer.errors import DataError
from trainer.models.read_ahead import ReadAhead
from trainer.models.safetensors_files import (
    DTYPES,
    LENGTH_BYTES,
    TensorEntry,
    UnsoundError,
    header_length,
    in_order,
    parse_header,
)
from trainer.storage import Bytes

if TYPE_CHECKING:
    import torch

STAGING_BYTES = 32 << 20


@dataclass(frozen=True)
class Shard:
    """One file of safetensors. `read` starts a stream of its bytes that ends with an exception
    when they were not the file's; `size` is in bytes."""

    name: str
    size: int
    read: Callable[[], Iterator[Bytes]]


def stream_tensors(
    shard: Shard,
    device: "torch.device",
    check_header: Callable[[list[TensorEntry]], None] = lambda entries: None,
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Name and value, on `device`, of each tensor in the order of the file; `check_header` sees
    the header first.

    The last one is given only when all bytes of the file have passed. Raises DataError.
    """
    stream = _ByteStream(shard)
    try:
        entries = stream.header()
        check_header(entries)
        yield from _tensors(stream, _known(in_order(entries)), device)
    except UnsoundError as fault:
        raise DataError(
            f"{shard.name}: no sound safetensors file, {fault}; bring it there again"
        ) from fault
    finally:
        stream.close()


def _tensors(
    stream: "_ByteStream", entries: list[TensorEntry], device: "torch.device"
) -> Iterator[tuple[str, "torch.Tensor"]]:
    import torch

    staging = _Staging(device)
    if not entries:
        stream.end()
    ended = 0
    for number, entry in enumerate(entries, 1):
        buffer = torch.empty(entry.size, dtype=torch.uint8, device=device)
        stream.skip(entry.start - ended)
        staging.fill(buffer, stream)
        ended = entry.stop
        if number == len(entries):
            stream.end()
        yield entry.name, buffer.view(getattr(torch, DTYPES[entry.dtype])).view(entry.shape)


def _known(entries: list[TensorEntry]) -> list[TensorEntry]:
    for entry in entries:
        if entry.dtype not in DTYPES:
            raise UnsoundError(f"{entry.name!r} is {entry.dtype}")
    return entries


class _Staging:
    """How the bytes of a stream become tensors. A GPU's pass through two pinned buffers in turns:
    one is copied over while the other is filled, and no matrix touches fresh host memory."""

    def __init__(self, device: "torch.device") -> None:
        import torch

        self._turns: Iterator[tuple[torch.Tensor, torch.cuda.Event]] | None = None
        if device.type == "cuda":
            buffers = (torch.empty(STAGING_BYTES, dtype=torch.uint8, pin_memory=True) for _ in "12")
            self._turns = cycle([(buffer, torch.cuda.Event()) for buffer in buffers])

    def fill(self, tensor: "torch.Tensor", stream: "_ByteStream") -> None:
        if self._turns is None:
            stream.fill(tensor.numpy().data)
            return
        for part in tensor.split(STAGING_BYTES):
            buffer, copied = next(self._turns)
            copied.synchronize()
            staged = buffer[: len(part)]
            stream.fill(staged.numpy().data)
            part.copy_(staged, non_blocking=True)
            copied.record()


class _ByteStream:
    """The bytes of a shard, in pieces of the size that is asked for. All raise UnsoundError when
    the shard has more or fewer than it should."""

    def __init__(self, shard: Shard) -> None:
        self._size = self._left = shard.size
        self._chunks = ReadAhead(shard.read())
        self._rest = memoryview(b"")

    def header(self) -> list[TensorEntry]:
        """What is in the file, in the order of its header."""
        length = header_length(self._take(LENGTH_BYTES), self._left)
        return parse_header(self._take(length))

    def skip(self, count: int) -> None:
        while count:
            count -= len(self._next(count))

    def fill(self, target: memoryview) -> None:
        while len(target):
            piece = self._next(len(target))
            target[: len(piece)] = piece
            target = target[len(piece) :]

    def end(self) -> None:
        """Read what follows the last tensor: only the whole file can be checked."""
        self.skip(self._left)
        if len(self._rest) or self._chunks.next():
            raise UnsoundError(f"it is longer than {self._size} bytes")

    def close(self) -> None:
        self._chunks.close()

    def _take(self, count: int) -> bytes:
        data = bytearray(count)
        self.fill(memoryview(data))
        return bytes(data)

    def _next(self, most: int) -> memoryview:
        while not len(self._rest):
            chunk = self._chunks.next()
            if chunk is None:
                raise UnsoundError("it ends early")
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:most], self._rest[most:]
        self._left -= len(piece)
        return piece
