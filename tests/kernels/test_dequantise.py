"""NF4 back to 16 or 32 bits: the fused kernel gives bitsandbytes' bits."""

from typing import Any

import bitsandbytes
import pytest
import torch
from support.kernel_checks import DEVICE

from trainer.kernels import dequantise

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


@pytest.mark.parametrize("shape", [(64, 64), (40, 192), (1057, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_dequantise_is_bitsandbytes_to_the_bit(shape: Any, dtype: torch.dtype, noise: Any) -> None:
    weight = bitsandbytes.nn.Params4bit(
        noise(*shape, dtype=dtype), requires_grad=False, quant_type="nf4", compress_statistics=True
    ).to(DEVICE)
    if not weight.bnb_quantized:
        weight = weight._quantize(weight.device)
    nf4 = dequantise.Nf4.of(weight)
    out = torch.full(shape, torch.nan, dtype=dtype, device=weight.device)
    assert torch.equal(dequantise.fused(nf4, out), dequantise.reference(nf4, out))
