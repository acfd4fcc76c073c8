"""What the tests of all kernels are given."""

from collections.abc import Callable

import pytest
import torch
from support.kernel_checks import DEVICE

Noise = Callable[..., torch.Tensor]


@pytest.fixture
def noise() -> Noise:
    """Normal noise of a shape, and where given of a `dtype`; the next call's is other noise."""
    generator = torch.Generator().manual_seed(0)

    def make(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(DEVICE, dtype)

    return make
