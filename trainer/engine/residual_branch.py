"""What attention and feed-forward network share: norms, and how they join the residual stream."""

from dataclasses import dataclass

import torch

from trainer.engine.lora_linear import LinearPass
from trainer.engine.weights import Layer
from trainer.kernels import Kernels
from trainer.planner.memory_plan import MemoryPlan


@dataclass(frozen=True)
class ResidualBranch:
    """A branch of a layer, with what it is computed by."""

    linear: LinearPass
    kernels: Kernels
    plan: MemoryPlan

    def normed(self, weight: torch.Tensor | None, x: torch.Tensor, layer: Layer) -> torch.Tensor:
        """In the dtype of products; x where there is no norm."""
        if weight is None:
            return x
        normed: torch.Tensor = self.kernels.rms_norm(x, weight, layer.epsilon, self.linear.dtype)
        return normed

    def norm_backward(
        self,
        weight: torch.Tensor | None,
        grad: torch.Tensor,
        x: torch.Tensor,
        layer: Layer,
        residual: torch.Tensor,
    ) -> torch.Tensor:
        """Gradient of x from that of its norm, and of the residual stream beside it."""
        if weight is None:
            return grad.add_(residual)
        out: torch.Tensor = self.kernels.rms_norm_backward(grad, x, weight, layer.epsilon, residual)
        return out

    def joined(
        self, weight: torch.Tensor | None, made: torch.Tensor, x: torch.Tensor, layer: Layer
    ) -> torch.Tensor:
        """The residual stream `x` with what a branch has `made`, normed by `weight`. Without a
        norm `made` is overwritten."""
        normed = made
        if weight is not None:
            normed = self.kernels.rms_norm(made, weight, layer.epsilon, x.dtype)
        if layer.residual_scale != 1:
            normed.mul_(layer.residual_scale)
        return normed.add_(x)

    def branch_gradient(
        self,
        weight: torch.Tensor | None,
        grad: torch.Tensor,
        made: torch.Tensor | None,
        layer: Layer,
    ) -> torch.Tensor:
        """Gradient at what a branch has `made`, from the one of the residual stream."""
        if layer.residual_scale != 1:
            grad = grad * layer.residual_scale
        if weight is None:
            return grad
        out: torch.Tensor = self.kernels.rms_norm_backward(grad, made, weight, layer.epsilon)
        return out
