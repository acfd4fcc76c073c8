"""NF4 back to 16 or 32 bits: the fused kernel gives bitsandbytes' bits."""

from typing import Any

import bitsandbytes
import pytest
import torch
from support.kernel_checks import DEVICE, assert_near

from trainer.kernels import dequantise
from trainer.models.experts import ExpertLayout
from trainer.models.nf4_experts import NF4Experts
from trainer.models.nf4_stream import empty_experts, quantise_matrix

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


def quantised(values: torch.Tensor) -> dequantise.Nf4:
    weight = bitsandbytes.nn.Params4bit(
        values, requires_grad=False, quant_type="nf4", compress_statistics=True
    ).to(DEVICE)
    return dequantise.Nf4.of(weight if weight.bnb_quantized else weight._quantize(weight.device))


@pytest.mark.parametrize("shape", [(64, 64), (40, 192), (1057, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_dequantise_is_bitsandbytes_to_the_bit(shape: Any, dtype: torch.dtype, noise: Any) -> None:
    nf4 = quantised(noise(*shape, dtype=dtype))
    out = torch.full(shape, torch.nan, dtype=dtype, device=DEVICE)
    assert torch.equal(dequantise.fused(nf4, out), dequantise.reference(nf4, out))


@pytest.mark.parametrize("columns", [64, 512])  # scales fill a part of a group, or whole ones
def test_matrices_of_experts_are_dequantised_at_once_to_the_bit(columns: int, noise: Any) -> None:
    layout = ExpertLayout(experts=3, parts=2, rows=96, columns=columns)
    made = empty_experts(layout, torch.device(DEVICE))
    for number in range(layout.matrices):
        quantise_matrix(noise(96, columns), number, made, torch.float16)
    experts = NF4Experts(layout, made, torch.float16)
    assert torch.equal(experts.weights(1, 2, None), experts.weights(1, 2, experts.scales()))


@pytest.mark.parametrize("bias", [False, True])
def test_a_product_with_four_bits_is_one_with_their_matrix(bias: bool, noise: Any) -> None:
    nf4 = quantised(noise(96, 128, dtype=torch.float16))
    x = noise(5, 128, dtype=torch.float16)
    b = noise(96, dtype=torch.float16) if bias else None
    assert_near(dequantise.fused_product(nf4, x, b), dequantise.reference_product(nf4, x, b))
