"""Layer inputs in pinned host memory, copied on a stream of their own."""

from collections import deque

import torch

from trainer.engine.activations import LayerActivations

AHEAD = 3  # layers


class CpuOffload:
    """Layer inputs in pinned host memory, copied on a stream of their own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._buffers: dict[tuple[int, int], torch.Tensor] = {}
        self._prefetched: dict[int, tuple[list[torch.Tensor], torch.cuda.Event]] = {}
        self._reached: deque[torch.cuda.Event] = deque()

    def store(self, number: int, saved: LayerActivations) -> None:
        """Start copying what `saved` holds; its GPU memory is free once the copy is done."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for place, tensor in enumerate(_tensors(saved)):
                key = number, place
                buffer = self._buffers.get(key)
                if buffer is None or buffer.shape != tensor.shape:
                    buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
                    self._buffers[key] = buffer
                buffer.copy_(tensor, non_blocking=True)
                tensor.record_stream(self._stream)
            self._keep_near(self._stream)
        saved.x_MH = None
        if saved.attended is not None:
            saved.attended.out_MHD = torch.empty(0)

    def fetch(self, number: int, saved: list[LayerActivations]) -> None:
        """Bring layer `number` back and start bringing the one before it."""
        if saved[number].x_MH is None:
            self._start(number)
            tensors, arrived = self._prefetched.pop(number)
            current = torch.cuda.current_stream(self._device)
            current.wait_event(arrived)
            for tensor in tensors:
                tensor.record_stream(current)
            saved[number].x_MH = tensors[0]
            attended = saved[number].attended
            if attended is not None:
                attended.out_MHD = tensors[1]
        self._keep_near(torch.cuda.current_stream(self._device))
        if number and saved[number - 1].x_MH is None:
            self._start(number - 1)

    def _keep_near(self, stream: torch.cuda.Stream) -> None:
        """Wait until what `stream` was given AHEAD layers ago is done: all that the CPU has started
        takes memory of its own, and it could be dozens of layers before the GPU."""
        self._reached.append(stream.record_event())
        if len(self._reached) > AHEAD:
            self._reached.popleft().synchronize()

    def _start(self, number: int) -> None:
        if number in self._prefetched:
            return
        with torch.cuda.stream(self._stream):
            buffers = [b for (n, _), b in self._buffers.items() if n == number]
            tensors = [b.to(self._device, non_blocking=True) for b in buffers]
            arrived = torch.cuda.Event()
            arrived.record(self._stream)
        self._prefetched[number] = tensors, arrived


def _tensors(saved: LayerActivations) -> list[torch.Tensor]:
    assert saved.x_MH is not None
    return [saved.x_MH] if saved.attended is None else [saved.x_MH, saved.attended.out_MHD]
