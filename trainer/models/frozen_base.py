"""Who holds the frozen base: this worker all of it, or parts that are gathered layer by layer.

What is never trained need not lie where it is computed with. All that the NF4 weights of a decoder
layer consist of can lie end to end in one run of bytes; weights and quantisation states are views
of it, so whoever computes with them computes the same numbers wherever the bytes came from.
"""

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trainer.runtime.nf4 import BLOCK_SCALES, BLOCK_VALUES

ALIGNED = 16  # bytes, for whatever reads a view of a layer
STREAMED = "streamed_base"  # attribute of a decoder
OF_A_LAYER = r"model\.(?:language_model\.)?layers\.(\d+)\."


class WholeBase:
    """A base that this worker holds whole: nothing has to be gathered."""

    is_sharded = False
    is_resident = True
    """whether all of it lies on the device, all the time"""
    unloadable = ""
    """what cannot be done with a base of which not every tensor's place is known; nothing: ''"""

    def allocate(self, weights: Mapping[str, tuple[int, ...]], device: torch.device) -> None:
        """Make room on `device` for the quantised `weights`, shapes by name, before loading."""

    def keep_shard(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What a model is loaded from, as soon as it is quantised: called tensor by tensor."""
        return tensors

    def whole(self, name: str, kept: torch.Tensor) -> torch.Tensor:
        """The tensor of which `keep_shard` left `kept`, where this worker holds all of it."""
        return kept

    def bind(self, model: Any) -> None:
        """Connect a model that was loaded from what `keep_shard` gave. All workers together."""

    def gather_layers(self, layers: Iterable[int]) -> Iterator[int]:
        """Each of `layers`, whole until the next one is asked for. All workers ask for the same."""
        return iter(layers)

    @contextlib.contextmanager
    def gather_for_main(self, model: Any) -> Iterator[None]:
        """On the main worker alone: meanwhile `model` may be called like any other."""
        yield

    def serve_gathers(self) -> None:
        """On the other workers: take part in each gather of the main one's `gather_for_main`."""


def streamed_base_of(model: Any) -> WholeBase | None:
    """Who brings the layers of a bare `model`, where they come one by one to whoever asks."""
    return getattr(model.get_decoder(), STREAMED, None)


@dataclass(frozen=True)
class Slice:
    """Where in its layer's bytes a tensor lies."""

    layer: int
    start: int  # bytes, as the size
    size: int


class FlatLayers:
    """Where the tensors of each decoder layer lie, end to end in `sizes[layer]` bytes."""

    def __init__(self, weights: Mapping[str, tuple[int, ...]], multiple: int = 1) -> None:
        """Of the quantised `weights`, shapes by name; sizes are multiples of `multiple`."""
        self.slices: dict[str, Slice] = {}
        ends: dict[int, int] = {}
        for name, shape in sorted(weights.items()):
            found = re.match(OF_A_LAYER, name)
            if found is None:  # of an image tower
                continue
            layer = int(found[1])
            for suffix, size in _nf4_bytes(math.prod(shape)).items():
                start = ends.get(layer, 0)
                self.slices[name + suffix] = Slice(layer, start, size)
                ends[layer] = _round_up(start + size, ALIGNED)
        self.sizes = [_round_up(ends[layer], ALIGNED * multiple) for layer in range(len(ends))]

    def bind(self, model: Any, layer: int, flat: torch.Tensor) -> None:
        """Let the weights of a `layer` of `model` be views of its bytes at `flat`, uint8."""
        modules = dict(model.named_modules())
        for name, slice_ in self.slices.items():
            if slice_.layer == layer:
                module, _, suffix = name.partition(".weight")
                view = flat[slice_.start : slice_.start + slice_.size]
                _set_view(modules[module], suffix, view)


def bytes_of(tensor: torch.Tensor, slice_: Slice, name: str) -> torch.Tensor:
    """A tensor's own bytes, uint8 [slice_.size]."""
    given = tensor.contiguous().flatten().view(torch.uint8)
    assert len(given) == slice_.size, f"{name}: {len(given)} bytes, not {slice_.size}"
    return given


def without_memory(tensor: torch.Tensor) -> torch.Tensor:
    """Something of its shape, dtype and device."""
    return torch.zeros(1, dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def _nf4_bytes(values: int) -> dict[str, int]:
    """Sizes by bitsandbytes' names: what grows with the matrix, which its tables do not."""
    scales = math.ceil(values / BLOCK_VALUES)
    floats = math.ceil(scales / BLOCK_SCALES)
    return {"": math.ceil(values / 2), ".absmax": scales, ".nested_absmax": 4 * floats}


def _set_view(linear: Any, suffix: str, view: torch.Tensor) -> None:
    """Let a tensor of a Linear4bit be `view`, which holds it while its layer is gathered."""
    state = linear.weight.quant_state
    if suffix == ".absmax":
        state.absmax = view
    elif suffix == ".nested_absmax":
        state.state2.absmax = view.view(torch.float32)
    else:
        linear.weight.data = view.view(linear.weight.shape)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
