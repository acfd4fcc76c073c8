"""What N workers would take together: time, GPU hours, and what goes over the network.

Nothing is trained: sizes of the model, the plan of one worker, and the rates in `gpus`.
"""

from dataclasses import dataclass
from math import ceil

from trainer.planner.choose import Execution
from trainer.planner.memory_plan import HALF
from trainer.runtime.nf4 import NF4_BYTES

SUM_BYTES = 8  # bytes of a gradient on its way: float64, see `distributed.data_parallel`


@dataclass(frozen=True)
class ScalingEstimate:
    """`workers` that are alike and train `step_blocks` blocks in each step."""

    execution: Execution
    workers: int
    step_blocks: int
    block_tokens: int
    trainable: int
    linear_parameters: int
    parameters: int

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step that a worker computes; all wait for the one with most."""
        return ceil(ceil(self.step_blocks / self.execution.blocks) / self.workers)

    @property
    def tokens_per_s(self) -> float:
        """Of all together, as long as the network takes no time."""
        tokens = self.micro_batches * self.execution.blocks * self.block_tokens
        step_s = tokens / self.execution.tokens_per_s
        return self.step_blocks * self.block_tokens / step_s

    @property
    def gradient_bytes(self) -> float:
        """What one worker sends in a step for the sum of gradients, and receives: a ring."""
        return 2 * (self.workers - 1) / self.workers * self.trainable * SUM_BYTES

    @property
    def gather_bytes(self) -> float:
        """The same for gathering the layers of a sharded base, forward and backward."""
        shards = self.execution.plan.base_shards if self.execution.plan else 1
        once = (shards - 1) / shards * self.linear_parameters * NF4_BYTES
        return 2 * self.micro_batches * once

    @property
    def fetched_bytes(self) -> int:
        """Of the base in 16 bits, by each worker."""
        return self.parameters * HALF

    def hours(self, tokens: int) -> float:
        return tokens / self.tokens_per_s / 3600

    def gbit_per_s(self, share: float) -> float:
        """Of the network in each direction, to take `share` of the time that computing takes."""
        step_s = self.step_blocks * self.block_tokens / self.tokens_per_s
        return (self.gradient_bytes + self.gather_bytes) * 8 / 1e9 / (share * step_s)
