"""How the kernels of SwiGLU and GeGLU are started: a program for each `BLOCK` values."""

from typing import Any

import torch

from trainer.kernels._triton import cdiv

BLOCK = 2048


def forward(kernel: Any, gate_MI: torch.Tensor, up_MI: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(gate_MI)
    size = gate_MI.numel()
    kernel[(cdiv(size, BLOCK),)](gate_MI, up_MI, out, size, BLOCK=BLOCK, num_warps=8)
    return out


def backward(
    kernel: Any, grad_MI: torch.Tensor, gate_MI: torch.Tensor, up_MI: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of gate and up, written over them."""
    size = gate_MI.numel()
    kernel[(cdiv(size, BLOCK),)](grad_MI, gate_MI, up_MI, size, BLOCK=BLOCK, num_warps=8)
    return gate_MI, up_MI
