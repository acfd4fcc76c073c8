"""NF4 on a CPU, to the bit as bitsandbytes makes it, in a third of the time.

What takes long is which of 16 values is nearest. bitsandbytes looks each weight up by bisection,
one after the other; here all are compared with each of the 15 midpoints, which a processor does
for many at once.
"""

from functools import cache
from typing import Any

import torch
from bitsandbytes import functional

from trainer.runtime.nf4 import BLOCK_SCALES, BLOCK_VALUES

SLICE_VALUES = 1 << 18  # whole blocks; 1 MiB of float32 stays in the processor's cache


def to_nf4_in_slices(values: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, Any]:
    """NF4 of values that are rounded to `dtype` first, with double quantisation, and bitsandbytes'
    state of it: the bits of `quantize_4bit`, which makes several copies of a whole matrix."""
    slices = values.reshape(-1).split(SLICE_VALUES)
    made = [_quantised(part.to(dtype)) for part in slices]
    absmax = torch.cat([maxima for _, maxima in made])
    offset = absmax.mean()
    absmax, second = functional.quantize_blockwise(absmax - offset, blocksize=BLOCK_SCALES)
    state = functional.QuantState(
        absmax=absmax,
        shape=values.shape,
        dtype=dtype,
        blocksize=BLOCK_VALUES,
        code=functional.get_4bit_type("nf4", device=values.device),
        quant_type="nf4",
        offset=offset,
        state2=second,
    )
    return torch.cat([packed for packed, _ in made]), state


def _quantised(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two of them a byte [n / 2, 1], and the largest of each block."""
    if values.numel() % BLOCK_VALUES:  # the end of an odd matrix
        quantise = torch.ops.bitsandbytes.quantize_4bit.default
        made: tuple[torch.Tensor, torch.Tensor] = quantise(values, BLOCK_VALUES, "nf4", torch.uint8)
        return made
    blocks = values.float().view(-1, BLOCK_VALUES)
    absmax = blocks.abs().amax(-1)
    scaled = (blocks * (1.0 / absmax.clamp(min=1e-38))[:, None]).clamp_(-1, 1)
    codes = _codes(scaled.view(-1))
    return (codes[::2].bitwise_left_shift(4) | codes[1::2])[:, None], absmax


def _codes(scaled: torch.Tensor) -> torch.Tensor:
    """How many midpoints each value is above: uint8, 0 to 15."""
    above = torch.empty(scaled.shape, dtype=torch.bool)
    codes = torch.zeros(scaled.shape, dtype=torch.uint8)
    for midpoint in _midpoints():
        codes += torch.gt(scaled, midpoint, out=above).view(torch.uint8)
    return codes


@cache
def _midpoints() -> list[float]:
    code = functional.get_4bit_type("nf4", device="cpu")
    return ((code[:-1] + code[1:]) / 2).tolist()  # type: ignore[no-any-return]
