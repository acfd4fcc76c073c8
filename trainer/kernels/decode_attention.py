"""Attention of one new token in each of several rows over the keys and values before it.

A cache holds the keys and values of each row at fixed addresses, so that a step can be captured as
a CUDA graph. The new token's are written into it on the way.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F

from trainer.kernels._triton import cdiv, jit, next_power_of_2, tl

# The fastest of 16 to 128 keys that a program looks at together, 1 to 8 warps, 1 to 3 stages, and
# 1 to 4 heads a program, on an H200: 3.6 TB/s where 64 keys and 4 warps read 2.2.
BLOCK, WARPS, STAGES = 16, 1, 2
PROGRAMS = 2048  # of one warp that keep a large GPU busy
LEAST_SPLIT = 64  # tokens of a row that are worth a program more
MOST_SPLITS = 32


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
    """Where few rows may be long, a row and head is divided among several programs, each of which
    knows its own maximum, sum and values; what they know is put together then (Flash-Decoding, Dao
    et al. 2023)."""
    count, heads, size = q_BHD.shape
    kv_heads = k_BKD.shape[1]
    out = torch.empty(q_BHD.shape, dtype=q_BHD.dtype, device=q_BHD.device)
    splits = _splits(count * heads, rows.longest)
    parts = sums = out
    if splits > 1:
        parts = out.new_empty((count, heads, splits, size), dtype=torch.float32)
        sums = out.new_empty((count, heads, splits, 2), dtype=torch.float32)
    _attend[(count, heads, splits)](
        q_BHD,
        k_BKD,
        v_BKD,
        keys_RLKD,
        values_RLKD,
        rows.lengths_B,
        out,
        parts,
        sums,
        q_BHD.stride(0),
        k_BKD.stride(0),
        v_BKD.stride(0),
        keys_RLKD.stride(0),
        size**-0.5,
        HEADS=heads,
        KV_HEADS=kv_heads,
        WIDTH=size,
        SIZE=next_power_of_2(size),
        BLOCK=BLOCK,
        SPLITS=splits,
        STAGES=STAGES,
        num_warps=WARPS,
    )
    if splits > 1:
        _join[(count * heads,)](
            parts, sums, out, WIDTH=size, SIZE=next_power_of_2(size), SPLITS=splits, num_warps=1
        )
    return out


def _splits(programs: int, longest: int) -> int:
    """Among how many programs each of the `programs` is divided: a power of two."""
    wanted = min(cdiv(PROGRAMS, programs), longest // LEAST_SPLIT, MOST_SPLITS)
    return next_power_of_2(wanted + 1) // 2 if wanted > 1 else 1


@jit
def _attend(
    q, k, v, keys, values, lengths, out, parts, stats, q_stride, k_stride, v_stride, row_stride,
    scale, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head, split = tl.program_id(1), tl.program_id(2)
    kv_head = head // (HEADS // KV_HEADS)
    column = tl.arange(0, SIZE)
    inside = column < WIDTH
    length = tl.load(lengths + row).to(tl.int32)
    query = tl.load(q + row * q_stride + head * WIDTH + column, mask=inside, other=0.0)
    query = query.to(tl.float32) * scale
    key = tl.load(k + row * k_stride + kv_head * WIDTH + column, mask=inside, other=0.0)
    value = tl.load(v + row * v_stride + kv_head * WIDTH + column, mask=inside, other=0.0)
    first = row * row_stride + kv_head * WIDTH
    keys, values = keys + first, values + first
    step = KV_HEADS * WIDTH
    if (head % (HEADS // KV_HEADS) == 0) & (split == 0):
        tl.store(keys + length * step + column, key, mask=inside)
        tl.store(values + length * step + column, value, mask=inside)
    # The sums of the first split begin with the new token, which the cache may not show yet.
    most = tl.sum(query * key.to(tl.float32))
    total = tl.where(split == 0, 1.0, 0.0)
    sums = value.to(tl.float32) * total
    each = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    end = tl.minimum((split + 1) * each, length)
    for start in tl.range(split * each, end, BLOCK, num_stages=STAGES):
        token = start + tl.arange(0, BLOCK)
        before = token < end
        at = token[:, None] * step + column[None, :]
        both = before[:, None] & inside[None, :]
        key_block = tl.load(keys + at, mask=both, other=0.0)
        value_block = tl.load(values + at, mask=both, other=0.0)
        score = tl.sum(key_block.to(tl.float32) * query[None, :], 1)
        score = tl.where(before, score, float("-inf"))
        highest = tl.maximum(most, tl.max(score))
        weight = tl.exp(score - highest)
        shrink = tl.exp(most - highest)
        sums = sums * shrink + tl.sum(value_block.to(tl.float32) * weight[:, None], 0)
        total = total * shrink + tl.sum(weight)
        most = highest
    at = row * HEADS + head
    if SPLITS == 1:
        tl.store(out + at * WIDTH + column, sums / total, mask=inside)
    else:
        at = at * SPLITS + split
        tl.store(parts + at * WIDTH + column, sums, mask=inside)
        tl.store(stats + at * 2, most)
        tl.store(stats + at * 2 + 1, total)


@jit
def _join(
    parts, stats, out, WIDTH: tl.constexpr, SIZE: tl.constexpr, SPLITS: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64)
    split = at * SPLITS + tl.arange(0, SPLITS)
    column = tl.arange(0, SIZE)
    inside = column < WIDTH
    most = tl.load(stats + split * 2)
    weight = tl.exp(most - tl.max(most))
    total = tl.sum(tl.load(stats + split * 2 + 1) * weight)
    places = split[:, None] * WIDTH + column[None, :]
    part = tl.load(parts + places, mask=inside[None, :] & (split[:, None] >= 0), other=0.0)
    sums = tl.sum(part * weight[:, None], 0) / total
    tl.store(out + at * WIDTH + column, sums.to(out.dtype.element_ty), mask=inside)
