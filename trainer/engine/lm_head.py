"""The end of a decoder: last norm, head and cross-entropy, and back; logits are never whole."""

from dataclasses import dataclass

import torch

from trainer.engine.feed_forward import slices
from trainer.kernels import Kernels
from trainer.labels import IGNORED


@dataclass(frozen=True)
class LmHead:
    """`weight` [V, H] may lie in host memory; `rows` tokens go through it at a time."""

    weight: torch.Tensor
    norm: torch.Tensor
    epsilon: float
    kernels: Kernels
    device: torch.device
    rows: int
    scale: float = 1.0
    """of the logits"""

    def loss(
        self, x_MH: torch.Tensor, labels_BT: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss sum, and its gradient at the normed hidden state [M, H]."""
        target_M = _next_tokens(labels_BT)
        if self.device.type == "cpu":  # where it costs nothing to know which rows are trained
            trained = target_M.ne(IGNORED).nonzero().flatten()
            loss, grad = self._rows_loss(x_MH[trained], target_M[trained])
            return loss, grad.new_zeros(x_MH.shape).index_copy_(0, trained, grad)
        return self._rows_loss(x_MH, target_M)

    def logits(self, x_MH: torch.Tensor) -> torch.Tensor:
        """Of the token after each, [M, V]."""
        normed = self._normed(x_MH)
        logits: torch.Tensor = normed @ self.weight.to(self.device, non_blocking=True).t()
        return logits if self.scale == 1 else logits.mul_(self.scale)

    def backward(
        self, grad_MH: torch.Tensor, x_MH: torch.Tensor, grad_loss: torch.Tensor
    ) -> torch.Tensor:
        """Gradient of `x_MH` from what `loss` gave, which is overwritten."""
        for rows in slices(len(grad_MH), self.rows):
            # In float32: the loss scale alone may be more than 16 bits hold.
            grad_MH[rows] = grad_MH[rows].float().mul_(grad_loss).to(grad_MH.dtype)
        grad: torch.Tensor = self.kernels.rms_norm_backward(grad_MH, x_MH, self.norm, self.epsilon)
        return grad

    def _normed(self, x_MH: torch.Tensor) -> torch.Tensor:
        """In the head's dtype."""
        normed: torch.Tensor = self.kernels.rms_norm(
            x_MH, self.norm, self.epsilon, self.weight.dtype
        )
        return normed

    def _rows_loss(
        self, x_MH: torch.Tensor, target_M: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        losses = [torch.zeros((), device=self.device)]
        grad_MH = torch.empty_like(x_MH, dtype=self.weight.dtype)
        head = self.weight.to(self.device, non_blocking=True)
        for rows in slices(len(x_MH), self.rows):
            normed = self._normed(x_MH[rows])
            logits = normed @ head.t()
            if self.scale != 1:
                logits.mul_(self.scale)
            loss, grad_logits = self.kernels.cross_entropy(logits, target_M[rows])
            torch.mm(grad_logits, head, out=grad_MH[rows])
            losses.append(loss.sum())
            del logits, grad_logits  # before the next ones are there
        if self.scale != 1:
            grad_MH.mul_(self.scale)
        return torch.stack(losses).sum(), grad_MH


def _next_tokens(labels_BT: torch.Tensor) -> torch.Tensor:
    """Target of each position: the label one to the right; the last of a row has none."""
    target = torch.full_like(labels_BT, IGNORED)
    target[:, :-1] = labels_BT[:, 1:]
    return target.flatten()
