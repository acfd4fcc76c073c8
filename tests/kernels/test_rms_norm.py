"""RMS norm and its gradient: fused as in plain torch, and that as autograd."""

from typing import Any

import pytest
import torch
from support.kernel_checks import ODD, TOLERANCE, assert_near

from trainer.kernels import rms_norm

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("weighted", [None, torch.float32])
def test_rms_norm(
    shape: tuple[int, int], dtype: torch.dtype, weighted: torch.dtype | None, noise: Any
) -> None:
    """A weight in float32 is Gemma's, which has one added to it."""
    x, grad, residual = (noise(*shape, dtype=dtype) for _ in range(3))
    weight = noise(shape[1], dtype=weighted or dtype)
    assert_near(rms_norm.fused(x, weight, 1e-5), rms_norm.reference(x, weight, 1e-5))
    for added in (None, residual):
        truth = rms_norm.reference_backward(grad, x, weight, 1e-5, added)
        assert_near(rms_norm.fused_backward(grad, x, weight, 1e-5, added), truth)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_stream_in_float32_beside_16_bits(half: torch.dtype, noise: Any) -> None:
    """A norm before a product takes float32 and gives 16 bits; one behind it does the opposite."""
    stream, made = 1e5 * noise(7, 341), noise(7, 341, dtype=half)
    weight, grad = noise(341, dtype=torch.float32), noise(7, 341, dtype=half)
    for x, dtype in ((stream, half), (made, torch.float32)):
        truth = rms_norm.reference(x, weight, 1e-5, dtype)
        assert truth.dtype is dtype
        assert_near(rms_norm.fused(x, weight, 1e-5, dtype), truth)
    for given, x, residual in ((grad, stream, stream), (stream / 1e5, made, None)):
        truth = rms_norm.reference_backward(given, x, weight, 1e-5, residual)
        assert truth.dtype is x.dtype
        assert_near(rms_norm.fused_backward(given, x, weight, 1e-5, residual), truth)


def test_the_reference_gradient_of_rms_norm_is_that_of_autograd(noise: Any) -> None:
    x, weight, grad = noise(5, 96).requires_grad_(), noise(96), noise(5, 96)
    rms_norm.reference(x, weight, 1e-5).backward(grad)
    assert_near(rms_norm.reference_backward(grad, x.detach(), weight, 1e-5), x.grad)
