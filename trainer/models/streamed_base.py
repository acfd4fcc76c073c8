"""A base larger than the GPU: some of its layers lie in host memory and come when they are used.

Two slots on the GPU take turns: while a layer computes in one of them, the next one comes into the
other on a stream of its own, forward and backward. What is computed is the same, bit for bit.
"""

import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trainer.models.base_model import Base
from trainer.models.frozen_base import (
    STREAMED,
    FlatLayers,
    WholeBase,
    bytes_of,
    without_memory,
)
from trainer.planner.decoding_plan import hosted_to_answer
from trainer.planner.memory_plan import SLOTS
from trainer.runtime.device import GIB, Device
from trainer.runtime.log import figures

log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """Room for one layer on the device; `layer` is the one that is there or on its way."""

    bytes: torch.Tensor
    layer: int | None = None
    arrived: Any = None  # CUDA events; None on a CPU, whose copies have ended when they return
    used: Any = None


class StreamedBase(WholeBase):
    """A base of which `hosted_layers` lie in host memory, evenly among the others, so that what
    computes between two of them hides the transfer."""

    is_resident = False
    unloadable = "cannot lie in host memory"

    def __init__(self, hosted_layers: int) -> None:
        self._count = hosted_layers
        self._flat = FlatLayers({})
        self._host: dict[int, torch.Tensor] = {}  # a layer's bytes
        self._slot_of: dict[int, _Slot] = {}
        self._next: dict[int, int] = {}  # of the hosted ones, in a circle
        self._stream: Any = None

    def allocate(self, weights: Mapping[str, tuple[int, ...]], device: torch.device) -> None:
        self._flat = FlatLayers(weights)
        sizes = self._flat.sizes
        hosted = spread(self._count, len(sizes))
        whole = torch.empty(sum(sizes[layer] for layer in hosted), dtype=torch.uint8)
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            _pin(self, whole)
        parts = whole.split([sizes[layer] for layer in hosted])
        self._host = dict(zip(hosted, parts, strict=True))
        widest = max((len(part) for part in parts), default=0)
        slots = [_Slot(torch.empty(widest, dtype=torch.uint8, device=device)) for _ in range(SLOTS)]
        if self._stream is not None:  # what had a slot's memory before may still be at work there
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._slot_of = {layer: slots[n % SLOTS] for n, layer in enumerate(hosted)}
        self._next = dict(zip(hosted, [*hosted[1:], *hosted[:1]], strict=True))
        log.info(
            "%d of %d layers, %.2f GiB, lie in host memory",
            len(hosted),
            len(sizes),
            len(whole) / GIB,
            extra=figures(hosted_bytes=len(whole)),
        )

    def keep_shard(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: self._copy_to_host(name, tensor) for name, tensor in tensors.items()}

    def _copy_to_host(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        slice_ = self._flat.slices.get(name)
        if slice_ is None or slice_.layer not in self._host:
            return tensor
        self._host_bytes(name).copy_(bytes_of(tensor, slice_, name))
        return without_memory(tensor)

    def _host_bytes(self, name: str) -> torch.Tensor:
        slice_ = self._flat.slices[name]
        return self._host[slice_.layer][slice_.start : slice_.start + slice_.size]

    def whole(self, name: str, kept: torch.Tensor) -> torch.Tensor:
        slice_ = self._flat.slices.get(name)
        if slice_ is None or slice_.layer not in self._host:
            return kept
        return self._host_bytes(name).view(kept.dtype).view(kept.shape)

    def bind(self, model: Any) -> None:
        """Its layers may be called as ever then: a hosted one is fetched just before."""
        decoder = model.get_decoder()
        setattr(decoder, STREAMED, self)
        layers = decoder.layers
        for layer, slot in self._slot_of.items():
            self._flat.bind(model, layer, slot.bytes)
            layers[layer].register_forward_pre_hook(lambda *_, n=layer: self._before_call(n))
            layers[layer].register_forward_hook(lambda *_, n=layer: self._release(n))

    def _before_call(self, layer: int) -> None:
        self._fetch(layer)
        self._wait_for(layer)
        if self._slot_of[self._next[layer]] is not self._slot_of[layer]:
            self._fetch(self._next[layer])

    def gather_layers(self, layers: Iterable[int]) -> Iterator[int]:
        order = list(layers)
        hosted = [layer for layer in order if layer in self._host]
        used = started = 0
        for layer in order:
            while started < len(hosted) and self._is_free(hosted[started], hosted[used:started]):
                self._fetch(hosted[started])
                started += 1
            if layer in self._host:
                self._wait_for(layer)
            try:
                yield layer
            finally:
                if layer in self._host:
                    self._release(layer)
                    used += 1

    def _is_free(self, layer: int, wanted: list[int]) -> bool:
        """Whether its slot holds none of the `wanted` layers."""
        return all(self._slot_of[layer] is not self._slot_of[other] for other in wanted)

    def _fetch(self, layer: int) -> None:
        """Start bringing a hosted layer, unless it is there or on its way."""
        slot, source = self._slot_of[layer], self._host[layer]
        if slot.layer == layer:
            return
        slot.layer = layer
        if self._stream is None:
            slot.bytes[: len(source)].copy_(source)
            return
        if slot.used is not None:
            self._stream.wait_event(slot.used)
        with torch.cuda.stream(self._stream):
            slot.bytes[: len(source)].copy_(source, non_blocking=True)
            slot.arrived = self._stream.record_event()

    def _wait_for(self, layer: int) -> None:
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(self._slot_of[layer].arrived)

    def _release(self, layer: int) -> None:
        """What has been started so far may use the layer, and nothing later."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self._stream.device)
            self._slot_of[layer].used = current.record_event()


def to_answer(base: Base, device: Device) -> WholeBase:
    """Who is to hold a base that only answers: layers that leave no room for that beside them lie
    in host memory."""
    hosted = hosted_to_answer(base.shape(), device) if device.kind == "cuda" else 0
    if not hosted:
        return WholeBase()
    free = device.free_bytes / GIB
    log.info("%s has %.1f GiB free, too little for %s and answers", device.name, free, base.name)
    return StreamedBase(hosted)


def spread(count: int, layers: int) -> list[int]:
    """`count` of so many layers, evenly."""
    return [(2 * n + 1) * layers // (2 * count) for n in range(count)]


def _pin(owner: StreamedBase, host: torch.Tensor) -> None:
    """Keep `host` from being paged out as long as its owner lives: copies from it run beside the
    GPU's work then. torch's own pinned memory would take up to twice as much."""
    runtime = torch.cuda.cudart()
    fault = int(runtime.cudaHostRegister(host.data_ptr(), host.numel(), 0))
    if fault:
        log.warning("host memory cannot be pinned (CUDA error %d): training will be slower", fault)
        return
    weakref.finalize(owner, lambda: runtime.cudaHostUnregister(host.data_ptr()))
