"""The frozen base whole on each worker, or in parts: then a layer is whole only while it is used.

All that the NF4 weights of a decoder layer consist of lies end to end in one line of bytes. torch's
FSDP2 cuts the line into a part for each worker, gathers it before the layer is used and frees it
afterwards. Weights and quantisation states are views of the gathered line, so whoever computes with
them computes the same numbers. Only what is never trained is in parts: the adapter, its gradients
and its optimizer are those of workers that hold everything.
"""

import contextlib
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trainer.distributed.workers import Workers
from trainer.runtime.device import GIB
from trainer.runtime.log import figures
from trainer.runtime.nf4 import BLOCK_SCALES, BLOCK_VALUES

log = logging.getLogger(__name__)

ALIGNED = 16  # bytes, for whatever reads a view of the line
LENDING = "lending"  # key of the workers' store: the first one evaluates
NO_LAYER = -1


class WholeBase:
    """A base that this worker holds whole: nothing has to be gathered."""

    is_sharded = False

    def allocate(self, weights: Mapping[str, tuple[int, ...]], place: torch.device) -> None:
        """Make room for the quantised `weights`, shapes by name, before they are loaded."""

    def keep_shard(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What a model is loaded from, as soon as it is quantised: called tensor by tensor."""
        return tensors

    def bind(self, model: Any) -> None:
        """Connect a model that was loaded from what `take` gave. All workers do it together."""

    def gather_layers(self, layers: Iterable[int]) -> Iterator[int]:
        """Each of `layers`, whole until the next one is asked for. All workers ask for the same."""
        return iter(layers)

    @contextlib.contextmanager
    def gather_for_main(self, model: Any) -> Iterator[None]:
        """On the first worker alone: meanwhile `model` may be called like any other."""
        yield

    def serve_gathers(self) -> None:
        """On the other workers: give what the first one needs until `lent` is over."""


@dataclass(frozen=True)
class _Piece:
    """Where in its layer's line a tensor lies."""

    layer: int
    start: int
    size: int  # bytes


class ShardedBase(WholeBase):
    """A base that all `workers` hold together, each an equal part of each layer."""

    is_sharded = True

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._pieces: dict[str, _Piece] = {}
        self._lines: list[_Line] = []

    def allocate(self, weights: Mapping[str, tuple[int, ...]], place: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        sizes = self._lay_out(weights)
        with self._workers.translate_errors():
            mesh = init_device_mesh(place.type, (self._workers.size,))
            for size in sizes:
                line: Any = fully_shard(_Line(size), mesh=mesh)
                self._lines.append(line.to_empty(device=place))
        whole, part = sum(sizes), sum(self._part(n).numel() for n in range(len(sizes)))
        log.info(
            "this worker holds %.2f of the base's %.2f GiB",
            part / GIB,
            whole / GIB,
            extra=figures(base_bytes=whole, part_bytes=part),
        )

    def _lay_out(self, weights: Mapping[str, tuple[int, ...]]) -> list[int]:
        """Gives each tensor its place; returns the bytes of each layer, in equal parts."""
        ends: dict[int, int] = {}
        for name, shape in sorted(weights.items()):
            layer = int(re.findall(r"\.layers\.(\d+)\.", name)[0])
            for part, size in _nf4_bytes(math.prod(shape)).items():
                start = ends.get(layer, 0)
                self._pieces[name + part] = _Piece(layer, start, size)
                ends[layer] = _up(start + size, ALIGNED)
        return [_up(ends[layer], ALIGNED * self._workers.size) for layer in range(len(ends))]

    def _part(self, layer: int) -> torch.Tensor:
        """This worker's bytes of the layer."""
        sharded: Any = self._lines[layer].bytes
        part: torch.Tensor = sharded.to_local()
        return part

    def keep_shard(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: self._take(name, tensor) for name, tensor in tensors.items()}

    def _take(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Keeps this worker's part of a weight, and leaves its shape without memory behind it."""
        piece = self._pieces.get(name)
        if piece is None:
            return tensor
        given = tensor.contiguous().flatten().view(torch.uint8)
        assert len(given) == piece.size, f"{name}: {len(given)} bytes, not {piece.size}"
        part = self._part(piece.layer)
        first = self._workers.rank * len(part) - piece.start  # of this worker's, in `given`
        begin, end = max(first, 0), min(first + len(part), len(given))
        if begin < end:
            part[begin - first : end - first] = given[begin:end]
        return torch.zeros(1, dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)

    def bind(self, model: Any) -> None:
        modules = dict(model.named_modules())
        for layer in self.gather_layers(range(len(self._lines))):
            line = self._lines[layer].bytes.data
            for name, piece in self._pieces.items():
                if piece.layer == layer:
                    module, _, part = name.partition(".weight")
                    view = line[piece.start : piece.start + piece.size]
                    _point(modules[module], part, view)

    def gather_layers(self, layers: Iterable[int]) -> Iterator[int]:
        order = list(layers)
        coming = self._start(order[0])
        for place, layer in enumerate(order):
            with self._workers.translate_errors():
                coming.wait()
            if place + 1 < len(order):
                coming = self._start(order[place + 1])
            yield layer
            self._free(layer)

    def _start(self, layer: int) -> Any:
        line: Any = self._lines[layer]
        with self._workers.translate_errors():
            return line.unshard(async_op=True)

    def _free(self, layer: int) -> None:
        line: Any = self._lines[layer]
        line.reshard()

    @contextlib.contextmanager
    def gather_for_main(self, model: Any) -> Iterator[None]:
        self._workers.set_flag(LENDING)
        hooks = []
        for number, layer in enumerate(model.get_base_model().model.layers):
            hooks.append(layer.register_forward_pre_hook(lambda *_, n=number: self._call(n)))
            hooks.append(layer.register_forward_hook(lambda *_, n=number: self._free(n)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self._workers.broadcast_int(NO_LAYER)

    def _call(self, layer: int) -> None:
        self._free(layer)  # it is whole still where a forward pass ran out of memory
        self._start(self._workers.broadcast_int(layer)).wait()

    def serve_gathers(self) -> None:
        self._workers.wait_for_flag(LENDING)
        while (layer := self._workers.broadcast_int()) != NO_LAYER:
            for _ in self.gather_layers([layer]):
                pass


class _Line(torch.nn.Module):
    """The bytes of one layer, as a module because that is what FSDP2 takes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        empty = torch.empty(size, dtype=torch.uint8, device="meta")
        self.bytes = torch.nn.Parameter(empty, requires_grad=False)


def _nf4_bytes(values: int) -> dict[str, int]:
    """Sizes by bitsandbytes' names: what grows with the matrix, which its tables do not."""
    scales = math.ceil(values / BLOCK_VALUES)
    floats = math.ceil(scales / BLOCK_SCALES)
    return {"": math.ceil(values / 2), ".absmax": scales, ".nested_absmax": 4 * floats}


def _point(linear: Any, part: str, view: torch.Tensor) -> None:
    """Let one part of a Linear4bit be `view`, which is there when its layer is gathered."""
    state = linear.weight.quant_state
    if part == ".absmax":
        state.absmax = view
    elif part == ".nested_absmax":
        state.state2.absmax = view.view(torch.float32)
    else:
        linear.weight.data = view.view(linear.weight.shape)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
