"""SwiGLU and its gradient: fused as in plain torch, and that as autograd."""

from typing import Any

import pytest
import torch
from support.kernel_checks import ODD, TOLERANCE, assert_near

from trainer.kernels import swiglu

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_swiglu(shape: tuple[int, int], dtype: torch.dtype, noise: Any) -> None:
    gate, up, grad = (noise(*shape, dtype=dtype) for _ in range(3))
    assert_near(swiglu.fused(gate, up), swiglu.reference(gate, up))
    truth = swiglu.reference_backward(grad, gate, up)
    for found, expected in zip(swiglu.fused_backward(grad, gate, up), truth, strict=True):
        assert_near(found, expected)


def test_the_reference_gradient_of_swiglu_is_that_of_autograd(noise: Any) -> None:
    gate, up, grad = noise(3, 50).requires_grad_(), noise(3, 50).requires_grad_(), noise(3, 50)
    swiglu.reference(gate, up).backward(grad)
    found = swiglu.reference_backward(grad, gate.detach(), up.detach())
    assert_near(found[0], gate.grad)
    assert_near(found[1], up.grad)
