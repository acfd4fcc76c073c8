"""What N workers would take together: time, GPU hours, and what goes over the network.

Nothing is trained: sizes of the model, the plan of one worker, and the rates in `plan`.
"""

from dataclasses import dataclass
from math import ceil

from trainer.planner.choose import Execution
from trainer.planner.memory_plan import HALF
from trainer.runtime.nf4 import NF4_BYTES

SUMMED = 8  # bytes of a gradient on its way: float64, see `shares`


@dataclass(frozen=True)
class ScalingEstimate:
    """`workers` that are alike and train `effective` blocks in each step."""

    choice: Execution
    workers: int
    effective: int
    block_tokens: int
    trainable: int
    linear_parameters: int
    parameters: int

    @property
    def slots(self) -> int:
        """Micro-batches of a step that a worker computes; all wait for the one with most."""
        return ceil(ceil(self.effective / self.choice.blocks) / self.workers)

    @property
    def tokens_per_s(self) -> float:
        """Of all together, as long as the network takes no time."""
        step_s = self.slots * self.choice.blocks * self.block_tokens / self.choice.tokens_per_s
        return self.effective * self.block_tokens / step_s

    @property
    def gradient_bytes(self) -> float:
        """What one worker sends in a step for the sum of gradients, and receives: a ring."""
        return 2 * (self.workers - 1) / self.workers * self.trainable * SUMMED

    @property
    def base_bytes(self) -> float:
        """The same for gathering the layers of a base in parts, forward and backward."""
        parts = self.choice.plan.parts if self.choice.plan else 1
        once = (parts - 1) / parts * self.linear_parameters * NF4_BYTES
        return 2 * self.slots * once

    @property
    def fetched_bytes(self) -> int:
        """Of the base in 16 bits, by each worker."""
        return self.parameters * HALF

    def hours(self, tokens: int) -> float:
        return tokens / self.tokens_per_s / 3600

    def gbit_per_s(self, share: float) -> float:
        """Of the network in each direction, to take `share` of the time that computing takes."""
        step_s = self.effective * self.block_tokens / self.tokens_per_s
        return (self.gradient_bytes + self.base_bytes) * 8 / 1e9 / (share * step_s)
