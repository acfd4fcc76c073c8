"""What one micro-batch consists of, and what its forward pass saves for its backward pass.

What is saved here is counted in `planner/memory_plan.py`; tests/planner/test_memory_plan.py
compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from trainer.engine.weights import LoraKey, Rotation
from trainer.kernels.attention import Attended, Documents


@dataclass(frozen=True)
class Inputs:
    """One micro-batch; int64 [B, T] each."""

    input_ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    position_ids_BT: torch.Tensor
    where: Documents

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return self.input_ids_BT, self.labels_BT, self.position_ids_BT


@dataclass
class Batch:
    """What every layer of one micro-batch shares."""

    where: Documents
    rotations: dict[str, Rotation]  # by the layers' `rope`
    adapter: Mapping[LoraKey, torch.Tensor]  # in the compute dtype
    drops: bool
    random: torch.Tensor | None  # int64 [1]: decides its dropout; None where torch draws it
    gradients: dict[LoraKey, torch.Tensor] = field(default_factory=dict)  # float32
    rows: int = 1  # none of its documents is in two of them

    def add(self, key: LoraKey, gradient: torch.Tensor) -> None:
        former = self.gradients.get(key)
        self.gradients[key] = gradient if former is None else former.add_(gradient)


@dataclass
class LayerActivations:
    """What the forward pass of one layer leaves to its backward pass.

    Dictionaries have the number of a linear layer as their key.
    """

    x_MH: torch.Tensor | None
    attended: Attended | None = None
    q_MHD: torch.Tensor | None = None  # as attention saw it, rotated
    k_MKD: torch.Tensor | None = None
    v_MKD: torch.Tensor | None = None
    gate_MHD: torch.Tensor | None = None  # of what attention gives
    products: tuple[torch.Tensor, ...] | None = None  # what a `DeltaNet` is given
    unnormed: tuple[torch.Tensor, torch.Tensor] | None = None  # q and k before their norms
    attention_out_MH: torch.Tensor | None = None  # what a norm behind attention is given
    middle_MH: torch.Tensor | None = None
    gate_MI: torch.Tensor | None = None
    up_MI: torch.Tensor | None = None
    routed: Any = None  # a `mixture.Routed`: which experts a token was sent to
    mlp_out_MH: torch.Tensor | None = None  # what a norm behind the feed-forward network is given
    masks: dict[int, torch.Tensor] = field(default_factory=dict)  # those that torch has drawn
    first_row: int = 0  # of the slice that goes through the feed-forward network
    lora_ax: dict[int, torch.Tensor] = field(default_factory=dict)  # A x of each adapter, [M, r]


@dataclass
class DecoderActivations:
    """What the forward pass leaves to the backward pass."""

    batch: Batch
    loss: torch.Tensor
    layers: list[LayerActivations]
    x_MH: torch.Tensor  # input of the last norm
    grad_MH: torch.Tensor  # gradient at its output, of the sum of losses
