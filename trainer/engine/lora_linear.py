"""One linear layer over NF4 weights with its adapter: y = x W' + scale drop(x) A' B'."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.engine.activations import Batch, LayerActivations
from trainer.engine.weights import Linear
from trainer.kernels import Kernels
from trainer.kernels.dropout import Mask, Seed, draw


@dataclass(frozen=True)
class LinearInput:
    """What a linear layer is given, in its forward and again in its backward pass."""

    x: torch.Tensor | None  # [M, in]; in a backward pass needed by an adapter only
    saved: LayerActivations
    batch: Batch


class LinearPass:
    """Both passes of a decoder's linear layers.

    Weights are dequantised into one buffer, in turn, but for those that were given to `unpack`.
    """

    def __init__(
        self, linears: Sequence[Linear], kernels: Kernels, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._k, self._dtype, self._device = kernels, dtype, device
        self._widest = max(math.prod(linear.weight.shape) for linear in linears)
        self._buffer: torch.Tensor | None = None
        self._unpacked: dict[int, torch.Tensor] = {}

    def unpack(self, linear: Linear) -> None:
        """Hold its matrix in the compute dtype from now on. Raises torch.OutOfMemoryError."""
        like = torch.empty(linear.weight.shape, dtype=self._dtype, device=self._device)
        self._unpacked[linear.number] = self._k.dequantise(linear.weight, like)

    def free(self) -> None:
        """All that is unpacked."""
        self._buffer = None
        self._unpacked.clear()

    def forward(self, linear: Linear, given: LinearInput) -> torch.Tensor:
        """y [M, out]."""
        x, weight = given.x, self._matrix(linear)
        assert x is not None
        y = x @ weight.t() if linear.bias is None else torch.addmm(linear.bias, x, weight.t())
        if linear.lora is not None:
            adapter = given.batch.adapter
            ax = self._dropped(linear, given) @ adapter[linear.a_key].t()
            y.addmm_(ax, adapter[linear.b_key].t(), alpha=linear.lora.scale)
            given.saved.lora_ax[linear.number] = ax
        return y

    def backward(
        self,
        linear: Linear,
        grad: torch.Tensor,
        given: LinearInput,
        into: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Gradient of x [M, in], added to `into` where given."""
        weight = self._matrix(linear)
        out = grad @ weight if into is None else into.addmm_(grad, weight)
        grad_ax = self.adapter_backward(linear, grad, given)
        if linear.lora is None or grad_ax is None:
            return out
        a, dropout = given.batch.adapter[linear.a_key], linear.lora.dropout
        if not dropout:
            return out.addmm_(grad_ax, a)
        added: torch.Tensor = self._k.dropout_add(
            out, grad_ax @ a, self._mask(linear, given, dropout), dropout
        )
        return added

    def adapter_backward(
        self, linear: Linear, grad: torch.Tensor, given: LinearInput
    ) -> torch.Tensor | None:
        """Adds the gradients of A and B to the batch's; returns the gradient of A x [M, r]."""
        if linear.lora is None:
            return None
        adapter, scale = given.batch.adapter, linear.lora.scale
        a, b = adapter[linear.a_key], adapter[linear.b_key]
        grad_ax = (grad @ b).mul_(scale)
        dropped = self._dropped(linear, given)
        ax = given.saved.lora_ax.pop(linear.number, None)
        if ax is None:  # a recomputed layer leaves its last product out
            ax = dropped @ a.t()
        given.batch.add(linear.b_key, _wide_mm(grad.t(), ax).mul_(scale))
        given.batch.add(linear.a_key, _wide_mm(grad_ax.t(), dropped))
        return grad_ax

    def _matrix(self, linear: Linear) -> torch.Tensor:
        """W [out, in], in a buffer that the next call overwrites."""
        unpacked = self._unpacked.get(linear.number)
        if unpacked is not None:
            return unpacked
        rows, columns = linear.weight.shape
        if self._buffer is None:
            self._buffer = torch.empty(self._widest, dtype=self._dtype, device=self._device)
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
