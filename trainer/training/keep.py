"""Which step's adapter a run keeps, and when going on cannot give a better one.

The held-out loss proposes and the answers decide: on facts that are not trained the loss rises
while trained ones are still being learned. So the last step is kept, where the rate has decayed,
unless an earlier one had a clearly lower loss; then both are asked, and the better answers win.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.evaluation.choice import why_better
from trainer.evaluation.compare import Evaluation, Scores
from trainer.monitoring.step_log import StepRow, best_held_out, measured_rows
from trainer.runtime.log import figures
from trainer.training.checkpoint_state import trainable

log = logging.getLogger(__name__)

CLEARLY, CLEARLY_NATS = 0.02, 0.01  # losses that differ by less are alike
PATIENCE = 5  # measurements, of the twenty in a run
BY_HEART = 0.005  # nats a token of the training: every answer of such runs was known


@dataclass(frozen=True)
class KeptAdapter:
    """The adapter after an optimizer step, on the CPU, and the held-out loss that it had then."""

    step: int
    loss: float
    tensors: dict[str, torch.Tensor]

    @classmethod
    def of(cls, model: Any, step: int, loss: float) -> "KeptAdapter":
        """A copy of what `model` trains."""
        copied = {name: p.to("cpu", copy=True) for name, p in trainable(model).items()}
        return cls(step, loss, copied)

    def put_into(self, model: Any) -> None:
        with torch.no_grad():
            for name, parameter in trainable(model).items():
                parameter.copy_(self.tensors[name])


def is_clearly_better(loss: float, than: float) -> bool:
    """Of two losses in nats a token."""
    return loss < (1 - CLEARLY) * than and loss < than - CLEARLY_NATS


def is_over(history: Sequence[StepRow], *, teaches_answers: bool) -> bool:
    """Whether the steps so far, the last of which was measured, leave nothing to gain.

    Over the last PATIENCE measurements the held-out loss was clearly above its best while the
    training loss went on falling. One alone does not tell: while the rate is high both stand still,
    and fall when it decays. Where records teach answers, these are also known by heart: that
    improves answers when the held-out loss rises already.
    """
    best = best_held_out(history)
    if best is None:
        return False
    since = [row for row in measured_rows(history) if row["step"] > best["step"]]
    if len(since) < PATIENCE or not all(
        is_clearly_better(best["held_out_loss"], row["held_out_loss"]) for row in since[-PATIENCE:]
    ):
        return False
    between = since[-1]["step"] - since[-2]["step"]
    now, then = (_training_loss(history, at["step"], between) for at in (since[-1], best))
    return now < (1 - CLEARLY) * then and (now < BY_HEART or not teaches_answers)


def _training_loss(history: Sequence[StepRow], step: int, window: int) -> float:
    """Mean of the `window` steps up to this one."""
    losses = [row["loss"] for row in history if step - window < row["step"] <= step]
    finite = [loss for loss in losses if loss is not None]
    return sum(finite) / len(finite) if finite else float("inf")


def candidate(best: KeptAdapter | None, history: Sequence[StepRow]) -> KeptAdapter | None:
    """`best`, where it may be better than the adapter of the last step."""
    measured = measured_rows(history)
    if best is None or not measured or best.step == history[-1]["step"]:
        return None
    return best if is_clearly_better(best.loss, measured[-1]["held_out_loss"]) else None


@dataclass(frozen=True)
class Kept:
    """The adapter that is published: of which step, why, and how it did."""

    step: int
    reason: str
    evaluation: Evaluation


def keep_best(
    model: Any,
    earlier: KeptAdapter | None,
    judge: Callable[[Scores | None], Evaluation],
    *,
    last_step: int,
    keep: str,
) -> Kept:
    """The better one of the last adapter, which `model` has, and an `earlier` one, if any.

    `model` has it then. `judge` evaluates the adapter that the model has, given the base's scores
    where they are known. `keep` is QLORA_KEEP.
    """
    evaluation = judge(None)
    if earlier is None:
        reason = "QLORA_KEEP=last" if keep == "last" else "no earlier step had a clearly lower loss"
        return Kept(last_step, f"the last one; {reason}", evaluation)
    last = KeptAdapter.of(model, last_step, math.nan)
    name = evaluation.loss_name
    log.info("the %s was lowest at step %d: that adapter is evaluated too", name, earlier.step)
    earlier.put_into(model)
    other = judge(evaluation.base)
    why = why_better(other, evaluation)
    if why is not None:
        kept = Kept(earlier.step, f"{why} after step {last_step:,}", other)
    else:
        last.put_into(model)
        lost = why_better(evaluation, other) or "the answers are alike"
        kept = Kept(last_step, f"{lost} after step {earlier.step:,}", evaluation)
    log.info(
        "kept the adapter of step %d: %s", kept.step, kept.reason, extra=figures(kept=kept.step)
    )
    return kept
