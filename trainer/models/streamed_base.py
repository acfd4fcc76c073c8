"""A base larger than the GPU: some of its layers lie in host memory and come when they are used.
Where that is short too they lie in a file, from which a thread reads ahead into two pinned buffers.

Two slots on the GPU take turns: while a layer computes in one of them, the next one comes into the
other on a stream of its own, forward and backward. What is computed is the same, bit for bit.
"""

import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
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
from trainer.models.layer_file import LayerFile
from trainer.planner.decoding_plan import hosted_to_answer
from trainer.planner.memory_plan import SLOTS, layer_bytes
from trainer.runtime import selftest
from trainer.runtime.device import GIB, Device
from trainer.runtime.log import figures
from trainer.settings import Settings

log = logging.getLogger(__name__)


@dataclass
class _Slot:
    """Room for one layer on the device; `layer` is the one that is there or on its way."""

    bytes: torch.Tensor
    staged: torch.Tensor | None = None  # where a file is read into; on a CPU the slot itself
    layer: int | None = None
    coming: "Future[None] | None" = None  # the reading of that file
    arrived: Any = None  # CUDA events; None on a CPU, whose copies have ended when they return
    used: Any = None


class StreamedBase(WholeBase):
    """A base of which `hosted_layers` lie in host memory, evenly among the others, so that what
    computes between two of them hides the transfer."""

    is_resident = False
    unloadable = "cannot lie in host memory"

    def __init__(self, hosted_layers: int, folder: Path | None = None) -> None:
        """With a `folder` they lie in a file there."""
        self._count = hosted_layers
        self._folder = folder
        self._file: LayerFile | None = None
        self._flat = FlatLayers({})
        self._host: dict[int, torch.Tensor] = {}  # a layer's bytes
        self._slot_of: dict[int, _Slot] = {}
        self._next: dict[int, int] = {}  # of the hosted ones, in a circle
        self._stream: Any = None

    def allocate(self, weights: Mapping[str, tuple[int, ...]], device: torch.device) -> None:
        self._flat = FlatLayers(weights)
        sizes = self._flat.sizes
        hosted = spread(self._count, len(sizes))
        whole = self._room_for(sum(sizes[layer] for layer in hosted))
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            if self._file is None:
                _pin(self, whole)
        parts = whole.split([sizes[layer] for layer in hosted])
        self._host = dict(zip(hosted, parts, strict=True))
        widest = max((len(part) for part in parts), default=0)
        slots = [_Slot(torch.empty(widest, dtype=torch.uint8, device=device)) for _ in range(SLOTS)]
        for slot in slots if self._file is not None else ():
            on_gpu = device.type == "cuda"
            slot.staged = (
                torch.empty(widest, dtype=torch.uint8, pin_memory=True) if on_gpu else slot.bytes
            )
        if self._stream is not None:  # what had a slot's memory before may still be at work there
            self._stream.wait_stream(torch.cuda.current_stream(device))
        self._slot_of = {layer: slots[n % SLOTS] for n, layer in enumerate(hosted)}
        self._next = dict(zip(hosted, [*hosted[1:], *hosted[:1]], strict=True))
        log.info(
            "%d of %d layers, %.2f GiB, lie %s",
            len(hosted),
            len(sizes),
            len(whole) / GIB,
            "in host memory" if self._file is None else "on disk",
            extra=figures(hosted_bytes=len(whole)),
        )

    def _room_for(self, size: int) -> torch.Tensor:
        if self._folder is None or not size:
            return torch.empty(size, dtype=torch.uint8)
        self._file = LayerFile(self._folder, size)
        return self._file.bytes

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
                self._fetch(*hosted[started : started + 2])
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

    def _fetch(self, layer: int, following: int | None = None) -> None:
        """Start bringing a hosted layer, unless it is there or on its way. The `following` one is
        to be fetched next."""
        slot, source = self._slot_of[layer], self._host[layer]
        if slot.layer == layer:
            return
        slot.layer = layer
        if self._file is None:
            self._send(source, slot, slot.used)
            return
        assert slot.staged is not None
        staged, used = slot.staged[: len(source)], slot.used
        slot.coming = self._file.read(
            self._part(layer),
            staged,
            range(0) if following is None else self._part(following),
            first=lambda: slot.arrived and slot.arrived.synchronize(),  # it is being sent
            then=lambda: self._send(staged, slot, used),
        )

    def _part(self, layer: int) -> range:
        """The bytes of its file that are a layer."""
        assert self._file is not None
        host = self._host[layer]
        start = host.data_ptr() - self._file.bytes.data_ptr()
        return range(start, start + len(host))

    def _send(self, source: torch.Tensor, slot: _Slot, used: Any) -> None:
        """Bytes of the host to a slot, once the GPU has passed the event `used`."""
        there = slot.bytes[: len(source)]
        if self._stream is None:
            there.copy_(source)
            return
        if used is not None:
            self._stream.wait_event(used)
        with torch.cuda.stream(self._stream):
            there.copy_(source, non_blocking=True)
            slot.arrived = self._stream.record_event()

    def _wait_for(self, layer: int) -> None:
        if (coming := self._slot_of[layer].coming) is not None:
            coming.result()
        if self._stream is not None:
            torch.cuda.current_stream(self._stream.device).wait_event(self._slot_of[layer].arrived)

    def _release(self, layer: int) -> None:
        """What has been started so far may use the layer, and nothing later."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self._stream.device)
            self._slot_of[layer].used = current.record_event()


def to_answer(base: Base, settings: Settings, device: Device) -> WholeBase:
    """Who is to hold a base that only answers: layers that leave no room for that beside them lie
    in host memory, or on the scratch disk where that is short too."""
    shape = base.shape()
    hosted = hosted_to_answer(shape, device) if device.kind == "cuda" else 0
    if not hosted:
        return WholeBase()
    free = device.free_bytes / GIB
    log.info("%s has %.1f GiB free, too little for %s and answers", device.name, free, base.name)
    fits = hosted * layer_bytes(shape) <= selftest.pinnable_bytes()
    return StreamedBase(hosted, None if fits else settings.scratch_dir)


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
