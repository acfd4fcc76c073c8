"""One linear layer over NF4 weights with its adapter: y = x W' + scale drop(x) A' B'."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.engine.activations import Batch, Saved
from trainer.engine.weights import Linear
from trainer.kernels import Kernels
from trainer.kernels.dropout import Mask, Seed, draw


@dataclass(frozen=True)
class Input:
    """What a linear layer is given, in its forward and again in its backward pass."""

    x: torch.Tensor | None  # [M, in]; in a backward pass needed by an adapter only
    saved: Saved
    batch: Batch


class Products:
    """The linear layers of a decoder. Their weights are unpacked into one buffer, in turn."""

    def __init__(
        self, linears: Sequence[Linear], kernels: Kernels, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._linears, self._k, self._dtype, self._device = linears, kernels, dtype, device
        self._widest = max(math.prod(linear.weight.shape) for linear in linears)
        self._buffer: torch.Tensor | None = None

    def unpack(self, linear: Linear) -> None:
        like = torch.empty(linear.weight.shape, dtype=self._dtype, device=self._device)
        linear.unpacked = self._k.dequantise(linear.weight, like)

    def free(self) -> None:
        """All that is unpacked."""
        self._buffer = None
        for linear in self._linears:
            linear.unpacked = None

    def forward(self, linear: Linear, given: Input) -> torch.Tensor:
        """y [M, out]."""
        x, weight = given.x, self._matrix(linear)
        assert x is not None
        y = x @ weight.t() if linear.bias is None else torch.addmm(linear.bias, x, weight.t())
        if linear.lora_a is not None and linear.lora_b is not None:
            halves = given.batch.halves
            lowered = self._dropped(linear, given) @ halves[id(linear.lora_a)].t()
            y.addmm_(lowered, halves[id(linear.lora_b)].t(), alpha=linear.scale)
            given.saved.lowered[linear.salt] = lowered
        return y

    def backward(
        self, linear: Linear, grad: torch.Tensor, given: Input, into: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gradient of x [M, in], added to `into` where given."""
        weight = self._matrix(linear)
        out = grad @ weight if into is None else into.addmm_(grad, weight)
        grad_low = self.adapter_backward(linear, grad, given)
        if grad_low is None:
            return out
        a = given.batch.halves[id(linear.lora_a)]
        if not linear.dropout:
            return out.addmm_(grad_low, a)
        added: torch.Tensor = self._k.dropout_add(
            out, grad_low @ a, self._mask(linear, given), linear.dropout
        )
        return added

    def adapter_backward(
        self, linear: Linear, grad: torch.Tensor, given: Input
    ) -> torch.Tensor | None:
        """Adds the gradients of A and B to the batch's; returns the gradient of A x [M, r]."""
        if linear.lora_a is None or linear.lora_b is None:
            return None
        halves = given.batch.halves
        a, b = halves[id(linear.lora_a)], halves[id(linear.lora_b)]
        grad_low = (grad @ b).mul_(linear.scale)
        dropped = self._dropped(linear, given)
        lowered = given.saved.lowered.pop(linear.salt, None)
        if lowered is None:  # a recomputed layer leaves its last product out
            lowered = dropped @ a.t()
        given.batch.add(linear.lora_b, _wide_mm(grad.t(), lowered).mul_(linear.scale))
        given.batch.add(linear.lora_a, _wide_mm(grad_low.t(), dropped))
        return grad_low

    def _matrix(self, linear: Linear) -> torch.Tensor:
        """W [out, in], in a buffer that the next call overwrites."""
        if linear.unpacked is not None:
            return linear.unpacked
        rows, columns = linear.weight.shape
        if self._buffer is None:
            self._buffer = torch.empty(self._widest, dtype=self._dtype, device=self._device)
        out = self._buffer[: rows * columns].view(rows, columns)
        matrix: torch.Tensor = self._k.dequantise(linear.weight, out)
        return matrix

    def _dropped(self, linear: Linear, given: Input) -> torch.Tensor:
        assert given.x is not None
        if not linear.dropout or not given.batch.drops:
            return given.x
        dropped: torch.Tensor = self._k.dropout(given.x, self._mask(linear, given), linear.dropout)
        return dropped

    def _mask(self, linear: Linear, given: Input) -> Mask:
        x, saved, random = given.x, given.saved, given.batch.random
        assert x is not None
        if random is not None:
            return Seed(random, linear.salt, saved.first_row * x.shape[1])
        if linear.salt not in saved.masks:
            saved.masks[linear.salt] = draw(x, linear.dropout)
        return saved.masks[linear.salt]


def _wide_mm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b in float32: an fp16 result could overflow under loss scaling."""
    if a.device.type == "cuda":
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()
