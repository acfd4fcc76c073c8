"""NF4 on a CPU has bitsandbytes' own bits: for whole and odd matrices, and where a value is exactly
between two others."""

import pytest
import torch
from bitsandbytes import functional

from trainer.models.nf4_cpu import SLICE_VALUES, to_nf4_in_slices
from trainer.models.nf4_stream import to_nf4


def assert_same_bits(values: torch.Tensor, dtype: torch.dtype) -> None:
    (packed, state), (wanted, plain) = to_nf4_in_slices(values, dtype), to_nf4(values, dtype)
    assert torch.equal(packed, wanted)
    ours, theirs = state.as_dict(packed=True), plain.as_dict(packed=True)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("shape", [(1024, 1024), (1031, 1000), (3, 5), (1, SLICE_VALUES + 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_matrix_in_slices_is_quantised_to_the_same_bits(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    assert_same_bits(values, dtype)


def test_what_lies_exactly_between_two_values_goes_where_it_goes_there() -> None:
    """Midpoints, their neighbours among float32, and blocks of zeros, tiny and large numbers."""
    code = functional.get_4bit_type("nf4", device="cpu")
    between = (code[:-1] + code[1:]) / 2
    up, down = (torch.nextafter(between, torch.full_like(between, to)) for to in (9.0, -9.0))
    block = torch.cat([between, up, down, code, torch.ones(3)])
    assert len(block) == 64
    blocks = [block, torch.zeros(64), block * 1e-40, -block * 1e30, block.flip(0) * 3]
    assert_same_bits(torch.stack(blocks), torch.float32)
