"""SwiGLU (Shazeer 2020): silu(gate) * up."""

import torch
import torch.nn.functional as F

from trainer.kernels import _gated
from trainer.kernels._triton import jit, tl


def reference(gate_MI: torch.Tensor, up_MI: torch.Tensor) -> torch.Tensor:
    return F.silu(gate_MI) * up_MI


def reference_backward(
    grad_MI: torch.Tensor, gate_MI: torch.Tensor, up_MI: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up, which may be written over `gate_MI` and `up_MI`."""
    gate, up, grad = gate_MI.float(), up_MI.float(), grad_MI.float()
    sigmoid = torch.sigmoid(gate)
    grad_gate = grad * up * sigmoid * (1 + gate * (1 - sigmoid))
    return grad_gate.to(gate_MI.dtype), (grad * gate * sigmoid).to(up_MI.dtype)


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
    silu = (g * tl.sigmoid(g)).to(gate.dtype.element_ty).to(tl.float32)
    tl.store(out + at, (silu * u).to(out.dtype.element_ty), mask=inside)


@jit
def _backward(grad, gate, up, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    d = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gate + at, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(g)
    grad_gate = d * u * sigmoid * (1 + g * (1 - sigmoid))
    tl.store(gate + at, grad_gate.to(gate.dtype.element_ty), mask=inside)
    tl.store(up + at, (d * g * sigmoid).to(up.dtype.element_ty), mask=inside)
