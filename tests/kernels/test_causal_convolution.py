"""A convolution inside each document, and its gradient: fused as in plain torch, that as conv1d."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.kernel_checks import DEVICE, TOLERANCE, assert_near

from trainer.kernels import causal_convolution

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter

LENGTHS = (1, 2, 7, 3)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_convolution(dtype: torch.dtype, noise: Any) -> None:
    position = torch.cat([torch.arange(n) for n in LENGTHS]).to(DEVICE, torch.int32)
    x, grad = (noise(len(position), 700, dtype=dtype) for _ in range(2))
    taps = noise(700, 4, dtype=dtype)
    truth = causal_convolution.reference(x, taps, position)
    assert_near(causal_convolution.fused(x, taps, position), truth)
    truth = causal_convolution.reference_backward(grad, x, taps, position)
    assert_near(causal_convolution.fused_backward(grad, x, taps, position), truth)


def test_the_reference_is_conv1d_of_each_document_and_its_gradient_autograds(noise: Any) -> None:
    position = torch.cat([torch.arange(n) for n in LENGTHS]).to(DEVICE)
    x, taps, grad = noise(13, 5).requires_grad_(), noise(5, 4), noise(13, 5)
    documents = [F.pad(part.t(), (3, 0)) for part in x.split(LENGTHS)]
    made = [F.silu(F.conv1d(part, taps[:, None], groups=5)).t() for part in documents]
    truth = torch.cat(made)
    assert_near(causal_convolution.reference(x.detach(), taps, position), truth.detach())
    (expected,) = torch.autograd.grad(truth, x, grad)
    assert_near(causal_convolution.reference_backward(grad, x.detach(), taps, position), expected)
