"""One linear layer over NF4 weights with its adapter: y = x W' + scale drop(x) A' B'."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from trainer.engine.activations import Batch, LayerActivations
from trainer.engine.joined_linears import JoinedLinears
from trainer.engine.weights import Linear, LoraKey
from trainer.kernels import Kernels
from trainer.kernels.dropout import Mask, Seed, draw

JOINED_ROWS = 256  # of more, each product fills a GPU by itself


@dataclass(frozen=True)
class Adapters:
    """Those of some linear layers that are given the same input, as one: of a wide input each
    product with an A, and each sum of a gradient, takes as long as reading it."""

    linears: Sequence[Linear]
    a: torch.Tensor  # [r of all, in]
    b: Sequence[torch.Tensor]  # [out, r] of each
    dropout: float

    def split(self, ax: torch.Tensor) -> Sequence[torch.Tensor]:
        """Columns [M, r] of each, of [M, r of all]."""
        parts: Sequence[torch.Tensor] = ax.split([b.shape[1] for b in self.b], 1)
        return parts

    def parts(self, ax: torch.Tensor) -> Iterator[tuple[Linear, torch.Tensor, float, torch.Tensor]]:
        """Each with its B, its scale and its columns of `ax`."""
        for linear, b, part in zip(self.linears, self.b, self.split(ax), strict=True):
            assert linear.lora is not None
            yield linear, b, linear.lora.scale, part


def _of_one_input(linears: Sequence[Linear], batch: Batch) -> Iterator[Adapters]:
    """The adapters of `linears`, which share an input: together, but for dropout, whose masks are
    of one adapter each."""
    tuned = [linear for linear in linears if linear.lora is not None]
    groups = [tuned] if tuned else []
    if batch.drops and any(linear.lora.dropout for linear in tuned if linear.lora):
        groups = [[linear] for linear in tuned]
    for group in groups:
        a = [batch.adapter[linear.a_key] for linear in group]
        b = [batch.adapter[linear.b_key] for linear in group]
        dropout = group[0].lora.dropout if group[0].lora and batch.drops else 0.0
        yield Adapters(group, a[0] if len(a) == 1 else torch.cat(a), b, dropout)


@dataclass(frozen=True)
class LinearInput:
    """What a linear layer is given, in its forward and again in its backward pass."""

    x: torch.Tensor | None  # [M, in]; in a backward pass needed by an adapter only
    saved: LayerActivations
    batch: Batch


class LinearPass:
    """Both passes of a decoder's linear layers.

    Weights are dequantised into one buffer, in turn, but for those that were given to `unpack`;
    for at most `fused_rows` rows they are not written at all.
    """

    def __init__(
        self,
        linears: Sequence[Linear],
        kernels: Kernels,
        dtype: torch.dtype,
        device: torch.device,
        fused_rows: int = 0,
    ) -> None:
        self.dtype = dtype
        self._k, self._device = kernels, device
        self._fused_rows = fused_rows
        self._widest = max(math.prod(linear.weight.shape) for linear in linears)
        self._buffer: torch.Tensor | None = None
        self._unpacked: dict[int, torch.Tensor] = {}
        self._joined: dict[int, JoinedLinears] = {}

    def unpack(self, linear: Linear) -> None:
        """Hold its matrix in the compute dtype from now on. Raises torch.OutOfMemoryError."""
        like = torch.empty(linear.weight.shape, dtype=self.dtype, device=self._device)
        self._unpacked[linear.number] = self._k.dequantise(linear.weight, like)

    def join(self, linears: Sequence[Linear], adapter: Mapping[LoraKey, torch.Tensor]) -> None:
        """As `unpack`, as one matrix with the `adapter`, which may not change then."""
        made = JoinedLinears.of(linears, adapter, self.dtype, self._device)
        for linear, rows in zip(linears, made.rows(), strict=True):
            matrix = self._k.dequantise(linear.weight, rows)
            self._unpacked[linear.number] = rows if matrix is rows else rows.copy_(matrix)
        self._joined[linears[0].number] = made

    def free(self) -> None:
        """All that is unpacked."""
        self._buffer = None
        self._joined.clear()
        self._unpacked.clear()

    def forward(self, linear: Linear, given: LinearInput) -> torch.Tensor:
        """y [M, out]."""
        return self._forward([linear], given)[0]

    def forward_together(self, linears: Sequence[Linear], given: LinearInput) -> list[torch.Tensor]:
        """y [M, out] of each, all of the same input; rows may be further apart than `out`."""
        joined = self._joined.get(linears[0].number)
        if joined is None or given.x is None or len(given.x) > JOINED_ROWS:
            return self._forward(linears, given)
        return joined.forward(given.x, tuned=any(linear.lora for linear in linears))

    def _forward(self, linears: Sequence[Linear], given: LinearInput) -> list[torch.Tensor]:
        assert given.x is not None
        made = {linear.number: self._product(linear, given.x) for linear in linears}
        for adapters in _of_one_input(linears, given.batch):
            ax = self._dropped(adapters.linears[0], given) @ adapters.a.t()
            given.saved.lora_ax[adapters.linears[0].number] = ax
            for linear, b, scale, part in adapters.parts(ax):
                made[linear.number].addmm_(part, b.t(), alpha=scale)
        return list(made.values())

    def backward(self, linear: Linear, grad: torch.Tensor, given: LinearInput) -> torch.Tensor:
        """Gradient of x [M, in]."""
        total = self._backward([linear], [grad], given, lowest=False)
        assert total is not None
        return total

    def _backward(
        self,
        linears: Sequence[Linear],
        grads: Sequence[torch.Tensor],
        given: LinearInput,
        *,
        lowest: bool,
    ) -> torch.Tensor | None:
        total = None
        for linear, grad in [] if lowest else zip(linears, grads, strict=True):
            weight = self._matrix(linear)
            total = grad @ weight if total is None else total.addmm_(grad, weight)
        of = {linear.number: grad for linear, grad in zip(linears, grads, strict=True)}
        for adapters in _of_one_input(linears, given.batch):
            grad_ax = self._adapter_backward(adapters, of, given)
            if total is None:
                continue
            if not adapters.dropout:
                total.addmm_(grad_ax, adapters.a)
                continue
            mask = self._mask(adapters.linears[0], given, adapters.dropout)
            total = self._k.dropout_add(total, grad_ax @ adapters.a, mask, adapters.dropout)
        return total

    def _adapter_backward(
        self, adapters: "Adapters", grads: Mapping[int, torch.Tensor], given: LinearInput
    ) -> torch.Tensor:
        """Adds the gradients of A and B to the batch's; returns the gradient of A x [M, r]."""
        first = adapters.linears[0]
        dropped = self._dropped(first, given)
        ax = given.saved.lora_ax.pop(first.number, None)
        if ax is None:  # a recomputed layer leaves its last product out
            ax = dropped @ adapters.a.t()
        grad_ax = torch.empty_like(ax)
        for (linear, b, scale, part), to in zip(
            adapters.parts(ax), adapters.split(grad_ax), strict=True
        ):
            grad = grads[linear.number]
            torch.mm(grad, b, out=to).mul_(scale)
            given.batch.add(linear.b_key, _wide_mm(grad.t(), part).mul_(scale))
        grad_a = _wide_mm(grad_ax.t(), dropped)
        for linear, rows in zip(adapters.linears, adapters.split(grad_a.t()), strict=True):
            given.batch.add(linear.a_key, rows.t())
        return grad_ax

    def _product(self, linear: Linear, x: torch.Tensor) -> torch.Tensor:
        if len(x) <= self._fused_rows and linear.number not in self._unpacked:
            y: torch.Tensor = self._k.product_4bit(linear.weight, x, linear.bias)
            return y
        weight = self._matrix(linear)
        return x @ weight.t() if linear.bias is None else torch.addmm(linear.bias, x, weight.t())

    def forward_of(
        self, linears: Sequence[Linear], widths: Sequence[int], given: LinearInput
    ) -> list[torch.Tensor]:
        """Products of so many columns, of a linear layer each or all of one."""
        made = self.forward_together(linears, given)
        if len(made) == len(widths):
            return made
        return [part.contiguous() for part in made[0].split(list(widths), dim=1)]

    def backward_of(
        self,
        linears: Sequence[Linear],
        grads: Sequence[torch.Tensor],
        given: LinearInput,
        *,
        lowest: bool = False,
    ) -> torch.Tensor | None:
        """Gradient of x [M, in] from those of `forward_of`'s products; with `lowest` nobody needs
        it, and only the adapters get theirs."""
        if len(linears) != len(grads):
            grads = [torch.cat(list(grads), 1)]
        return self._backward(linears, grads, given, lowest=lowest)

    def _matrix(self, linear: Linear) -> torch.Tensor:
        """W [out, in], in a buffer that the next call overwrites."""
        unpacked = self._unpacked.get(linear.number)
        if unpacked is not None:
            return unpacked
        rows, columns = linear.weight.shape
        if self._buffer is None:
            self._buffer = torch.empty(self._widest, dtype=self.dtype, device=self._device)
        out = self._buffer[: rows * columns].view(rows, columns)
        matrix: torch.Tensor = self._k.dequantise(linear.weight, out)
        return matrix

    def _dropped(self, linear: Linear, given: LinearInput) -> torch.Tensor:
        assert given.x is not None and linear.lora is not None
        dropout = linear.lora.dropout
        if not dropout or not given.batch.drops:
            return given.x
        dropped: torch.Tensor = self._k.dropout(
            given.x, self._mask(linear, given, dropout), dropout
        )
        return dropped

    def _mask(self, linear: Linear, given: LinearInput, dropout: float) -> Mask:
        x, saved, random = given.x, given.saved, given.batch.random
        assert x is not None
        if random is not None:
            return Seed(random, linear.number, saved.first_row * x.shape[1])
        if linear.number not in saved.masks:
            saved.masks[linear.number] = draw(x, dropout)
        return saved.masks[linear.number]


def _wide_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b in float32: an fp16 result could overflow under loss scaling."""
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()
