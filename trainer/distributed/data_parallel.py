"""How the blocks of a step are shared among workers, and how what they found is added up.

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

    All workers have equally many in each step, so that none waits for a word that never comes; an
    empty one is where others have one more.
    """

    def __init__(
        self, blocks: int, *, effective: int, micro_batch: int, seed: int, workers: Workers
    ) -> None:
        """Raises SettingsError when a step has fewer micro-batches than there are workers."""
        self._blocks, self._effective, self._micro_batch = blocks, effective, micro_batch
        self._seed, self._workers, self._epoch = seed, workers, 0
        if ceil(effective / micro_batch) < workers.size:
            raise SettingsError(
                f"QLORA_EFFECTIVE_BATCH_SIZE={effective} in micro-batches of {micro_batch} is too "
                f"little for {workers.size} workers; raise it, lower QLORA_BATCH_SIZE or start "
                "fewer workers"
            )

    @property
    def per_step(self) -> int:
        """Micro-batches of one worker in a whole step."""
        return self._slots(self._effective)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        steps, rest = divmod(self._blocks, self._effective)
        return steps * self.per_step + self._slots(rest)

    def __iter__(self) -> Iterator[list[int]]:
        shuffled = torch.Generator().manual_seed(self._seed + self._epoch)
        order = torch.randperm(self._blocks, generator=shuffled).tolist()
        for step in _cut(order, self._effective):
            parts = _cut(step, self._micro_batch)
            for slot in range(self._slots(len(step))):
                number = slot * self._workers.size + self._workers.rank
                yield parts[number] if number < len(parts) else []

    def _slots(self, blocks: int) -> int:
        return ceil(ceil(blocks / self._micro_batch) / self._workers.size)


class GradientAccumulator:
    """The gradients and the loss of one optimizer step, over micro-batches and workers.

    In float64, where the order of adding does not show in what is rounded to float32 at the end.
    """

    def __init__(self, seed: int, workers: Workers) -> None:
        self._seed, self._workers = seed, workers
        self._sums: list[torch.Tensor] = []
        self._loss = torch.zeros((), dtype=torch.float64)
        self._step, self._slot = -1, 0

    def begin(self, step: int) -> None:
        """Seed the dropout of this worker's next micro-batch of optimizer step `step`."""
        if step != self._step:
            self._step, self._slot = step, 0
        number = self._slot * self._workers.size + self._workers.rank
        torch.manual_seed((self._seed << 32) + step * SEEDS_PER_STEP + number & (1 << 63) - 1)
        self._slot += 1

    def add(self, parameters: Sequence[torch.nn.Parameter], loss: torch.Tensor | None) -> None:
        """Take the gradients of a micro-batch over; None where this worker had no blocks."""
        if not self._sums:
            self._sums = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        if loss is not None:
            torch._foreach_add_(self._sums, [p.grad for p in parameters])  # type: ignore[misc]
            self._loss = self._loss.to(loss.device) + loss
        for parameter in parameters:
            parameter.grad = None

    def finish(
        self, parameters: Sequence[torch.nn.Parameter], *, stops: bool
    ) -> tuple[float, bool]:
        """Leave the gradients of the whole step; returns its loss and whether any worker stops."""
        # First: it notices who is gone, which the GPUs' own network may not.
        loss, stopping = self._workers.all_reduce_sum(self._loss.item(), stops)
        self._workers.add_up(self._sums)
        for parameter, total in zip(parameters, self._sums, strict=True):
            parameter.grad = total.float()
        self._sums, self._loss = [], torch.zeros((), dtype=torch.float64)
        return loss, stopping > 0


def _cut(blocks: list[int], size: int) -> list[list[int]]:
    return [blocks[first : first + size] for first in range(0, len(blocks), size)]
