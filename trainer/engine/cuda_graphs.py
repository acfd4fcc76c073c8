"""The decoder as one node of autograd's graph, and both of its passes as CUDA graphs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainer.kernels._triton import next_power_of_2
from trainer.kernels.attention import Documents

if TYPE_CHECKING:
    from trainer.engine.decoder import Engine


@dataclass(frozen=True)
class Inputs:
    """One micro-batch; int64 [B, T] each."""

    input_ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    where: Documents

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.input_ids_BT, self.labels_BT, self.position_ids_BT


class Loss(torch.autograd.Function):
    """The whole decoder as one node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, engine: "Engine", inputs: Inputs, *parameters: Any) -> torch.Tensor:
        if engine.plan.graph:
            ctx.graph = engine.graphs.of(inputs)
            replayed: torch.Tensor = ctx.graph.forward(inputs)
            return replayed
        ctx.engine, ctx.passed = engine, engine.forward(inputs)
        loss: torch.Tensor = ctx.passed.loss
        return loss

    @staticmethod
    def backward(ctx: Any, grad_loss: torch.Tensor) -> Any:
        if hasattr(ctx, "graph"):
            return None, None, *ctx.graph.backward(grad_loss)
        passed, ctx.passed = ctx.passed, None
        return None, None, *ctx.engine.backward(passed, grad_loss)


class Graphs:
    """One `Graph` for each shape of micro-batch, in memory that all of them share: one runs at a
    time."""

    def __init__(self, engine: "Engine", row_tokens: int) -> None:
        self._engine, self._row = engine, row_tokens
        self._made: dict[tuple[int, int], Graph] = {}
        self._pool: Any = None

    def of(self, inputs: Inputs) -> "Graph":
        """The one that takes `inputs`: for as many documents, rounded up to a power of two."""
        rows, documents = len(inputs.input_ids_BT), inputs.where.starts.numel() - 1
        key = rows, max(rows, next_power_of_2(documents))
        if key not in self._made:
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            self._made[key] = Graph(self._engine, rows, self._row, key[1], self._pool)
        return self._made[key]

    def clear(self) -> None:
        self._made.clear()
        self._pool = None


class Graph:
    """Both passes of one shape of micro-batch as CUDA graphs."""

    def __init__(
        self, engine: "Engine", rows: int, row_tokens: int, documents: int, pool: Any
    ) -> None:
        self._inputs = _blank(rows, row_tokens, documents, engine.device)
        self._grad_loss = torch.ones((), device=engine.device)
        aside = torch.cuda.Stream(engine.device)
        aside.wait_stream(torch.cuda.current_stream())
        random = torch.cuda.get_rng_state(engine.device)
        with torch.cuda.stream(aside):  # compiles and allocates what a capture must not
            engine.backward(engine.forward(self._inputs), self._grad_loss)
        torch.cuda.current_stream().wait_stream(aside)
        # A resumed run captures again, and its dropout has to go on where it was.
        torch.cuda.set_rng_state(random, engine.device)
        self._forward, self._backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._forward, pool=pool):
            passed = engine.forward(self._inputs)
        self._loss = passed.loss
        with torch.cuda.graph(self._backward, pool=pool):
            self._gradients = engine.backward(passed, self._grad_loss)

    def forward(self, inputs: Inputs) -> torch.Tensor:
        for own, given in zip(self._inputs.tensors(), inputs.tensors(), strict=True):
            own.copy_(given)
        starts, own_starts = inputs.where.starts, self._inputs.where.starts
        own_starts[: len(starts)] = starts
        own_starts[len(starts) :] = inputs.input_ids_BT.numel()  # empty documents
        self._forward.replay()
        return self._loss.clone()

    def backward(self, grad_loss: torch.Tensor) -> list[torch.Tensor]:
        self._grad_loss.copy_(grad_loss)
        self._backward.replay()
        return [gradient.clone() for gradient in self._gradients]


def _blank(rows: int, row_tokens: int, documents: int, device: torch.device) -> Inputs:
    """Zeros in rows that are one document each; the documents beyond are empty."""
    starts = torch.full((documents + 1,), rows * row_tokens, dtype=torch.int32)
    starts[:rows] = torch.arange(rows) * row_tokens
    shape = rows, row_tokens
    ids, labels, positions = (torch.zeros(shape, dtype=torch.int64, device=device) for _ in "123")
    return Inputs(ids, labels, positions, Documents(starts.to(device), row_tokens))
