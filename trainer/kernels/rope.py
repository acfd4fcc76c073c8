"""Rotary position embedding (Su et al. 2021) in place, halves rotated as in Llama."""

import torch

from trainer.kernels._triton import jit, next_power_of_2, tl


def reference(
    x_MHD: torch.Tensor, cos_MD: torch.Tensor, sin_MD: torch.Tensor, *, back: bool = False
) -> torch.Tensor:
    """`x_MHD` [tokens, heads, head size] rotated in place, its tokens any stride apart; `back`
    rotates the other way, which is the gradient. Both halves of `cos_MD` and of `sin_MD` are the
    same."""
    half = x_MHD.shape[-1] // 2
    cos, sin = cos_MD[:, None, :half].float(), sin_MD[:, None, :half].float()
    if back:
        sin = -sin
    first, second = x_MHD[..., :half].float(), x_MHD[..., half:].float()
    x_MHD[..., :half], x_MHD[..., half:] = (
        (first * cos - second * sin).to(x_MHD.dtype),
        (second * cos + first * sin).to(x_MHD.dtype),
    )
    return x_MHD


def fused(
    x_MHD: torch.Tensor, cos_MD: torch.Tensor, sin_MD: torch.Tensor, *, back: bool = False
) -> torch.Tensor:
    tokens, heads, size = x_MHD.shape
    _rotate[(tokens,)](
        x_MHD,
        cos_MD,
        sin_MD,
        x_MHD.stride(0),
        heads,
        size // 2,
        BACK=back,
        HEADS=next_power_of_2(heads),
        HALF=next_power_of_2(size // 2),
        num_warps=4,
    )
    return x_MHD


@jit
def _rotate(
    x,
    cos,
    sin,
    stride,
    heads,
    half,
    BACK: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (column < half)
    angle = token * 2 * half + column
    c = tl.load(cos + angle, mask=column < half, other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=column < half, other=0.0).to(tl.float32)
    if BACK:
        s = -s
    at = token * stride + head * 2 * half + column
    first = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + at + half, mask=inside, other=0.0).to(tl.float32)
    tl.store(x + at, (first * c - second * s).to(x.dtype.element_ty), mask=inside)
    tl.store(x + at + half, (second * c + first * s).to(x.dtype.element_ty), mask=inside)
