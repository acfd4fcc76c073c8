"""Attention of one new token in each of several rows over the keys and values before it.

A cache holds the keys and values of each row at fixed addresses, so that a step can be captured as
a CUDA graph. The new token's are written into it on the way.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from trainer.kernels._triton import jit, next_power_of_2, tl

BLOCK = 64  # keys that a program looks at together


@dataclass(frozen=True)
class Rows:
    """How many tokens of each row are in the cache before the new one: int64 [B]. No row has more
    than `longest` with it."""

    lengths_B: torch.Tensor
    longest: int

    @cached_property
    def mask_B11L(self) -> torch.Tensor:
        """Which of the first `longest` places each new token may look at."""
        places = torch.arange(self.longest, device=self.lengths_B.device)
        return (places <= self.lengths_B[:, None])[:, None, None]


def reference(
    q_BHD: torch.Tensor,
    k_BKD: torch.Tensor,
    v_BKD: torch.Tensor,
    keys_RLKD: torch.Tensor,
    values_RLKD: torch.Tensor,
    rows: Rows,
) -> torch.Tensor:
    """[B, H, D]. `k_BKD` and `v_BKD` are written into the first B of R rows of the cache. Tokens of
    all three may be any stride apart."""
    count, heads, size = q_BHD.shape
    number = torch.arange(count, device=q_BHD.device)
    keys_RLKD[number, rows.lengths_B] = k_BKD
    values_RLKD[number, rows.lengths_B] = v_BKD
    # Heads that share keys stand where other attention has the queries of several tokens.
    q_BKGD = q_BHD.reshape(count, k_BKD.shape[1], -1, size)
    keys, values = (c[:count, : rows.longest].transpose(1, 2) for c in (keys_RLKD, values_RLKD))
    out = F.scaled_dot_product_attention(q_BKGD, keys, values, attn_mask=rows.mask_B11L)
    return out.reshape(count, heads, size)


def fused(
    q_BHD: torch.Tensor,
    k_BKD: torch.Tensor,
    v_BKD: torch.Tensor,
    keys_RLKD: torch.Tensor,
    values_RLKD: torch.Tensor,
    rows: Rows,
) -> torch.Tensor:
    count, heads, size = q_BHD.shape
    kv_heads = k_BKD.shape[1]
    out = torch.empty(q_BHD.shape, dtype=q_BHD.dtype, device=q_BHD.device)
    _attend[(count, heads)](
        q_BHD,
        k_BKD,
        v_BKD,
        keys_RLKD,
        values_RLKD,
        rows.lengths_B,
        out,
        q_BHD.stride(0),
        k_BKD.stride(0),
        v_BKD.stride(0),
        keys_RLKD.stride(0),
        heads,
        kv_heads,
        size,
        size**-0.5,
        GROUP=heads // kv_heads,
        SIZE=next_power_of_2(size),
        BLOCK=BLOCK,
        num_warps=4,
    )
    return out


@jit
def _attend(
    q, k, v, keys, values, lengths, out, q_stride, k_stride, v_stride, row_stride, heads, kv_heads,
    size, scale, GROUP: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    kv_head = head // GROUP
    column = tl.arange(0, SIZE)
    inside = column < size
    length = tl.load(lengths + row)
    own = (row * heads + head) * size + column
    query = tl.load(q + row * q_stride + head * size + column, mask=inside, other=0.0)
    query = query.to(tl.float32) * scale
    key = tl.load(k + row * k_stride + kv_head * size + column, mask=inside, other=0.0)
    value = tl.load(v + row * v_stride + kv_head * size + column, mask=inside, other=0.0)
    first = row * row_stride + kv_head * size
    step = kv_heads * size
    if head % GROUP == 0:
        place = first + length * step + column
        tl.store(keys + place, key, mask=inside)
        tl.store(values + place, value, mask=inside)
    # The sums begin with the new token, which the cache may not show to this program yet.
    most = tl.sum(query * key.to(tl.float32))
    total = most * 0.0 + 1.0
    sums = value.to(tl.float32)
    for start in range(0, length, BLOCK):
        token = start + tl.arange(0, BLOCK)
        before = token < length
        at = first + token.to(tl.int64)[:, None] * step + column[None, :]
        both = before[:, None] & inside[None, :]
        block = tl.load(keys + at, mask=both, other=0.0).to(tl.float32)
        score = tl.where(before, tl.sum(block * query[None, :], 1), float("-inf"))
        highest = tl.maximum(most, tl.max(score))
        weight = tl.exp(score - highest)
        shrink = tl.exp(most - highest)
        block = tl.load(values + at, mask=both, other=0.0).to(tl.float32)
        sums = sums * shrink + tl.sum(block * weight[:, None], 0)
        total = total * shrink + tl.sum(weight)
        most = highest
    tl.store(out + own, (sums / total).to(out.dtype.element_ty), mask=inside)
