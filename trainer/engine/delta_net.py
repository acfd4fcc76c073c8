"""Gated delta rule (Yang et al. 2024) in the place of attention: what Qwen3.5 mixes tokens with.

Plain torch, chunk by chunk, in float32. Its backward pass is autograd's, over this piece alone and
computed again for it, so that nothing of it is kept but what the projections gave.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F

from trainer.kernels.attention import Documents
from trainer.planner.model_shape import CHUNK

EPSILON = 1e-6  # of the length of q and k


@dataclass(frozen=True)
class DeltaNet:
    """The frozen tensors of one mixer: a convolution of W taps over C = 2 K D + V E channels, decay
    and step of each of V heads, and the norm behind it."""

    convolution_CW: torch.Tensor
    log_decay_V: torch.Tensor
    bias_V: torch.Tensor
    norm_E: torch.Tensor
    epsilon: float
    key_heads: int
    key_size: int

    @property
    def key_width(self) -> int:
        return self.key_heads * self.key_size

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the products that it is given: q, k and v in one, gate, step and decay."""
        heads = len(self.log_decay_V)
        values = heads * len(self.norm_E)
        return 2 * self.key_width + values, values, heads, heads


def mix(net: DeltaNet, products: Sequence[torch.Tensor], where: Documents) -> torch.Tensor:
    """[M, V E] from products [M, …] of `net.widths`; no document sees another."""
    with torch.autocast(products[0].device.type, enabled=False):  # a trainer's would halve float32
        return _mixed(net, products, where)


def _mixed(net: DeltaNet, products: Sequence[torch.Tensor], where: Documents) -> torch.Tensor:
    both_MC, gate_MO, step_MV, decay_MV = products
    heads, size = len(net.log_decay_V), net.key_size
    token = torch.arange(len(both_MC), device=both_MC.device, dtype=where.starts.dtype)
    document = torch.searchsorted(where.starts, token, right=True) - 1
    position = token - where.starts[document]
    chunks = [-(-length // CHUNK) for length in where.starts.diff().tolist()]
    first = torch.tensor([*accumulate(chunks, initial=0)], device=token.device)
    place = first[document] * CHUNK + position

    def in_chunks(x_MV: torch.Tensor) -> torch.Tensor:
        """[chunks, V, CHUNK, …], float32, with zeros behind each document."""
        zeros = x_MV.new_zeros(sum(chunks) * CHUNK, *x_MV.shape[1:], dtype=torch.float32)
        out: torch.Tensor = zeros.index_put((place,), x_MV.float()).unflatten(0, (-1, CHUNK))
        return out.transpose(1, 2)

    q, k, v = _convolved(net, both_MC, position).split(
        (net.key_width, net.key_width, heads * len(net.norm_E)), dim=-1
    )
    q, k = (
        _of_length_one(x.unflatten(-1, (-1, size)).float()).repeat_interleave(
            heads // net.key_heads, dim=1
        )
        for x in (q, k)
    )
    decay = -net.log_decay_V.float().exp() * F.softplus(decay_MV.float() + net.bias_V)
    made = gated_delta_rule(
        in_chunks(q * size**-0.5),
        in_chunks(k),
        in_chunks(v.unflatten(-1, (heads, -1))),
        in_chunks(decay),
        in_chunks(step_MV.sigmoid()),
        chunks,
    )
    out_MVE = made.transpose(1, 2).flatten(0, 1)[place].to(both_MC.dtype)
    wide = out_MVE.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + net.epsilon)
    gated: torch.Tensor = net.norm_E * wide.to(out_MVE.dtype)
    gated = gated * F.silu(gate_MO.view_as(wide).float())
    out: torch.Tensor = gated.to(out_MVE.dtype).flatten(1)
    return out


def gated_delta_rule(
    q_NVTD: torch.Tensor,
    k_NVTD: torch.Tensor,
    v_NVTE: torch.Tensor,
    decay_NVT: torch.Tensor,
    step_NVT: torch.Tensor,
    chunks: Sequence[int],
) -> torch.Tensor:
    """[N, V, T, E] of N chunks of T tokens, float32, so many of them for each document.

    Each head has a state S [D, E]. A token makes it S' = exp(decay) S, then S' + k step (v - k S'),
    and is given q S. Inside a chunk the steps solve a triangular system.
    """
    q, k, v, tokens = q_NVTD, k_NVTD, v_NVTE, q_NVTD.shape[2]
    total = decay_NVT.cumsum(-1)
    lower = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).tril()
    between = (total[..., None] - total[..., None, :]).masked_fill(~lower, -torch.inf).exp()
    weighted = k * step_NVT[..., None]
    system = (weighted @ k.mT * between).tril(-1)
    given = torch.cat((v * step_NVT[..., None], weighted * total.exp()[..., None]), -1)
    solved = torch.linalg.solve_triangular(system, given, upper=False, unitriangular=True)
    values, keys = solved.split((v.shape[-1], k.shape[-1]), dim=-1)
    inside = q @ k.mT * between
    asked, last = q * total.exp()[..., None], total[..., -1:]
    told, kept = k * (last - total).exp()[..., None], last[..., None].exp()
    made: list[torch.Tensor] = []
    order: list[int] = []
    starts = list(accumulate(chunks, initial=0))
    longest_first = sorted(range(len(chunks)), key=lambda number: -chunks[number])
    state = q.new_zeros(len(chunks), q.shape[1], q.shape[3], v.shape[3])
    for n in range(max(chunks, default=0)):
        numbers = [starts[at] + n for at in longest_first if chunks[at] > n]
        at = torch.tensor(numbers, device=q.device)
        state = state[: len(numbers)]
        new = values[at] - keys[at] @ state
        made.append(asked[at] @ state + inside[at] @ new)
        order += numbers
        state = state * kept[at] + told[at].mT @ new
    back = torch.tensor(order, device=q.device).argsort()
    return torch.cat(made)[back]


def _convolved(net: DeltaNet, x_MC: torch.Tensor, position_M: torch.Tensor) -> torch.Tensor:
    """Each channel by its own taps, over the tokens before it in its document."""
    taps = net.convolution_CW.to(x_MC.dtype).t().flip(0)
    out = x_MC * taps[0]
    for back in range(1, len(taps)):
        seen = (position_M >= back)[:, None]
        out = out + F.pad(x_MC, (0, 0, back, 0))[: len(x_MC)] * seen * taps[back]
    return F.silu(out)


def _of_length_one(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + EPSILON)
