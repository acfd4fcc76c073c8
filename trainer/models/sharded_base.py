"""A base that several workers hold together: a layer is whole only while it is used.

The bytes of a decoder layer are one flat parameter. torch's FSDP2 shards it over the workers,
unshards it before the layer is used and reshards it afterwards. Only what is never trained is
sharded: the adapter, its gradients and its optimizer are those of workers that hold everything.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from trainer.distributed.workers import Workers
from trainer.models.frozen_base import FlatLayers, WholeBase, bytes_of, without_memory
from trainer.runtime.device import GIB
from trainer.runtime.log import figures

log = logging.getLogger(__name__)

EVALUATING = "evaluating"  # flag of the main worker's
NO_LAYER = -1


class ShardedBase(WholeBase):
    """A base that all `workers` hold together, each an equal shard of each layer."""

    is_sharded = True
    is_resident = False
    unloadable = "cannot be held in parts"

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._flat = FlatLayers({})
        self._layers: list[_FlatParameter] = []

    def allocate(self, weights: Mapping[str, tuple[int, ...]], device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self._flat = FlatLayers(weights, self._workers.size)
        sizes = self._flat.sizes
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

    def _local_shard(self, layer: int) -> torch.Tensor:
        """This worker's bytes of the layer."""
        sharded: Any = self._layers[layer].bytes
        shard: torch.Tensor = sharded.to_local()
        return shard

    def keep_shard(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: self._copy_to_shard(name, tensor) for name, tensor in tensors.items()}

    def _copy_to_shard(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Keeps what of a weight is in this worker's shard; returns its shape without memory."""
        slice_ = self._flat.slices.get(name)
        if slice_ is None:
            return tensor
        given = bytes_of(tensor, slice_, name)
        shard = self._local_shard(slice_.layer)
        first = self._workers.rank * len(shard) - slice_.start  # of this worker's, in `given`
        begin, end = max(first, 0), min(first + len(shard), len(given))
        if begin < end:
            shard[begin - first : end - first] = given[begin:end]
        return without_memory(tensor)

    def bind(self, model: Any) -> None:
        for layer in self.gather_layers(range(len(self._layers))):
            self._flat.bind(model, layer, self._layers[layer].bytes.data)

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
