"""Dropout by a hash: fused and plain draw the same mask, and masks are random enough."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.kernel_checks import ODD, assert_near

from trainer.kernels import dropout

pytest.importorskip("triton")
pytestmark = pytest.mark.cuda  # on a machine without a GPU in Triton's interpreter


@pytest.mark.parametrize("shape", ODD)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout(shape: tuple[int, int], p: float, noise: Any) -> None:
    x, out = noise(*shape), noise(*shape)
    seed = dropout.Seed(torch.tensor([12345678901], device=x.device), salt=5)
    assert torch.equal(dropout.fused(x, seed, p), dropout.reference(x, seed, p))
    later = replace(seed, first=shape[1])
    if shape[0] > 1:  # a part of the rows has the same mask as among all
        assert torch.equal(dropout.fused(x[1:], later, p), dropout.reference(x, seed, p)[1:])
    truth = dropout.reference_add(out.clone(), x, seed, p)
    assert_near(dropout.fused_add(out.clone(), x, seed, p), truth)


def test_dropout_keeps_the_share_that_it_should_and_differs_from_layer_to_layer() -> None:
    size = 200_000
    masks = [
        dropout.keeps(dropout.Seed(torch.tensor([random]), salt), size, 0.1).float()
        for random, salt in ((1, 0), (1, 1), (2, 0))
    ]
    deviation = (0.1 * 0.9 / size) ** 0.5
    assert all(abs(float(mask.mean()) - 0.9) < 5 * deviation for mask in masks)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        both = float((masks[first] * masks[second]).mean())
        assert abs(both - 0.81) < 5 * (0.81 * 0.19 / size) ** 0.5
