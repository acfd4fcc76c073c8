"""What decays weigh inside a chunk, and its gradient: fused as in plain torch."""

from typing import Any

import pytest
import torch
from support.kernel_checks import DEVICE, assert_near

from trainer.kernels import delta_decays

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


def test_decays_in_chunks_of_several_documents(noise: Any) -> None:
    """Two rows of three chunks; one document ends at a chunk's end, one goes through all."""
    products = noise(2, 3, 2, 2, 64, 64).unbind()
    step, decay = noise(3, 2, 4, 64).sigmoid(), -noise(3, 2, 4, 64).abs()
    lengths = torch.tensor([[5, 59, 70, 58, 0], [192, 0, 0, 0, 0]])
    numbers = [torch.repeat_interleave(torch.arange(1.0, 6), row) for row in lengths]
    document = torch.stack(numbers).view(2, 3, 64).transpose(0, 1).to(DEVICE)
    given = (*products, step, decay, document)
    truth = delta_decays.reference(*given)
    for found, expected in zip(delta_decays.fused(*given), truth, strict=True):
        assert_near(found, expected)
    grads = tuple(noise(*made.shape) for made in truth)
    truth = delta_decays.reference_backward(grads, *given)
    for found, expected in zip(delta_decays.fused_backward(grads, *given), truth, strict=True):
        assert_near(found, expected)
