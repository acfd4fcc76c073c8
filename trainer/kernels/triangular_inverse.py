"""The inverse of a small matrix with ones on its diagonal and nothing above, by substitution."""

import torch

from trainer.kernels._triton import jit, tl


def reference(lower_XTT: torch.Tensor) -> torch.Tensor:
    """(I + L)^-1 [..., T, T] in float32 of what is below the diagonal of `lower_XTT`."""
    size = lower_XTT.shape[-1]
    one = torch.eye(size, dtype=lower_XTT.dtype, device=lower_XTT.device).expand_as(lower_XTT)
    made: torch.Tensor = torch.linalg.solve_triangular(
        lower_XTT, one, upper=False, unitriangular=True
    )
    return made


def fused(lower_XTT: torch.Tensor) -> torch.Tensor:
    """T has to be a power of two."""
    given, size = lower_XTT.contiguous(), lower_XTT.shape[-1]
    out = torch.empty_like(given)
    _invert[(given.numel() // size**2,)](given, out, SIZE=size, num_warps=2)
    return out


@jit
def _invert(lower, out, SIZE: tl.constexpr):
    """Row by row: each is its own of the identity, less what those above it give."""
    first = tl.program_id(0).to(tl.int64) * SIZE * SIZE
    at = tl.arange(0, SIZE)
    row, column = at[:, None], at[None, :]
    made = tl.where(row == column, 1.0, 0.0)
    for number in range(1, SIZE):
        weight = tl.load(lower + first + number * SIZE + at, mask=at < number, other=0.0)
        made -= tl.where(row == number, tl.sum(weight[:, None] * made, 0)[None, :], 0.0)
    tl.store(out + first + row * SIZE + column, made)
