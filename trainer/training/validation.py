"""The held-out loss while a run trains: when it is measured, on what, and by which code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from trainer.dataset.collate import collate_for_engine, documents
from trainer.dataset.packing import Block
from trainer.engine.decoder import Engine
from trainer.evaluation.loss import held_out_loss
from trainer.labels import IGNORED

POINTS = 20  # of the curve
SHARE = 0.1  # of the blocks that are trained; a forward pass is about a third of a step


class HeldOutLoss:
    """A part of the held-out blocks, measured POINTS times in `steps` optimizer steps.

    It is small enough for all measurements together to cost a few percent of the training.
    """

    def __init__(self, blocks: Sequence[Block], *, steps: int, step_blocks: int) -> None:
        self._every = max(1, -(-steps // POINTS))
        self._last = steps
        most = max(1, int(SHARE * steps * step_blocks / min(steps, POINTS)))
        stride = -(-len(blocks) // most)  # blocks come longest content first: take of all lengths
        self._blocks = blocks[:: stride or 1]
        self.measured_blocks = len(self._blocks)

    def is_due(self, step: int) -> bool:
        return bool(self._blocks) and (step % self._every == 0 or step == self._last)

    def measure(self, model: Any, engine: Engine | None, micro_batch: int) -> float:
        """In nats a token, without dropout. Leaves the model and every random state as they are."""
        if engine is None:
            with _without_dropout(model):
                return held_out_loss(model, self._blocks)[0]
        total, tokens = torch.zeros((), device=engine.device), 0
        for start in range(0, len(self._blocks), micro_batch):
            batch = collate_for_engine([vars(b) for b in self._blocks[start : start + micro_batch]])
            tokens += int((batch["labels"][:, 1:] != IGNORED).sum())
            batch |= {n: t.to(engine.device) for n, t in batch.items() if n != "longest"}
            total += engine.held_out_sum(
                batch["input_ids"], batch["labels"], batch["position_ids"], documents(batch)
            )
        return float(total) / max(tokens, 1)


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    """Evaluation mode, and back to what each layer was in: dropout may be off in some."""
    was_training = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        yield
    finally:
        for name, module in model.named_modules():
            module.training = was_training[name]
