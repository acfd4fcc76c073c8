"""The adapter's tensors join to one parameter where an optimizer makes no difference."""

from typing import Any

import pytest
import torch

from trainer.engine.adapter_parameters import AdapterParameters
from trainer.engine.weights import Linear, Lora

Parameter = torch.nn.Parameter


def linear(number: int, rank: int, wide: int, tall: int) -> Linear:
    weight: Any = None  # which plays no part
    noise = torch.Generator().manual_seed(number)
    a, b = (Parameter(torch.randn(s, generator=noise)) for s in ((rank, wide), (tall, rank)))
    return Linear(weight, None, number, Lora(a, b, scale=2.0, dropout=0.0))


@pytest.fixture
def linears() -> list[Linear]:
    """A of 4,096 values and B of 8,192; both too small; no adapter; A that is no whole block."""
    bare = Linear(linear(2, 1, 1, 1).weight, None, 2)
    return [linear(0, 16, 256, 512), linear(1, 2, 32, 64), bare, linear(3, 3, 1500, 4096)]


def test_large_ones_become_views_of_the_first_parameter(linears: list[Linear]) -> None:
    loras = [linear.lora for linear in linears if linear.lora]
    before = [tensor.detach().clone() for lora in loras for tensor in (lora.a, lora.b)]
    joined, *apart = AdapterParameters(linears).parameters
    assert joined.numel() == 16 * 256 + 16 * 512 + 3 * 4096
    assert apart[0] is loras[1].a and apart[1] is loras[1].b and apart[2] is loras[2].a
    with torch.no_grad():
        joined.mul_(2)
    for tensor, former in zip((t for lora in loras for t in (lora.a, lora.b)), before, strict=True):
        is_apart = any(tensor is other for other in apart)
        assert torch.equal(tensor, former if is_apart else 2 * former)


def test_gradients_go_where_their_tensors_went(linears: list[Linear]) -> None:
    adapter = AdapterParameters(linears)
    of_each = {key: copy * 3 for key, copy in adapter.copies(torch.float32).items()}
    assert list(of_each) == [(n, factor) for n in (0, 1, 3) for factor in "AB"]
    for parameter, gradient in zip(adapter.parameters, adapter.gradients(of_each), strict=True):
        assert torch.equal(gradient, parameter.detach() * 3)


def test_small_adapters_stay_as_they_are() -> None:
    small = [linear(0, 2, 32, 64)]
    adapter = AdapterParameters(small)
    assert [p.shape for p in adapter.parameters] == [(2, 32), (64, 2)]
    assert all(copy.dtype == torch.float16 for copy in adapter.copies(torch.float16).values())
