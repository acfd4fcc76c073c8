"""What one micro-batch carries from part to part, and from its forward to its backward pass."""

from dataclasses import dataclass, field

import torch

from trainer.kernels.attention import Attended, Documents


@dataclass
class Batch:
    """What every layer of one micro-batch shares."""

    where: Documents
    cos_MD: torch.Tensor
    sin_MD: torch.Tensor
    halves: dict[int, torch.Tensor]  # of the adapter, in the compute dtype
    drops: bool
    random: torch.Tensor | None  # int64 [1]: decides its dropout; None where torch draws it
    gradients: dict[int, torch.Tensor] = field(default_factory=dict)

    def add(self, parameter: torch.nn.Parameter, gradient: torch.Tensor) -> None:
        former = self.gradients.get(id(parameter))
        self.gradients[id(parameter)] = gradient if former is None else former.add_(gradient)


@dataclass
class Saved:
    """What the forward pass of one layer leaves to its backward pass."""

    x_MH: torch.Tensor | None
    attended: Attended | None = None
    q_MHD: torch.Tensor | None = None  # as attention saw it, rotated
    k_MKD: torch.Tensor | None = None
    v_MKD: torch.Tensor | None = None
    unrotated: tuple[torch.Tensor, torch.Tensor] | None = None  # before Qwen3's norms
    middle_MH: torch.Tensor | None = None
    gate_MI: torch.Tensor | None = None
    up_MI: torch.Tensor | None = None
    masks: dict[int, torch.Tensor] = field(default_factory=dict)  # those that torch has drawn
    first_row: int = 0  # of the part that goes through the feed-forward network
    lowered: dict[int, torch.Tensor] = field(default_factory=dict)  # A x of each adapter


@dataclass
class Passed:
    """What the forward pass leaves to the backward pass."""

    batch: Batch
    loss: torch.Tensor
    saved: list[Saved]
    x_MH: torch.Tensor  # input of the last norm
    grad_MH: torch.Tensor  # gradient at its output, of the sum of losses
