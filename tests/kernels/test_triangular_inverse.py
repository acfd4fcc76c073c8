"""The inverse by substitution: fused as in plain torch, where a series of powers would lose it."""

from typing import Any

import pytest
import torch
from support.kernel_checks import assert_near

from trainer.kernels import triangular_inverse

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


@pytest.mark.parametrize("scale", [0.1, 0.0])
def test_inverse(scale: float, noise: Any) -> None:
    """Of noise, and of ones alone: as of tokens that are all the same."""
    lower = 1 - scale + scale * noise(2, 3, 64, 64)
    found = triangular_inverse.fused(lower)
    assert_near(found, triangular_inverse.reference(lower))
    one = torch.eye(64, device=lower.device)
    assert_near((lower.tril(-1) + one) @ found, one.expand_as(found))
