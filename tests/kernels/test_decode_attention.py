"""Attention of one new token a row: over its own past alone, fused as in plain torch."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.kernel_checks import DEVICE, TOLERANCE, assert_near

from trainer.kernels import decode_attention
from trainer.kernels.decode_attention import Rows

SHAPES = [  # heads, heads of keys, values of a head
    (1, 1, 2),
    (4, 4, 64),
    (6, 2, 20),
    (8, 1, 128),
    (4, 1, 256),
]
LENGTHS = [0, 1, 63, 64, 65, 150]


def given(noise: Any, heads: int, kv_heads: int, size: int, dtype: torch.dtype) -> Any:
    """q, k and v of new tokens, a cache with more rows than those, and the rows."""
    count = len(LENGTHS)
    # Parts of one product: their tokens lie further apart than they are long.
    whole = noise(count, (heads + 2 * kv_heads) * size + 8, dtype=dtype)
    parts = whole[:, :-8].split([heads * size, kv_heads * size, kv_heads * size], 1)
    new = [part.view(count, -1, size) for part in parts]
    cache = [noise(count + 2, 160, kv_heads, size, dtype=dtype) for _ in "kv"]
    return new, cache, Rows(torch.tensor(LENGTHS, device=DEVICE), 151)


@pytest.mark.parametrize(("heads", "kv_heads", "size"), SHAPES)
def test_a_token_looks_at_its_own_row_up_to_itself(
    heads: int, kv_heads: int, size: int, noise: Any
) -> None:
    new, cache, rows = given(noise, heads, kv_heads, size, torch.float32)
    found = decode_attention.reference(*new, *cache, rows)
    for row, length in enumerate(LENGTHS):
        keys, values = (
            torch.cat([c[row, :length], n[row : row + 1]]).transpose(0, 1)[None]
            for c, n in zip(cache, new[1:], strict=True)
        )
        truth = F.scaled_dot_product_attention(
            new[0][row][None, :, None], keys, values, enable_gqa=True
        )
        assert_near(found[row], truth[0, :, 0])
        assert torch.equal(cache[0][row, length], new[1][row])
        assert torch.equal(cache[1][row, length], new[2][row])


@pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter
@pytest.mark.parametrize(("heads", "kv_heads", "size"), SHAPES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_fused_is_as_plain_and_leaves_the_same_cache(
    heads: int, kv_heads: int, size: int, dtype: torch.dtype, noise: Any
) -> None:
    pytest.importorskip("triton")
    new, cache, rows = given(noise, heads, kv_heads, size, dtype)
    own = [tensor.clone() for tensor in cache]
    truth = decode_attention.reference(*new, *cache, rows)
    assert_near(decode_attention.fused(*new, *own, rows), truth)
    assert all(torch.equal(one, other) for one, other in zip(own, cache, strict=True))


@pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter
@pytest.mark.parametrize("splits", [2, 4, 8])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_row_may_be_divided_among_programs(
    splits: int, dtype: torch.dtype, noise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that leave some of them nothing to do, too."""
    pytest.importorskip("triton")
    monkeypatch.setattr(decode_attention, "_splits", lambda *_: splits)
    new, cache, rows = given(noise, 6, 2, 20, dtype)
    own = [tensor.clone() for tensor in cache]
    truth = decode_attention.reference(*new, *cache, rows)
    assert_near(decode_attention.fused(*new, *own, rows), truth)
    assert all(torch.equal(one, other) for one, other in zip(own, cache, strict=True))


def test_only_few_rows_that_may_be_long_are_divided() -> None:
    found = {
        (rows, longest): decode_attention._splits(rows * 32, longest)
        for rows in (1, 4, 64)
        for longest in (64, 600, 4096)
    }
    assert found == {
        (1, 64): 1, (1, 600): 8, (1, 4096): 32,
        (4, 64): 1, (4, 600): 8, (4, 4096): 16,
        (64, 64): 1, (64, 600): 1, (64, 4096): 1,
    }  # fmt: skip
