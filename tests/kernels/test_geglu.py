"""GeGLU and its gradient: fused as in plain torch, and that as autograd."""

from typing import Any

import pytest
import torch
from support.kernel_checks import ODD, TOLERANCE, assert_gated, assert_gradient_of_gated

from trainer.kernels import geglu

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_geglu(shape: tuple[int, int], dtype: torch.dtype, noise: Any) -> None:
    assert_gated(geglu, *(noise(*shape, dtype=dtype) for _ in range(3)))


def test_the_reference_gradient_of_geglu_is_that_of_autograd(noise: Any) -> None:
    assert_gradient_of_gated(geglu, *(noise(3, 50) for _ in range(3)))
