"""RMSNorm over the last axis (Zhang & Sennrich 2019), its statistics in float32."""

import torch

from trainer.kernels._triton import cdiv, jit, next_power_of_2, tl

TOGETHER = 1024  # values of narrow rows, such as heads, in one program


def reference(
    x_MH: torch.Tensor,
    weight_H: torch.Tensor,
    epsilon: float,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """In `dtype`, by itself that of x."""
    wide = x_MH.float()
    rstd = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    dtype = dtype or x_MH.dtype
    return (weight_H * (wide * rstd).to(dtype)).to(dtype)


def reference_backward(
    grad_MH: torch.Tensor,
    x_MH: torch.Tensor,
    weight_H: torch.Tensor,
    epsilon: float,
    residual_MH: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gradient of x in its dtype, plus `residual_MH` where given. The weight is frozen."""
    wide = x_MH.float()
    rstd = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    normed, scaled = wide * rstd, grad_MH.float() * weight_H.float()
    out = rstd * (scaled - normed * (scaled * normed).mean(-1, keepdim=True))
    if residual_MH is not None:
        out = out + residual_MH.float()
    return out.to(x_MH.dtype)


def fused(
    x_MH: torch.Tensor,
    weight_H: torch.Tensor,
    epsilon: float,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    rows, columns = x_MH.shape
    out = torch.empty_like(x_MH, dtype=dtype)
    block = next_power_of_2(columns)
    together = max(1, TOGETHER // block)
    _forward[(cdiv(rows, together),)](
        x_MH,
        weight_H,
        out,
        columns,
        epsilon,
        rows,
        ROWS=together,
        BLOCK=block,
        num_warps=_warps(together * block),
    )
    return out


def fused_backward(
    grad_MH: torch.Tensor,
    x_MH: torch.Tensor,
    weight_H: torch.Tensor,
    epsilon: float,
    residual_MH: torch.Tensor | None = None,
) -> torch.Tensor:
    rows, columns = x_MH.shape
    out = torch.empty_like(x_MH)
    block = next_power_of_2(columns)
    together = max(1, TOGETHER // block)
    _backward[(cdiv(rows, together),)](
        grad_MH,
        x_MH,
        weight_H,
        grad_MH if residual_MH is None else residual_MH,
        out,
        columns,
        epsilon,
        rows,
        RESIDUAL=residual_MH is not None,
        ROWS=together,
        BLOCK=block,
        num_warps=_warps(together * block),
    )
    return out


def _warps(block: int) -> int:
    return min(16, max(1, block // 512))


@jit
def _forward(x, weight, out, columns, epsilon, rows, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = row.to(tl.int64)[:, None] * columns + column[None, :]
    wide = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(wide * wide, 1) / columns + epsilon)
    normed = (wide * rstd[:, None]).to(out.dtype.element_ty).to(tl.float32)
    scale = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)
    tl.store(out + at, (normed * scale[None, :]).to(out.dtype.element_ty), mask=inside)


@jit
def _backward(
    grad, x, weight, residual, out, columns, epsilon, rows,
    RESIDUAL: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = row.to(tl.int64)[:, None] * columns + column[None, :]
    wide = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(wide * wide, 1) / columns + epsilon)[:, None]
    normed = wide * rstd
    scale = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32)
    scaled = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32) * scale[None, :]
    result = rstd * (scaled - normed * (tl.sum(scaled * normed, 1) / columns)[:, None])
    if RESIDUAL:
        result += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)
