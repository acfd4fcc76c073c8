"""A convolution of each channel over the tokens before it in its document, and SiLU behind it."""

import torch
import torch.nn.functional as F

from trainer.kernels._triton import cdiv, jit, tl

BLOCK = 512  # channels of one token in one program


def reference(x_MC: torch.Tensor, taps_CW: torch.Tensor, position_M: torch.Tensor) -> torch.Tensor:
    """[M, C] in the dtype of x; the last tap is a token's own. `position_M` is where in its
    document a token stands: those before a document are not seen."""
    return F.silu(_summed(x_MC, taps_CW, position_M)).to(x_MC.dtype)


def reference_backward(
    grad_MC: torch.Tensor, x_MC: torch.Tensor, taps_CW: torch.Tensor, position_M: torch.Tensor
) -> torch.Tensor:
    """Gradient of x in its dtype. The taps are frozen."""
    summed = _summed(x_MC, taps_CW, position_M)
    sigmoid = summed.sigmoid()
    grad = grad_MC.float() * sigmoid * (1 + summed * (1 - sigmoid))
    taps = taps_CW.float().t().flip(0)
    out = grad * taps[0]
    for back in range(1, min(len(taps), len(grad))):
        out[:-back] += (grad * (position_M >= back)[:, None])[back:] * taps[back]
    return out.to(x_MC.dtype)


def _summed(x_MC: torch.Tensor, taps_CW: torch.Tensor, position_M: torch.Tensor) -> torch.Tensor:
    wide, taps = x_MC.float(), taps_CW.float().t().flip(0)
    out = wide * taps[0]
    for back in range(1, min(len(taps), len(wide))):
        out[back:] += wide[:-back] * (position_M >= back)[back:, None] * taps[back]
    return out


def fused(x_MC: torch.Tensor, taps_CW: torch.Tensor, position_M: torch.Tensor) -> torch.Tensor:
    (tokens, channels), out = x_MC.shape, torch.empty_like(x_MC)
    _forward[(tokens, cdiv(channels, BLOCK))](
        x_MC, taps_CW, position_M, out, channels, TAPS=taps_CW.shape[1], BLOCK=BLOCK
    )
    return out


def fused_backward(
    grad_MC: torch.Tensor, x_MC: torch.Tensor, taps_CW: torch.Tensor, position_M: torch.Tensor
) -> torch.Tensor:
    (tokens, channels), out = x_MC.shape, torch.empty_like(x_MC)
    _backward[(tokens, cdiv(channels, BLOCK))](
        grad_MC, x_MC, taps_CW, position_M, out, tokens, channels,
        TAPS=taps_CW.shape[1], BLOCK=BLOCK,
    )  # fmt: skip
    return out


@jit
def _forward(x, taps, position, out, channels, TAPS: tl.constexpr, BLOCK: tl.constexpr):
    token, channel = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    seen = tl.load(position + token)
    summed = tl.zeros((BLOCK,), tl.float32)
    for back in tl.static_range(TAPS):
        tap = tl.load(taps + channel * TAPS + TAPS - 1 - back, mask=inside, other=0.0)
        at = x + (token - back) * channels + channel
        value = tl.load(at, mask=inside & (seen >= back), other=0.0)
        summed += value.to(tl.float32) * tap.to(tl.float32)
    summed *= tl.sigmoid(summed)
    tl.store(out + token * channels + channel, summed.to(out.dtype.element_ty), mask=inside)


@jit
def _backward(
    grad, x, taps, position, out, tokens, channels, TAPS: tl.constexpr, BLOCK: tl.constexpr
):
    first, channel = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < channels
    total = tl.zeros((BLOCK,), tl.float32)
    for ahead in tl.static_range(TAPS):  # those whose sum this token is in
        token = first + ahead
        seen = tl.load(position + token, mask=token < tokens, other=-1)
        summed = tl.zeros((BLOCK,), tl.float32)
        for back in tl.static_range(TAPS):
            tap = tl.load(taps + channel * TAPS + TAPS - 1 - back, mask=inside, other=0.0)
            at = x + (token - back) * channels + channel
            value = tl.load(at, mask=inside & (seen >= back), other=0.0)
            summed += value.to(tl.float32) * tap.to(tl.float32)
        sigmoid = tl.sigmoid(summed)
        asked = inside & (seen >= ahead)
        given = tl.load(grad + token * channels + channel, mask=asked, other=0.0).to(tl.float32)
        given *= sigmoid * (1 + summed * (1 - sigmoid))
        tap = tl.load(taps + channel * TAPS + TAPS - 1 - ahead, mask=inside, other=0.0)
        total += given * tap.to(tl.float32)
    tl.store(out + first * channels + channel, total.to(out.dtype.element_ty), mask=inside)
