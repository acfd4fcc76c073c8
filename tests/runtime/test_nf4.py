"""The figures of NF4 are those of what bitsandbytes makes."""

import bitsandbytes
import torch

from trainer.runtime.nf4 import BLOCK_SCALES, BLOCK_VALUES, NF4_BYTES


def test_a_weight_takes_the_bytes_that_bitsandbytes_makes_of_it() -> None:
    values = BLOCK_VALUES * BLOCK_SCALES * 4
    packed, state = bitsandbytes.functional.quantize_4bit(
        torch.randn(BLOCK_VALUES, values // BLOCK_VALUES),
        blocksize=BLOCK_VALUES,
        compress_statistics=True,
        quant_type="nf4",
    )
    assert state.state2.blocksize == BLOCK_SCALES
    tensors = packed, state.absmax, state.state2.absmax
    assert sum(tensor.nbytes for tensor in tensors) == values * NF4_BYTES
