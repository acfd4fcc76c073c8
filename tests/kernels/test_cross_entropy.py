"""Cross-entropy and its gradient: fused as in plain torch, and that as autograd."""

from typing import Any

import pytest
import torch
from support.kernel_checks import TOLERANCE, assert_near

from trainer.kernels import cross_entropy

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


@pytest.mark.parametrize(("rows", "words"), [(1, 3), (6, 331), (4, 20000)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_cross_entropy(rows: int, words: int, dtype: torch.dtype, noise: Any) -> None:
    logits = noise(rows, words, dtype=dtype) * 3
    target = torch.arange(rows, device=logits.device) % words
    target[rows // 2 :] = -100
    loss, grad = cross_entropy.reference(logits, target)
    found_loss, found_grad = cross_entropy.fused(logits, target)
    assert_near(found_loss, loss)
    assert_near(found_grad, grad)


def test_the_reference_gradient_of_cross_entropy_is_that_of_autograd(noise: Any) -> None:
    logits, target = noise(5, 11).requires_grad_(), torch.tensor([3, -100, 0, 10, -100])
    target = target.to(logits.device)
    loss, grad = cross_entropy.reference(logits.detach(), target)
    expected = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    expected.backward()
    assert_near(loss.sum(), expected.detach())
    assert_near(grad, logits.grad)
