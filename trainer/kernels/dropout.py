"""Dropout whose mask is never stored: a hash of a seed and the element's index.

The mask is the same when the layer is computed again. Where nothing is computed again and the
device is a CPU, torch's own generator draws it in the order in which the stock model does.
"""

from dataclasses import dataclass

import torch

from trainer.kernels._triton import cdiv, jit, tl

BLOCK = 2048


@dataclass(frozen=True)
class Seed:
    """What decides a mask: a random int64 [1] of the micro-batch, whose mask it is, and the index
    of its first element among those of all rows."""

    random: torch.Tensor
    salt: int
    first: int = 0


Mask = torch.Tensor | Seed


def draw(x_MH: torch.Tensor, p: float) -> torch.Tensor:
    """A mask already scaled by 1 / (1 - p), from torch's default generator."""
    return torch.empty_like(x_MH).bernoulli_(1 - p).div_(1 - p)


def keeps(seed: Seed, size: int, p: float) -> torch.Tensor:
    """The mask of `fused` as bool [size], in plain torch: the truth that its test compares with."""
    start = seed.first + int(seed.random) * 0x9E3779B1 & _U32
    state = torch.arange(size, dtype=torch.int64) + start
    return (_mix((state & _U32) ^ _spread(seed.salt)) >> 8) >= int(p * 2**24)


_U32 = 0xFFFFFFFF


def _spread(salt: int) -> int:
    return salt * 0x85EBCA6B & _U32


def _mix(x: torch.Tensor) -> torch.Tensor:
    """A 32-bit finaliser with low bias, by Chris Wellons' search (constants of `lowbias32`)."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _U32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _U32
    return x ^ (x >> 16)


def reference(x_MH: torch.Tensor, mask: Mask, p: float) -> torch.Tensor:
    return x_MH * _scaled(mask, x_MH, p)


def reference_add(
    out_MH: torch.Tensor, grad_MH: torch.Tensor, mask: Mask, p: float
) -> torch.Tensor:
    """`out_MH` plus the gradient that passes the mask, in place."""
    return out_MH.addcmul_(grad_MH, _scaled(mask, grad_MH, p))


def _scaled(mask: Mask, like: torch.Tensor, p: float) -> torch.Tensor:
    if isinstance(mask, torch.Tensor):
        return mask
    kept = keeps(mask, like.numel(), p).view(like.shape).to(like.device)
    return kept.to(like.dtype) / (1 - p)


def fused(x_MH: torch.Tensor, mask: Mask, p: float) -> torch.Tensor:
    out = torch.empty_like(x_MH)
    _launch(x_MH, out, mask, p, add=False)
    return out


def fused_add(out_MH: torch.Tensor, grad_MH: torch.Tensor, mask: Mask, p: float) -> torch.Tensor:
    _launch(grad_MH, out_MH, mask, p, add=True)
    return out_MH


def _launch(x: torch.Tensor, out: torch.Tensor, mask: Mask, p: float, *, add: bool) -> None:
    assert isinstance(mask, Seed)
    size = x.numel()
    _drop[(cdiv(size, BLOCK),)](
        x,
        out,
        mask.random,
        _spread(mask.salt),
        mask.first,
        size,
        int(p * 2**24),
        1 / (1 - p),
        ADD=add,
        BLOCK=BLOCK,
        num_warps=8,
    )


@jit
def _drop(
    x, out, random, salt, first, size, threshold, scale, ADD: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    state = (at + first).to(tl.uint32) + tl.load(random).to(tl.uint32) * 0x9E3779B1
    state = state ^ salt.to(tl.uint32)
    state = (state ^ (state >> 16)) * 0x7FEB352D
    state = (state ^ (state >> 15)) * 0x846CA68B
    state = state ^ (state >> 16)
    kept = (state >> 8).to(tl.int32) >= threshold
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.where(kept, value * scale, 0.0)
    if ADD:
        value += tl.load(out + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)
