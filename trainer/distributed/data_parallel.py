"""Data parallelism: which blocks of a step each worker computes, and how gradients are reduced.

Micro-batch j of a step is worker j mod size's. With its own dropout seed, and gradients added in
float64, it does not matter who computed it: any number of workers ends in the same weights.
"""

from collections.abc import Iterator, Sequence
from math import ceil

import torch

from trainer.distributed.workers import Workers
from trainer.errors import SettingsError

SEEDS_PER_STEP = 1 << 16  # more micro-batches than a step has


class MicroBatchSampler(torch.utils.data.Sampler[list[int]]):
    """The micro-batches of one worker, epoch after epoch, as lists of block numbers.

    All workers have equally many in each step, so that none waits for a reduction that another
    never comes to; an empty one is where others have one more.
    """

    def __init__(
        self,
        blocks: int,
        *,
        effective_batch_size: int,
        micro_batch_size: int,
        seed: int,
        workers: Workers,
    ) -> None:
        """Of `blocks` in an epoch; both sizes are in blocks too.

        Raises SettingsError when a step has fewer micro-batches than there are workers.
        """
        self._blocks, self._seed, self._workers = blocks, seed, workers
        self._effective_batch_size = effective_batch_size
        self._micro_batch_size = micro_batch_size
        self._epoch = 0
        if ceil(effective_batch_size / micro_batch_size) < workers.size:
            raise SettingsError(
                f"QLORA_EFFECTIVE_BATCH_SIZE={effective_batch_size} in micro-batches of "
                f"{micro_batch_size} is too little for {workers.size} workers; raise it, lower "
                "QLORA_BATCH_SIZE or start fewer workers"
            )

    @property
    def micro_batches_per_step(self) -> int:
        """Of this worker, in a whole step: the steps of gradient accumulation."""
        return self._own_micro_batches(self._effective_batch_size)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        steps, rest = divmod(self._blocks, self._effective_batch_size)
        return steps * self.micro_batches_per_step + self._own_micro_batches(rest)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        shuffled = torch.randperm(self._blocks, generator=generator).tolist()
        for step in _batched(shuffled, self._effective_batch_size):
            micro_batches = _batched(step, self._micro_batch_size)
            for own in range(self._own_micro_batches(len(step))):
                number = own * self._workers.size + self._workers.rank
                yield micro_batches[number] if number < len(micro_batches) else []

    def _own_micro_batches(self, blocks: int) -> int:
        return ceil(ceil(blocks / self._micro_batch_size) / self._workers.size)


class GradientAccumulator:
    """The gradients and the loss of one optimizer step, over micro-batches and workers.

    In float64, where the order of adding does not show in what is rounded to float32 at the end.
    """

    def __init__(self, seed: int, workers: Workers) -> None:
        self._seed, self._workers = seed, workers
        self._sums: list[torch.Tensor] = []
        self._loss = torch.zeros((), dtype=torch.float64)
        self._step, self._own_micro_batch = -1, 0

    def seed_dropout(self, step: int) -> None:
        """Before each micro-batch of this worker's: its own seed within optimizer step `step`."""
        if step != self._step:
            self._step, self._own_micro_batch = step, 0
        number = self._own_micro_batch * self._workers.size + self._workers.rank
        seed = (self._seed << 32) + step * SEEDS_PER_STEP + number & (1 << 63) - 1
        # As `torch.manual_seed`, which looks for devices of four other kinds each time.
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)
        self._own_micro_batch += 1

    def add(self, parameters: Sequence[torch.nn.Parameter], loss: torch.Tensor | None) -> None:
        """Take the gradients of a micro-batch over; None where this worker had no blocks."""
        if not self._sums:
            self._sums = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        if loss is not None:
            torch._foreach_add_(self._sums, [p.grad for p in parameters])  # type: ignore[misc]
            self._loss = self._loss.to(loss.device) + loss
        for parameter in parameters:
            parameter.grad = None

    def all_reduce(
        self, parameters: Sequence[torch.nn.Parameter], *, stop_requested: bool
    ) -> tuple[float, bool]:
        """Leave the gradients of the whole step; returns its loss and whether any worker stops."""
        # First: it notices who is gone, which the GPUs' own network may not.
        loss, stopping = self._workers.all_reduce_sum(self._loss.item(), stop_requested)
        self._workers.all_reduce_tensors(self._sums)
        for parameter, total in zip(parameters, self._sums, strict=True):
            parameter.grad = total.float()
        self._sums, self._loss = [], torch.zeros((), dtype=torch.float64)
        return loss, stopping > 0


def _batched(blocks: list[int], size: int) -> list[list[int]]:
    return [blocks[first : first + size] for first in range(0, len(blocks), size)]
