"""The gated delta rule in chunks is that of one token after the other, for each document alone."""

from itertools import accumulate, pairwise

import pytest
import torch
import torch.nn.functional as F

from trainer.engine.delta_net import DeltaNet, DeltaPass, gated_delta_rule
from trainer.kernels import PLAIN
from trainer.kernels.attention import Documents

HEADS, KEY, VALUE = 2, 8, 16


def bounds(lengths: list[int]) -> torch.Tensor:
    return torch.tensor([*accumulate(lengths, initial=0)], dtype=torch.int32)


def one_by_one(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, decay: torch.Tensor, step: torch.Tensor
) -> torch.Tensor:
    """[V, T, E] of one document."""
    state, made = q.new_zeros(HEADS, KEY, VALUE), []
    for t in range(q.shape[1]):
        state = state * decay[:, t, None, None].exp()
        known = (k[:, t, None] @ state)[:, 0]
        state = state + k[:, t, :, None] * ((v[:, t] - known) * step[:, t, None])[:, None]
        made.append((q[:, t, None] @ state)[:, 0])
    return torch.stack(made, 1)


@pytest.mark.parametrize("rows", [[[70, 58], [128]], [[1, 63, 64, 2, 70]], [[5, 20], [25]]])
def test_documents_of_rows_are_solved_as_token_by_token(rows: list[list[int]]) -> None:
    """That end inside chunks, at their ends, and before a row's last chunk is full."""
    lengths, noise = [n for row in rows for n in row], torch.Generator().manual_seed(0)
    shape, where = (sum(lengths),), Documents(bounds(lengths), max(lengths))

    def random(*more: int) -> torch.Tensor:
        return torch.randn(*shape, *more, dtype=torch.float64, generator=noise)

    delta = DeltaPass(PLAIN, len(rows))
    given = random(1, KEY), F.normalize(random(1, KEY), dim=-1), random(HEADS, VALUE)
    given = *given, -0.1 * random(HEADS).abs(), random(HEADS).sigmoid()
    given = tuple(x.requires_grad_() for x in given)
    document = torch.repeat_interleave(torch.arange(len(lengths)) + 1, torch.tensor(lengths))
    chunks = [delta._in_chunks(x) for x in given]
    made = gated_delta_rule(*chunks, delta._in_chunks(document[:, None])[:, :, 0], PLAIN)
    found = delta._in_rows(made, len(document))
    expected = [
        one_by_one(
            *(x[at].transpose(0, 1).expand(HEADS, *x[at].transpose(0, 1).shape[1:]) for x in given)
        )
        for at in (slice(*b) for b in pairwise(where.starts.tolist()))
    ]
    truth = torch.cat(expected, 1).transpose(0, 1)
    assert torch.allclose(found.double(), truth, rtol=1e-4, atol=1e-5)
    grad = random(HEADS, VALUE)
    for ours, theirs in zip(
        torch.autograd.grad(found, given, grad.float()),
        torch.autograd.grad(truth, given, grad),
        strict=True,
    ):
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_a_trainer_that_computes_in_16_bits_changes_nothing() -> None:
    torch.manual_seed(0)
    width = 2 * HEADS * KEY + HEADS * VALUE
    decay, bias = torch.rand(2, HEADS)
    net = DeltaNet(torch.randn(width, 4), decay, bias, torch.rand(VALUE), 1e-6, HEADS, KEY)
    products = [torch.randn(90, size) for size in net.widths]
    where = Documents(torch.tensor([0, 30, 45, 90, 90], dtype=torch.int32), 45)
    delta = DeltaPass(PLAIN, 2)
    expected = delta.mix(net, products, where)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(delta.mix(net, products, where), expected)
