"""The format of safetensors files: a header of what lies where, and then the tensors' bytes.

Eight bytes give the header's length (little endian); it is JSON, with dtype, shape and place of
each tensor by its name (https://github.com/huggingface/safetensors#format).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import DataError
from trainer.runtime.json_records import json_object, well_formed
from trainer.runtime.regular_files import open_regular

if TYPE_CHECKING:
    from torch import Tensor

LENGTH_BYTES = 8
_MOST_AXES, _MOST_VALUES = 64, 1 << 63  # of a tensor of torch
LONGEST_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
FLOATS = ("BF16", "F16", "F32", "F64")  # of weights that something can be added to


class UnsoundError(Exception):
    """The bytes are no safetensors file; the text says why."""


@dataclass(frozen=True)
class TensorEntry:
    """What a header says of one tensor; `start` and `stop` are bytes behind the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class StoredTensor:
    """A tensor where it lies in a file; `start` and `size` are bytes."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def read(self, buffer: "Tensor | None" = None) -> "Tensor":
        """The tensor, in memory of its own or in the first bytes of `buffer` (uint8, [`size` or
        more]): a mapped file would be counted as this process's.

        One of another type than FLOATS comes as its bytes. Raises DataError when the file has
        become shorter.
        """
        import torch

        raw = torch.empty(self.size, dtype=torch.uint8) if buffer is None else buffer[: self.size]
        with open_regular(self.file) as stream:
            stream.seek(self.start)
            if stream.readinto(raw.numpy().data) != self.size:
                raise DataError(f"{self.file.name}: became shorter while it was read")
        if self.dtype not in FLOATS:
            return raw
        return raw.view(getattr(torch, DTYPES[self.dtype])).reshape(self.shape)


def read_header(file: Path) -> tuple[bytes, list[StoredTensor]]:
    """All that a file has before its data, and its tensors in the order of their data.

    Raises DataError for a file that is damaged or cut short.
    """
    size = file.stat().st_size
    try:
        with open_regular(file) as stream:
            prefix = stream.read(LENGTH_BYTES)
            text = stream.read(header_length(prefix, size - len(prefix)))
        entries = parse_header(text)
    except UnsoundError as fault:
        raise DataError(f"{file.name}: not a safetensors file; fetch it again") from fault
    start = len(prefix) + len(text)
    try:
        entries = in_order(entries)
        if start + sum(entry.size for entry in entries) != size:  # holes would shift what follows
            raise UnsoundError("it has bytes of no tensor, or lacks some")
    except UnsoundError as fault:
        raise DataError(
            f"{file.name}: {size} bytes are not what its header says; fetch it again"
        ) from fault
    return prefix + text, [
        StoredTensor(file, entry.name, entry.dtype, entry.shape, start + entry.start, entry.size)
        for entry in entries
    ]


def header_length(prefix: bytes, left: int) -> int:
    """Bytes of the header, of which a file has `left` behind `prefix`. Raises UnsoundError."""
    if prefix == b"version ":
        raise UnsoundError("only what Git LFS leaves in its place (`git lfs pull`)")
    if len(prefix) < LENGTH_BYTES:
        raise UnsoundError("it ends early")
    length = int.from_bytes(prefix, "little")
    if length > min(LONGEST_HEADER_BYTES, left):
        raise UnsoundError(f"its header would have {length} bytes")
    return length


def parse_header(text: bytes) -> list[TensorEntry]:
    """What is in the file, in the order of the header. Raises UnsoundError."""
    try:
        with well_formed("a header"):
            header = json_object(text.decode())  # json itself takes UTF-16 too
            said = header.pop("__metadata__", None) or {}
            if not all(isinstance(word, str) for pair in said.items() for word in pair):
                raise ValueError("metadata that is no text")
            return [_entry(name, given) for name, given in header.items()]
    except ValueError:
        raise UnsoundError("its header is no list of tensors") from None


def _entry(name: str, given: dict[str, Any]) -> TensorEntry:
    start, stop = given["data_offsets"]
    shape = tuple(given["shape"])
    sound = (
        isinstance(given["dtype"], str)
        and all(type(number) is int and number >= 0 for number in (*shape, start, stop))
        and start <= stop
        # Also where another size is 0: torch multiplies them, in 64 bits.
        and len(shape) <= _MOST_AXES
        and math.prod(size or 1 for size in shape) < _MOST_VALUES
    )
    if not sound:
        raise ValueError(name)
    return TensorEntry(name, given["dtype"], shape, start, stop)


def in_order(entries: Iterable[TensorEntry]) -> list[TensorEntry]:
    """The entries in the order of their bytes, none over another, each as long as its shape says.

    The length of a dtype that is not in DTYPES is not known. Raises UnsoundError.
    """
    ordered = sorted(entries, key=lambda entry: (entry.start, entry.stop))
    ended = 0
    for entry in ordered:
        width = _width(entry.dtype)
        fits = width is None or entry.size == width * math.prod(entry.shape)
        if entry.start < ended or not fits:
            raise UnsoundError(f"{entry.name!r} is not where its header says")
        ended = entry.stop
    return ordered


def _width(dtype: str) -> int | None:
    import torch

    return int(getattr(torch, DTYPES[dtype]).itemsize) if dtype in DTYPES else None
