"""What the decays of a gated delta rule weigh inside a chunk of T tokens, and at its ends.

Shapes: N chunks of B rows, K heads of queries and keys, V of values; float32 all of them.
"""

import torch

from trainer.kernels._triton import jit, tl

Weighed = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def reference(
    kk_NBKTT: torch.Tensor,
    qk_NBKTT: torch.Tensor,
    step_NBVT: torch.Tensor,
    decay_NBVT: torch.Tensor,
    document_NBT: torch.Tensor,
) -> Weighed:
    """Products of keys, and of queries, with the keys before them in their document, decayed since
    then [N, B, V, T, T], the first times a token's step; what is left at each token of the state
    before the chunk, and of each token at its end [N, B, V, T].

    Decays are logarithms; documents have numbers above 0, and a chunk goes on from the one of the
    same row before it.
    """
    group = step_NBVT.shape[2] // kk_NBKTT.shape[2]
    document = document_NBT[:, :, None]
    last = document[..., -1:]
    former = torch.cat((torch.zeros_like(last[:1]), last[:-1]))
    total = decay_NBVT.cumsum(-1)
    seen = (document[..., None] == document[..., None, :]).tril()
    between = (total[..., None] - total[..., None, :]).masked_fill(~seen, -torch.inf).exp()
    kk, qk = (x.repeat_interleave(group, dim=2) * between for x in (kk_NBKTT, qk_NBKTT))
    entered = total.exp() * (document == former)
    leaves = (total[..., -1:] - total).exp() * (document == last)
    return kk * step_NBVT[..., None], qk, entered, leaves


def reference_backward(
    grads: Weighed,
    kk_NBKTT: torch.Tensor,
    qk_NBKTT: torch.Tensor,
    step_NBVT: torch.Tensor,
    decay_NBVT: torch.Tensor,
    document_NBT: torch.Tensor,
) -> Weighed:
    """Gradients of products, steps and decays."""
    given = [x.detach().requires_grad_() for x in (kk_NBKTT, qk_NBKTT, step_NBVT, decay_NBVT)]
    with torch.enable_grad():
        made = reference(given[0], given[1], given[2], given[3], document_NBT)
    kk, qk, step, decay = torch.autograd.grad(made, given, grads)
    return kk, qk, step, decay


def fused(*given: torch.Tensor) -> Weighed:
    """T has to be a power of two."""
    kk, _, step, _, _ = given = tuple(x.contiguous() for x in given)
    (chunks, rows, heads, size), pairs = step.shape, kk.shape[2]
    system, inside = (kk.new_empty(chunks, rows, heads, size, size) for _ in "12")
    entered, leaves = (torch.empty_like(step) for _ in "12")
    _forward[(chunks * rows * pairs,)](
        *given, system, inside, entered, leaves, rows, pairs,
        GROUP=heads // pairs, SIZE=size, num_warps=8,
    )  # fmt: skip
    return system, inside, entered, leaves


def fused_backward(grads: Weighed, *given: torch.Tensor) -> Weighed:
    kk, qk, step, decay, _ = given = tuple(x.contiguous() for x in given)
    (chunks, rows, heads, size), pairs = step.shape, kk.shape[2]
    out = [torch.empty_like(x) for x in (kk, qk, step, decay)]
    _backward[(chunks * rows * pairs,)](
        *(grad.contiguous() for grad in grads), *given, *out, rows, pairs,
        GROUP=heads // pairs, SIZE=size, num_warps=8,
    )  # fmt: skip
    return out[0], out[1], out[2], out[3]


@jit
def _forward(
    kk, qk, step, decay, document, system, inside, entered, leaves, rows, pairs,
    GROUP: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)
    chunk, at = pair // pairs, tl.arange(0, SIZE)
    tile = at[:, None] * SIZE + at[None, :]
    own = tl.load(document + chunk * SIZE + at)
    last = tl.load(document + chunk * SIZE + SIZE - 1)
    before = (chunk - rows) * SIZE + SIZE - 1
    former = tl.load(document + before, mask=chunk >= rows, other=0.0)
    seen = (at[:, None] >= at[None, :]) & (own[:, None] == own[None, :])
    kk_tile, qk_tile = (
        tl.load(kk + pair * SIZE * SIZE + tile),
        tl.load(qk + pair * SIZE * SIZE + tile),
    )
    for member in tl.static_range(GROUP):
        head = pair * GROUP + member
        total = tl.cumsum(tl.load(decay + head * SIZE + at), 0)
        final = tl.sum(tl.where(at == SIZE - 1, total, 0.0), 0)
        tl.store(entered + head * SIZE + at, tl.where(own == former, tl.exp(total), 0.0))
        tl.store(leaves + head * SIZE + at, tl.where(own == last, tl.exp(final - total), 0.0))
        between = tl.where(seen, total[:, None] - total[None, :], float("-inf"))
        between = tl.exp(between)
        steps = tl.load(step + head * SIZE + at)
        tl.store(inside + head * SIZE * SIZE + tile, qk_tile * between)
        tl.store(system + head * SIZE * SIZE + tile, kk_tile * between * steps[:, None])


@jit
def _backward(
    grad_system, grad_inside, grad_entered, grad_leaves, kk, qk, step, decay, document,
    grad_kk, grad_qk, grad_step, grad_decay, rows, pairs,
    GROUP: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)
    chunk, at = pair // pairs, tl.arange(0, SIZE)
    tile = at[:, None] * SIZE + at[None, :]
    own = tl.load(document + chunk * SIZE + at)
    last = tl.load(document + chunk * SIZE + SIZE - 1)
    before = (chunk - rows) * SIZE + SIZE - 1
    former = tl.load(document + before, mask=chunk >= rows, other=0.0)
    seen = (at[:, None] >= at[None, :]) & (own[:, None] == own[None, :])
    kk_tile, qk_tile = (
        tl.load(kk + pair * SIZE * SIZE + tile),
        tl.load(qk + pair * SIZE * SIZE + tile),
    )
    of_kk, of_qk = tl.zeros((SIZE, SIZE), tl.float32), tl.zeros((SIZE, SIZE), tl.float32)
    for member in tl.static_range(GROUP):
        head = pair * GROUP + member
        total = tl.cumsum(tl.load(decay + head * SIZE + at), 0)
        final = tl.sum(tl.where(at == SIZE - 1, total, 0.0), 0)
        between = tl.where(seen, total[:, None] - total[None, :], float("-inf"))
        between = tl.exp(between)
        steps = tl.load(step + head * SIZE + at)
        of_system = tl.load(grad_system + head * SIZE * SIZE + tile) * between
        of_inside = tl.load(grad_inside + head * SIZE * SIZE + tile) * between
        of_kk += of_system * steps[:, None]
        of_qk += of_inside
        of_step = of_system * kk_tile
        tl.store(grad_step + head * SIZE + at, tl.sum(of_step, 1))
        moved = of_step * steps[:, None] + of_inside * qk_tile
        of_entered = tl.load(grad_entered + head * SIZE + at)
        of_leaves = tl.load(grad_leaves + head * SIZE + at)
        of_leaves *= tl.where(own == last, tl.exp(final - total), 0.0)
        of_total = tl.sum(moved, 1) - tl.sum(moved, 0) - of_leaves
        of_total += of_entered * tl.where(own == former, tl.exp(total), 0.0)
        of_total += tl.where(at == SIZE - 1, tl.sum(of_leaves, 0), 0.0)
        tl.store(grad_decay + head * SIZE + at, tl.cumsum(of_total, 0, reverse=True))
    tl.store(grad_kk + pair * SIZE * SIZE + tile, of_kk)
    tl.store(grad_qk + pair * SIZE * SIZE + tile, of_qk)
