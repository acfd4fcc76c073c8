"""Cross-entropy of next tokens, and its gradient in the same pass.

The gradient is of the sum of losses, so its entries stay near 1 and survive 16 bits; whoever
takes a mean scales what is computed from it.
"""

import torch

from trainer.kernels._triton import jit, next_power_of_2, tl
from trainer.labels import IGNORED

WIDEST = 8192


def reference(logits_CV: torch.Tensor, target_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss float32 [C], softmax minus one-hot [C, V]); both zero where the target is IGNORED."""
    wide = logits_CV.float()
    trained_C1 = (target_C != IGNORED)[:, None]
    picked_C1 = target_C.clamp(min=0)[:, None]
    normaliser_C1 = torch.logsumexp(wide, -1, keepdim=True)
    loss_C1 = (normaliser_C1 - wide.gather(1, picked_C1)) * trained_C1
    grad_CV = (wide - normaliser_C1).exp_()
    grad_CV.scatter_add_(1, picked_C1, -torch.ones_like(normaliser_C1))
    return loss_C1.squeeze(1), grad_CV.mul_(trained_C1).to(logits_CV.dtype)


def fused(logits_CV: torch.Tensor, target_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same; the gradient is written over `logits_CV`."""
    rows, columns = logits_CV.shape
    loss = torch.empty(rows, dtype=torch.float32, device=logits_CV.device)
    block = min(WIDEST, next_power_of_2(columns))
    warps = 16 if block > 2048 else 4
    _loss_and_gradient[(rows,)](
        logits_CV, target_C, loss, columns, IGNORED=IGNORED, BLOCK=block, num_warps=warps
    )
    return loss, logits_CV


@jit
def _loss_and_gradient(logits, target, loss, columns, IGNORED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    picked = tl.load(target + row)
    trained = picked != IGNORED
    start = logits + row * columns
    highest = -float("inf")
    total = 0.0
    for first in range(0, columns, BLOCK):
        at = first + tl.arange(0, BLOCK)
        chunk = tl.load(start + at, mask=at < columns, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(chunk))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(chunk - higher))
        highest = higher
    normaliser = highest + tl.log(total)
    own = tl.load(start + tl.where(trained, picked, 0)).to(tl.float32)
    tl.store(loss + row, tl.where(trained, normaliser - own, 0.0))
    tl.debug_barrier()  # `own` is read before its place is written
    for first in range(0, columns, BLOCK):
        at = first + tl.arange(0, BLOCK)
        chunk = tl.load(start + at, mask=at < columns, other=0.0).to(tl.float32)
        grad = tl.exp(chunk - normaliser) - tl.where(at == picked, 1.0, 0.0)
        grad = tl.where(trained, grad, 0.0)
        tl.store(start + at, grad.to(logits.dtype.element_ty), mask=at < columns)
