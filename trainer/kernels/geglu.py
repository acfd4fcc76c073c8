"""GeGLU (Shazeer 2020) with the tanh form of GELU: gelu(gate) * up."""

import torch
import torch.nn.functional as F

from trainer.kernels import _gated
from trainer.kernels._triton import jit, tl

ROOT = 0.7978845608028654  # of 2 / pi
CUBIC = 0.044715  # Hendrycks & Gimpel 2016


def reference(gate_MI: torch.Tensor, up_MI: torch.Tensor) -> torch.Tensor:
    return F.gelu(gate_MI, approximate="tanh") * up_MI


def reference_backward(
    grad_MI: torch.Tensor, gate_MI: torch.Tensor, up_MI: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up, which may be written over `gate_MI` and `up_MI`."""
    gate, up, grad = gate_MI.float(), up_MI.float(), grad_MI.float()
    tanh = torch.tanh(ROOT * (gate + CUBIC * gate**3))
    slope = ROOT * (1 + 3 * CUBIC * gate**2) * (1 - tanh**2)
    grad_gate = grad * up * 0.5 * (1 + tanh + gate * slope)
    return grad_gate.to(gate_MI.dtype), (grad * 0.5 * gate * (1 + tanh)).to(up_MI.dtype)


def fused(gate_MI: torch.Tensor, up_MI: torch.Tensor) -> torch.Tensor:
    return _gated.forward(_forward, gate_MI, up_MI)


def fused_backward(
    grad_MI: torch.Tensor, gate_MI: torch.Tensor, up_MI: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return _gated.backward(_backward, grad_MI, gate_MI, up_MI)


@jit
def _forward(gate, up, out, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    # tanh(x) = 2 sigmoid(2 x) - 1
    tanh = 2 * tl.sigmoid(2 * 0.7978845608028654 * (g + 0.044715 * g * g * g)) - 1
    gelu = (0.5 * g * (1 + tanh)).to(gate.dtype.element_ty).to(tl.float32)
    tl.store(out + at, (gelu * u).to(out.dtype.element_ty), mask=inside)


@jit
def _backward(grad, gate, up, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    d = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    # tanh(x) = 2 sigmoid(2 x) - 1
    tanh = 2 * tl.sigmoid(2 * 0.7978845608028654 * (g + 0.044715 * g * g * g)) - 1
    slope = 0.7978845608028654 * (1 + 3 * 0.044715 * g * g) * (1 - tanh * tanh)
    grad_gate = d * u * 0.5 * (1 + tanh + g * slope)
    tl.store(gate + at, grad_gate.to(gate.dtype.element_ty), mask=inside)
    tl.store(up + at, (d * 0.5 * g * (1 + tanh)).to(up.dtype.element_ty), mask=inside)
