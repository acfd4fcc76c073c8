"""The frozen base whole on each worker, or sharded: then a layer is whole only while it is used.

All that the NF4 weights of a decoder layer consist of lies end to end in one flat parameter of
bytes. torch's FSDP2 shards it over the workers, unshards it before the layer is used and reshards
it afterwards. Weights and quantisation states are views of the unsharded one, so whoever computes
with them computes the same numbers. Only what is never trained is sharded: the adapter, its
gradients and its optimizer are those of workers that hold everything.
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

ALIGNED = 16  # bytes, for whatever reads a view of a flat parameter
EVALUATING = "evaluating"  # flag of the main worker's
NO_LAYER = -1
OF_A_LAYER = r"model\.(?:language_model\.)?layers\.(\d+)\."


class WholeBase:
    """A base that this worker holds whole: nothing has to be gathered."""

    is_sharded = False

    def allocate(self, weights: Mapping[str, tuple[int, ...]], device: torch.device) -> None:
        """Make room on `device` for the quantised `weights`, shapes by name, before loading."""

    def keep_shard(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What a model is loaded from, as soon as it is quantised: called tensor by tensor."""
        return tensors

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


@dataclass(frozen=True)
class _Slice:
    """Where in its layer's flat parameter a tensor lies."""

    layer: int
    start: int  # bytes, as the size
    size: int


class ShardedBase(WholeBase):
    """A base that all `workers` hold together, each an equal shard of each layer."""

    is_sharded = True

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._slices: dict[str, _Slice] = {}
        self._layers: list[_FlatParameter] = []

    def allocate(self, weights: Mapping[str, tuple[int, ...]], device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        sizes = self._lay_out(weights)
        with self._workers.translate_errors():
            mesh = init_device_mesh(device.type, (self._workers.size,))
            for size in sizes:
                layer: Any = fully_shard(_FlatParameter(size), mesh=mesh)
                self._layers.append(layer.to_empty(device=device))
        whole, part = sum(sizes), sum(self._local_shard(n).numel() for n in range(len(sizes)))
        log.info(
            "this worker holds %.2f of the base's %.2f GiB",
            part / GIB,
            whole / GIB,
            extra=figures(base_bytes=whole, part_bytes=part),
        )

    def _lay_out(self, weights: Mapping[str, tuple[int, ...]]) -> list[int]:
        """Gives each tensor its slice; returns the bytes of each layer, padded to equal shards."""
        ends: dict[int, int] = {}
        for name, shape in sorted(weights.items()):
            found = re.match(OF_A_LAYER, name)
            if found is None:  # of an image tower
                continue
            layer = int(found[1])
            for suffix, size in _nf4_bytes(math.prod(shape)).items():
                start = ends.get(layer, 0)
                self._slices[name + suffix] = _Slice(layer, start, size)
                ends[layer] = _round_up(start + size, ALIGNED)
        return [_round_up(ends[layer], ALIGNED * self._workers.size) for layer in range(len(ends))]

    def _local_shard(self, layer: int) -> torch.Tensor:
        """This worker's bytes of the layer."""
        sharded: Any = self._layers[layer].bytes
        shard: torch.Tensor = sharded.to_local()
        return shard

    def keep_shard(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: self._copy_to_shard(name, tensor) for name, tensor in tensors.items()}

    def _copy_to_shard(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Keeps what of a weight is in this worker's shard; returns its shape without memory."""
        slice_ = self._slices.get(name)
        if slice_ is None:
            return tensor
        given = tensor.contiguous().flatten().view(torch.uint8)
        assert len(given) == slice_.size, f"{name}: {len(given)} bytes, not {slice_.size}"
        shard = self._local_shard(slice_.layer)
        first = self._workers.rank * len(shard) - slice_.start  # of this worker's, in `given`
        begin, end = max(first, 0), min(first + len(shard), len(given))
        if begin < end:
            shard[begin - first : end - first] = given[begin:end]
        return torch.zeros(1, dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)

    def bind(self, model: Any) -> None:
        modules = dict(model.named_modules())
        for layer in self.gather_layers(range(len(self._layers))):
            unsharded = self._layers[layer].bytes.data
            for name, slice_ in self._slices.items():
                if slice_.layer == layer:
                    module, _, suffix = name.partition(".weight")
                    view = unsharded[slice_.start : slice_.start + slice_.size]
                    _set_view(modules[module], suffix, view)

    def gather_layers(self, layers: Iterable[int]) -> Iterator[int]:
        order = list(layers)
        prefetched = self._unshard(order[0])
        for at, layer in enumerate(order):
            with self._workers.translate_errors():
                prefetched.wait()
            if at + 1 < len(order):
                prefetched = self._unshard(order[at + 1])
            yield layer
            self._reshard(layer)

    def _unshard(self, layer: int) -> Any:
        """Starts the all-gather; to be waited for."""
        module: Any = self._layers[layer]
        with self._workers.translate_errors():
            return module.unshard(async_op=True)

    def _reshard(self, layer: int) -> None:
        module: Any = self._layers[layer]
        module.reshard()

    @contextlib.contextmanager
    def gather_for_main(self, model: Any) -> Iterator[None]:
        self._workers.set_flag(EVALUATING)
        hooks = []
        for number, layer in enumerate(model.get_base_model().get_decoder().layers):
            hooks.append(layer.register_forward_pre_hook(lambda *_, n=number: self._gather_one(n)))
            hooks.append(layer.register_forward_hook(lambda *_, n=number: self._reshard(n)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self._workers.broadcast_int(NO_LAYER)

    def _gather_one(self, layer: int) -> None:
        self._reshard(layer)  # it is whole still where a forward pass ran out of memory
        self._unshard(self._workers.broadcast_int(layer)).wait()

    def serve_gathers(self) -> None:
        self._workers.wait_for_flag(EVALUATING)
        while (layer := self._workers.broadcast_int()) != NO_LAYER:
            for _ in self.gather_layers([layer]):
                pass


class _FlatParameter(torch.nn.Module):
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


def _set_view(linear: Any, suffix: str, view: torch.Tensor) -> None:
    """Let a tensor of a Linear4bit be `view`, which has memory while its layer is unsharded."""
    state = linear.weight.quant_state
    if suffix == ".absmax":
        state.absmax = view
    elif suffix == ".nested_absmax":
        state.state2.absmax = view.view(torch.float32)
    else:
        linear.weight.data = view.view(linear.weight.shape)


def _round_up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
