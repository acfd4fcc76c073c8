"""Rotary position embedding: fused as in plain torch; backwards undoes it."""

from typing import Any

import pytest
import torch
from support.kernel_checks import TOLERANCE, assert_near

from trainer.kernels import rope

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


@pytest.mark.parametrize(("tokens", "heads", "size"), [(1, 1, 2), (7, 3, 20), (5, 32, 128)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rope(tokens: int, heads: int, size: int, dtype: torch.dtype, noise: Any) -> None:
    angle = noise(tokens, size // 2)
    cos, sin = (torch.cat([f(angle)] * 2, -1).to(dtype) for f in (torch.cos, torch.sin))
    for back in (False, True):
        x = noise(tokens, heads, size, dtype=dtype)
        truth = rope.reference(x.clone(), cos, sin, back=back)
        assert_near(rope.fused(x, cos, sin, back=back), truth)
        # A part of a product, whose tokens lie further apart than they are long.
        x = noise(tokens, heads * size + 4, dtype=dtype)[:, :-4].view(tokens, heads, size)
        truth = rope.reference(x.clone(), cos, sin, back=back)
        assert_near(rope.fused(x, cos, sin, back=back), truth)


def test_rope_backwards_undoes_it(noise: Any) -> None:
    angle, x = noise(4, 8), noise(4, 2, 16)
    cos, sin = (torch.cat([f(angle)] * 2, -1) for f in (torch.cos, torch.sin))
    there = rope.reference(x.clone(), cos, sin)
    assert_near(rope.reference(there, cos, sin, back=True), x)
