"""Shapes, noise and tolerances for comparing a fused kernel with its reference."""

from types import ModuleType

import torch

ODD = [(1, 64), (7, 341), (13, 4096)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def assert_near(found: torch.Tensor, truth: torch.Tensor) -> None:
    off = (found.float() - truth.float()).norm() / truth.float().norm().clamp(min=1e-12)
    assert off < TOLERANCE[truth.dtype]


def assert_gated(kernel: ModuleType, *values: torch.Tensor) -> None:
    """SwiGLU or GeGLU of gate and up, and their gradients: fused as in plain torch."""
    gate, up, grad = values
    assert_near(kernel.fused(gate, up), kernel.reference(gate, up))
    truth = kernel.reference_backward(grad, gate, up)
    for found, expected in zip(kernel.fused_backward(grad, gate, up), truth, strict=True):
        assert_near(found, expected)


def assert_gradient_of_gated(kernel: ModuleType, *values: torch.Tensor) -> None:
    """The gradient of the plain one is that of autograd."""
    gate, up, grad = (value.clone() for value in values)
    kernel.reference(gate.requires_grad_(), up.requires_grad_()).backward(grad)
    found = kernel.reference_backward(grad, gate.detach(), up.detach())
    assert_near(found[0], gate.grad)
    assert_near(found[1], up.grad)
