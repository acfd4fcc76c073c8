"""The decoder as one node of autograd's graph, and both of its passes as CUDA graphs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from trainer.engine.activations import DecoderActivations, Inputs
from trainer.kernels._triton import next_power_of_2
from trainer.kernels.attention import Documents


class Passes(Protocol):
    """Both passes of a decoder over one micro-batch."""

    def forward(self, inputs: Inputs) -> DecoderActivations: ...

    def backward(self, saved: DecoderActivations, grad_loss: torch.Tensor) -> list[torch.Tensor]:
        """Gradients of all trained parameters, in their order."""
        ...

    def held_out_sum(self, inputs: Inputs) -> torch.Tensor:
        """The loss alone, without dropout."""
        ...


class DecoderLoss(torch.autograd.Function):
    """The whole decoder as one node of autograd's graph; with `graphs` it replays one of them."""

    @staticmethod
    def forward(
        ctx: Any, passes: Passes, graphs: "GraphCache | None", inputs: Inputs, *parameters: Any
    ) -> torch.Tensor:
        if graphs is not None:
            ctx.graph = graphs.of(inputs)
            replayed: torch.Tensor = ctx.graph.forward(inputs)
            return replayed
        ctx.passes, ctx.saved = passes, passes.forward(inputs)
        loss: torch.Tensor = ctx.saved.loss
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> Any:
        if hasattr(ctx, "graph"):
            return None, None, None, *ctx.graph.backward(grad_loss)
        saved, ctx.saved = ctx.saved, None
        return None, None, None, *ctx.passes.backward(saved, grad_loss)


class GraphCache:
    """One `CapturedPasses` for each shape of micro-batch, and one `CapturedLoss` for each that is
    measured, in memory that all of them share: one runs at a time."""

    def __init__(self, passes: Passes, row_tokens: int, device: torch.device) -> None:
        self._passes, self._row, self._device = passes, row_tokens, device
        self._made: dict[tuple[int, int], CapturedPasses] = {}
        self._measuring: dict[tuple[int, int], CapturedLoss] = {}
        self._pool: Any = None

    def of(self, inputs: Inputs) -> "CapturedPasses":
        """The one that takes `inputs`: for as many documents, rounded up to a power of two."""
        shape = _shape_of(inputs)
        if shape not in self._made:
            self._made[shape] = CapturedPasses(self._passes, *self._blank(shape))
        return self._made[shape]

    def held_out_sum(self, inputs: Inputs) -> torch.Tensor:
        """The loss alone, without dropout."""
        shape = _shape_of(inputs)
        if shape not in self._measuring:
            self._measuring[shape] = CapturedLoss(self._passes, *self._blank(shape))
        return self._measuring[shape](inputs)

    def _blank(self, shape: tuple[int, int]) -> tuple[Inputs, Any]:
        """Inputs to capture with, and the memory."""
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        rows, documents = shape
        return blank_inputs(rows, self._row, documents, self._device), self._pool

    def clear(self) -> None:
        self._made.clear()
        self._measuring.clear()
        self._pool = None


class CapturedPasses:
    """Both passes of one shape of micro-batch as CUDA graphs."""

    def __init__(self, passes: Passes, inputs: Inputs, pool: Any) -> None:
        """For micro-batches of the form of `inputs`, which it holds and writes to."""
        device = inputs.input_ids_BT.device
        self._inputs = inputs
        self._grad_loss = torch.ones((), device=device)
        random = torch.cuda.get_rng_state(device)
        with _aside(device):
            passes.backward(passes.forward(self._inputs), self._grad_loss)
        # A resumed run captures again, and its dropout has to go on where it was.
        torch.cuda.set_rng_state(random, device)
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._forward, pool=pool):
            saved = passes.forward(self._inputs)
        self._loss = saved.loss
        with torch.cuda.graph(self._backward, pool=pool):
            self._gradients = passes.backward(saved, self._grad_loss)

    def forward(self, inputs: Inputs) -> torch.Tensor:
        _write(inputs, self._inputs)
        self._forward.replay()
        return self._loss.clone()

    def backward(self, grad_loss: torch.Tensor) -> list[torch.Tensor]:
        self._grad_loss.copy_(grad_loss)
        self._backward.replay()
        return [gradient.clone() for gradient in self._gradients]


class CapturedLoss:
    """The loss alone of one shape of micro-batch, without dropout, as a CUDA graph."""

    def __init__(self, passes: Passes, inputs: Inputs, pool: Any) -> None:
        """For micro-batches of the form of `inputs`, which it holds and writes to."""
        self._inputs = inputs
        with _aside(inputs.input_ids_BT.device):
            passes.held_out_sum(inputs)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._loss = passes.held_out_sum(inputs)

    def __call__(self, inputs: Inputs) -> torch.Tensor:
        _write(inputs, self._inputs)
        self._graph.replay()
        return self._loss.clone()


def _shape_of(inputs: Inputs) -> tuple[int, int]:
    """Rows, and documents rounded up to a power of two."""
    rows, documents = len(inputs.input_ids_BT), inputs.where.starts.numel() - 1
    return rows, max(rows, next_power_of_2(documents))


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """On another stream: compiles and allocates what a capture must not."""
    aside = torch.cuda.Stream(device)
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        yield
    torch.cuda.current_stream().wait_stream(aside)


def _write(given: Inputs, held: Inputs) -> None:
    """Into the tensors that a graph reads, which may have room for more documents."""
    for own, new in zip(held.tensors(), given.tensors(), strict=True):
        own.copy_(new)
    starts, own_starts = given.where.starts, held.where.starts
    own_starts[: len(starts)] = starts
    own_starts[len(starts) :] = given.input_ids_BT.numel()  # empty documents


def blank_inputs(rows: int, row_tokens: int, documents: int, device: torch.device) -> Inputs:
    """Zeros in rows that are one document each; the documents beyond are empty."""
    starts = torch.full((documents + 1,), rows * row_tokens, dtype=torch.int32)
    starts[:rows] = torch.arange(rows) * row_tokens
    shape = rows, row_tokens
    ids, labels, positions = (torch.zeros(shape, dtype=torch.int64, device=device) for _ in "123")
    return Inputs(ids, labels, positions, Documents(starts.to(device), row_tokens))
