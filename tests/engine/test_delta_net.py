"""The gated delta rule in chunks is that of one token after the other, for each document alone."""

import torch

from trainer.engine.delta_net import DeltaNet, gated_delta_rule, mix
from trainer.kernels.attention import Documents
from trainer.planner.model_shape import CHUNK

HEADS, KEY, VALUE = 2, 8, 16


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


def test_chunks_of_several_documents_are_solved_as_token_by_token() -> None:
    chunks, noise = [2, 1, 3], torch.Generator().manual_seed(0)
    shape = sum(chunks), HEADS, CHUNK

    def random(*more: int) -> torch.Tensor:
        return torch.randn(*shape, *more, dtype=torch.float64, generator=noise)

    q, k, v = random(KEY), torch.nn.functional.normalize(random(KEY), dim=-1), random(VALUE)
    decay, step = -0.1 * random().abs(), random().sigmoid()
    found = gated_delta_rule(q, k, v, decay, step, chunks)
    first = 0
    for count in chunks:
        part = slice(first, first + count)
        alone = [x[part].transpose(0, 1).flatten(1, 2) for x in (q, k, v, decay, step)]
        expected = one_by_one(*alone).unflatten(1, (count, CHUNK)).transpose(0, 1)
        assert torch.allclose(found[part], expected, rtol=1e-9, atol=1e-11)
        first += count


def test_a_trainer_that_computes_in_16_bits_changes_nothing() -> None:
    torch.manual_seed(0)
    width = 2 * HEADS * KEY + HEADS * VALUE
    decay, bias = torch.rand(2, HEADS)
    net = DeltaNet(torch.randn(width, 4), decay, bias, torch.rand(VALUE), 1e-6, HEADS, KEY)
    products = [torch.randn(90, size) for size in net.widths]
    where = Documents(torch.tensor([0, 70, 90, 90], dtype=torch.int32), 70)
    expected = mix(net, products, where)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mix(net, products, where), expected)
