"""Attention on a CPU, document by document, against a dense mask; GPUs' kernels: test_cuda.py."""

from typing import Any

import pytest
import torch

from trainer.kernels import choose_attention
from trainer.kernels.attention import Cpu, Documents

LENGTHS = [3, 1, 8, 4]
TOKENS, HEADS, SIZE = sum(LENGTHS), 4, 16


def dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Each token sees those before it in its own document; `k` and `v` have fewer heads."""
    document = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    visible = (document[:, None] == document).tril()
    k, v = (x.repeat_interleave(HEADS // x.shape[1], 1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) / SIZE**0.5
    weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_output_and_gradients_are_those_of_a_dense_mask(key_heads: int) -> None:
    noise = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(TOKENS, n, SIZE, generator=noise).requires_grad_()
        for n in (HEADS, key_heads, key_heads)
    )
    grad = torch.randn(TOKENS, HEADS, SIZE, generator=noise)
    expected = dense(q, k, v)
    expected.backward(grad)
    where = Documents(torch.tensor([0, *LENGTHS]).cumsum(0).int(), max(LENGTHS))
    plain: list[Any] = [x.detach() for x in (q, k, v)]
    seen = Cpu().forward(*plain, where)
    assert torch.allclose(seen.out_MHD, expected, atol=1e-5)
    found = Cpu().backward(grad, *plain, seen, where)
    for gradient, x in zip(found, (q, k, v), strict=True):
        assert torch.allclose(gradient, x.grad, atol=1e-5)


def test_a_cpu_takes_its_own() -> None:
    assert isinstance(choose_attention(torch.device("cpu"), 512), Cpu)
