"""GeGLU and its gradient: fused as in plain torch, and that as autograd."""

from typing import Any

import pytest
import torch
from support.kernel_checks import ODD, TOLERANCE, assert_near

from trainer.kernels import geglu

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_geglu(shape: tuple[int, int], dtype: torch.dtype, noise: Any) -> None:
    gate, up, grad = (noise(*shape, dtype=dtype) for _ in range(3))
    assert_near(geglu.fused(gate, up), geglu.reference(gate, up))
    truth = geglu.reference_backward(grad, gate, up)
    for found, expected in zip(geglu.fused_backward(grad, gate, up), truth, strict=True):
        assert_near(found, expected)


def test_the_reference_gradient_of_geglu_is_that_of_autograd(noise: Any) -> None:
    gate, up, grad = noise(3, 50).requires_grad_(), noise(3, 50).requires_grad_(), noise(3, 50)
    geglu.reference(gate, up).backward(grad)
    found = geglu.reference_backward(grad, gate.detach(), up.detach())
    assert_near(found[0], gate.grad)
    assert_near(found[1], up.grad)
