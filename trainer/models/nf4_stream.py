"""A base's weights on their way from a file or a bucket to NF4, one tensor after the other.

Files are read as a stream, ahead of the tensor that is being quantised, and never lie in memory
as a whole. What comes out has the names and the layout in which bitsandbytes stores NF4 weights,
so that transformers takes it for a checkpoint that was quantised before.
"""

import json
import math
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any

from trainer.errors import DataError
from trainer.runtime.nf4 import BLOCK_SCALES, BLOCK_VALUES
from trainer.storage import Bytes, again_if_damaged

if TYPE_CHECKING:
    import torch


# What is kept of some tensors as soon as they are there.
Take = Callable[[dict[str, "torch.Tensor"]], dict[str, "torch.Tensor"]]

READ_AHEAD_BYTES = 256 << 20
STAGING_BYTES = 32 << 20
SLICE_VALUES = 1 << 19  # whole blocks, 2 MiB of float32
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


@dataclass(frozen=True)
class Shard:
    """One file of safetensors. `read` starts a stream of its bytes that ends with an exception
    when they were not the file's."""

    name: str
    size: int
    read: Callable[[], Iterator[Bytes]]


class UnknownLayoutError(Exception):
    """The weights are not what this way of loading understands; the text says why."""


@dataclass(frozen=True)
class Target:
    """What a model expects: dtype and shape by name, and which of them become NF4.

    `tied` ones may be absent; names that match `ignored` are left in their file.
    """

    expected: Mapping[str, tuple["torch.dtype", tuple[int, ...]]]
    quantised: frozenset[str]
    tied: frozenset[str]
    ignored: tuple[str, ...]


def quantise(
    shards: list[Shard], target: Target, device: "torch.device", take: Take
) -> dict[str, "torch.Tensor"]:
    """What `take` makes of the weights of `shards` on `device`, those of `target.quantised` as NF4.

    Raises UnknownLayoutError, DataError for a file that is damaged, and what reading raises.
    """

    def placed(shard: Shard) -> dict[str, "torch.Tensor"]:
        found: dict[str, torch.Tensor] = {}
        look = partial(_refuse_misfits, target=target)
        for name, tensor in tensors(shard, device, look):
            if name in target.expected:
                found |= take(_placed(name, tensor, target))
        return found

    return _of_all(shards, placed, target)


def bring(
    shards: list[Shard], target: Target, device: "torch.device", take: Take
) -> dict[str, "torch.Tensor"]:
    """What `take` makes of weights quantised before, on `device`. Raises as `quantise`."""

    def placed(shard: Shard) -> dict[str, "torch.Tensor"]:
        found: dict[str, torch.Tensor] = {}
        for name, tensor in tensors(shard, device):
            found |= take({name: tensor})
        return found

    return _of_all(shards, placed, target)


def _of_all(
    shards: list[Shard], placed: Callable[[Shard], dict[str, "torch.Tensor"]], target: Target
) -> dict[str, "torch.Tensor"]:
    """What `placed` makes of each file, all that the model needs."""
    found: dict[str, torch.Tensor] = {}
    for shard in shards:
        found |= again_if_damaged(partial(placed, shard))
    missing = target.expected.keys() - target.tied - found.keys()
    if missing:
        raise UnknownLayoutError(f"its files have no {min(missing)}")
    return found


def tensors(
    shard: Shard,
    device: "torch.device",
    look: Callable[[dict[str, Any]], None] = lambda header: None,
) -> Iterator[tuple[str, "torch.Tensor"]]:
    """Name and value, on `device`, of each tensor in the order of the file; `look` sees the header
    first.

    The last one is given only when all bytes of the file have passed. Raises DataError.
    """
    import torch

    stream, land = _Stream(shard), _Landing(device)
    try:
        header = stream.header()
        look(header)
        entries = _in_place(header, shard)
        if not entries:
            stream.end()
        ended = 0
        for number, (name, entry) in enumerate(entries, 1):
            start, stop = entry["data_offsets"]
            buffer = torch.empty(stop - start, dtype=torch.uint8, device=device)
            stream.skip(start - ended)
            land.fill(buffer, stream)
            ended = stop
            if number == len(entries):
                stream.end()
            yield name, buffer.view(getattr(torch, DTYPES[entry["dtype"]])).view(entry["shape"])
    finally:
        stream.close()


class _Landing:
    """Where the bytes of a stream become tensors. A GPU's pass through two pinned buffers in turns:
    one is copied over while the other is filled, and no matrix touches fresh host memory."""

    def __init__(self, device: "torch.device") -> None:
        import torch

        self._turns: Iterator[tuple[torch.Tensor, torch.cuda.Event]] | None = None
        if device.type == "cuda":
            buffers = (torch.empty(STAGING_BYTES, dtype=torch.uint8, pin_memory=True) for _ in "12")
            self._turns = cycle([(buffer, torch.cuda.Event()) for buffer in buffers])

    def fill(self, tensor: "torch.Tensor", stream: "_Stream") -> None:
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


def _placed(name: str, tensor: "torch.Tensor", target: Target) -> dict[str, "torch.Tensor"]:
    """As transformers does it, in the compute dtype and then NF4; all of it on the device."""
    dtype, _ = target.expected[name]
    if name not in target.quantised:
        return {name: tensor.to(dtype)}
    device = tensor.device
    packed, state = (_nf4_in_slices if device.type == "cpu" else _nf4)(tensor, dtype)
    parts = state.as_dict(packed=True)
    return {name: packed} | {f"{name}.{part}": value.to(device) for part, value in parts.items()}


def _nf4(values: "torch.Tensor", dtype: "torch.dtype") -> tuple["torch.Tensor", Any]:
    import torch
    from bitsandbytes.functional import quantize_4bit

    made: tuple[torch.Tensor, Any] = quantize_4bit(
        values.to(dtype),
        blocksize=BLOCK_VALUES,
        compress_statistics=True,
        quant_type="nf4",
        quant_storage=torch.uint8,
    )
    return made


def _nf4_in_slices(values: "torch.Tensor", dtype: "torch.dtype") -> tuple["torch.Tensor", Any]:
    """The same bits as `_nf4`: on a CPU, where bitsandbytes makes several float32 copies of a whole
    matrix, a slice at a time stays in the processor's cache."""
    import torch
    from bitsandbytes import functional

    quantise = torch.ops.bitsandbytes.quantize_4bit.default
    slices = values.reshape(-1).split(SLICE_VALUES)
    made = [quantise(part.to(dtype), BLOCK_VALUES, "nf4", torch.uint8) for part in slices]
    absmax = torch.cat([maxima for _, maxima in made])
    offset = absmax.mean()
    absmax, second = functional.quantize_blockwise(absmax - offset, blocksize=BLOCK_SCALES)
    state = functional.QuantState(
        absmax=absmax,
        shape=values.shape,
        dtype=dtype,
        blocksize=BLOCK_VALUES,
        code=functional.get_4bit_type("nf4", device=values.device),
        quant_type="nf4",
        offset=offset,
        state2=second,
    )
    return torch.cat([packed for packed, _ in made]), state


def _refuse_misfits(header: dict[str, Any], target: Target) -> None:
    for name, entry in header.items():
        known = target.expected.get(name)
        if known is None and not any(re.search(pattern, name) for pattern in target.ignored):
            raise UnknownLayoutError(f"the model has no {name}")
        if entry["dtype"] not in DTYPES:
            raise UnknownLayoutError(f"{name} is {entry['dtype']}")
        if known is not None and tuple(entry["shape"]) != known[1]:
            raise UnknownLayoutError(f"{name} is {entry['shape']} where the model has {known[1]}")


def _in_place(header: dict[str, Any], shard: Shard) -> list[tuple[str, dict[str, Any]]]:
    """The entries in the order of their bytes, each as long as its shape says."""
    entries = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
    ended = 0
    for name, entry in entries:
        start, stop = entry["data_offsets"]
        width = _width(entry["dtype"])
        if start < ended or stop - start != width * math.prod(entry["shape"]):
            raise _damaged(shard, f"{name!r} is not where its header says")
        ended = stop
    return entries


def _width(dtype: str) -> int:
    import torch

    return int(getattr(torch, DTYPES[dtype]).itemsize) if dtype in DTYPES else 0


def _damaged(shard: Shard, fact: str) -> DataError:
    return DataError(f"{shard.name}: no sound safetensors file, {fact}; bring it there again")


class _Stream:
    """The bytes of a shard, read ahead by a thread of its own."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._chunks = _ReadAhead(shard.read())
        self._rest = memoryview(b"")
        self._left = shard.size

    def header(self) -> dict[str, Any]:
        """What is in the file, by name. Raises DataError."""
        length = int.from_bytes(self._take(8), "little")
        if length == int.from_bytes(b"version ", "little"):
            raise _damaged(self._shard, "only what Git LFS leaves in its place (`git lfs pull`)")
        if length > min(LONGEST_HEADER_BYTES, self._left):
            raise _damaged(self._shard, f"its header would have {length} bytes")
        try:
            header = json.loads(self._take(length))
            header.pop("__metadata__", None)
            sound = all(map(_is_entry, header.values()))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            sound = False
        if not sound:
            raise _damaged(self._shard, "its header is no list of tensors")
        return dict(header)

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
            raise _damaged(self._shard, f"it is longer than {self._shard.size} bytes")

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
                raise _damaged(self._shard, "it ends early")
            self._rest = memoryview(chunk)
        piece, self._rest = self._rest[:most], self._rest[most:]
        self._left -= len(piece)
        return piece


def _is_entry(entry: Any) -> bool:
    start, stop = entry["data_offsets"]
    return (
        isinstance(entry["dtype"], str)
        and all(isinstance(size, int) and size >= 0 for size in entry["shape"])
        and isinstance(start, int)
        and isinstance(stop, int)
        and 0 <= start <= stop
    )


class _ReadAhead:
    """`chunks`, taken by a thread up to READ_AHEAD_BYTES before they are needed."""

    def __init__(self, chunks: Iterator[Bytes]) -> None:
        self._chunks = chunks
        self._ready: queue.SimpleQueue[Bytes | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Condition()
        self._waiting_bytes = 0
        self._closed = False
        threading.Thread(target=self._work, daemon=True).start()

    def next(self) -> Bytes | None:
        """The next chunk, None after the last one."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        with self._room:
            self._waiting_bytes -= len(item or b"")
            self._room.notify()
        return item

    def close(self) -> None:
        with self._room:
            self._closed = True
            self._room.notify()

    def _work(self) -> None:
        try:
            for chunk in self._chunks:
                if not self._has_room_for(chunk):
                    break
                self._ready.put(chunk)
            self._ready.put(None)
        except BaseException as error:
            self._ready.put(error)

    def _has_room_for(self, chunk: Bytes) -> bool:
        with self._room:
            self._room.wait_for(lambda: self._closed or self._waiting_bytes < READ_AHEAD_BYTES)
            self._waiting_bytes += len(chunk)
            return not self._closed
