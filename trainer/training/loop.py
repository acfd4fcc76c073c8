"""A run from its newest checkpoint to its last step, and what it leaves."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trainer.dataset.packing import Block
from trainer.distributed.workers import OtherFailed, Workers
from trainer.errors import Interrupted, SettingsError, UnreachableError
from trainer.models.sharded_base import WholeBase
from trainer.monitoring.prometheus import Metrics
from trainer.monitoring.step_log import StepRow, best_held_out, rows_of, seconds_of
from trainer.monitoring.trackers import Tracking
from trainer.planner import choose
from trainer.planner.choose import Execution
from trainer.runs.checkpoints import Checkpoints
from trainer.runtime import signals
from trainer.runtime.device import Device, Precision
from trainer.settings import Settings
from trainer.training.callback import StepGivenUp, Watch
from trainer.training.checkpoint_state import read_plan
from trainer.training.resumable_trainer import ResumableTrainer
from trainer.training.trainer_factory import make_trainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

SAVING = "saving a checkpoint at the end of this step; a second signal ends at once"


@dataclass(frozen=True)
class Trained:
    """What a finished training run leaves beside the weights. `history` has one row a step.

    Seconds and tokens/s are of all starts of the run together, without what a kill made it repeat.
    """

    steps: int
    seconds: float
    tokens_per_s: float
    vram_peak_gib: float | None
    choice: Execution
    history: list[StepRow]

    @property
    def loss(self) -> float | None:
        """Mean training loss of the last tenth of the steps."""
        last = self.history[-max(1, len(self.history) // 10) :]
        losses = [row["loss"] for row in last if row["loss"] is not None]
        return sum(losses) / len(losses) if losses else None

    @property
    def best(self) -> StepRow | None:
        """The row with the least held-out loss."""
        return best_held_out(self.history)


def train(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    blocks: Sequence[Block],
    settings: Settings,
    *,
    held_out: Sequence[Block],
    precision: Precision,
    device: Device,
    choice: Execution,
    again: Callable[[Execution], Execution],
    checkpoints: Checkpoints,
    metrics: Metrics,
    tracking: Tracking,
    workers: Workers,
    frozen: WholeBase,
) -> Trained:
    """Train the adapter of `model` in place, from the newest valid checkpoint if there is one.

    Memory is spent as in `choice`, or as in the checkpoint where `again` finds that it still fits.
    Raises Interrupted (state saved), RejectedError on divergence, and what a checkpoint's push
    failed with.
    """

    def made(choice: Execution) -> ResumableTrainer:
        return make_trainer(
            model, tokenizer, blocks, settings, precision, device, choice, workers, frozen
        )

    trainer = made(choice)
    start = _start(settings, checkpoints, trainer) if workers.is_main else None
    start = workers.broadcast_folder(
        start, settings.scratch_dir / workers.per_worker_name("handed-out")
    )
    begun = read_plan(start) if start is not None else None
    if begun is not None and not begun.is_as(choice):
        choice = _as_begun(begun, again)
        if trainer.engine is not None:
            trainer.engine.close()
        trainer = made(choice)
    watch = Watch(trainer, settings, checkpoints, metrics, tracking, held_out)
    trainer.add_callback(watch)
    if start is not None:
        log.info("resuming from checkpoint %s", start.name)
    if device.kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with signals.deferred(SAVING):
        try:
            with contextlib.suppress(StepGivenUp):
                trainer.train(resume_from_checkpoint=str(start) if start else None)
            checkpoints.finish()
        except OtherFailed:
            watch.save_whole_steps()
            checkpoints.finish()
            raise
        except UnreachableError as error:
            if not signals.requested():
                raise
            log.warning("the last checkpoint is on this disk only: %s", error)
        finally:
            watch.progress.close()
        if trainer.stops and not signals.requested():
            raise Interrupted("a signal stopped another worker; start all again to go on")
    if trainer.engine is not None:
        trainer.engine.close()
    history = rows_of(trainer.state.log_history)
    return Trained(
        steps=trainer.state.global_step,
        seconds=seconds_of(history),
        tokens_per_s=history[-1]["tokens_per_s"],
        vram_peak_gib=(
            max(row["memory_gib"] for row in history) if device.kind == "cuda" else None
        ),
        choice=choice,
        history=history,
    )


def _as_begun(begun: Execution, again: Callable[[Execution], Execution]) -> Execution:
    """Memory may have become less, or more, since the run began."""
    choice = again(begun)
    if not choice.is_as(begun):
        log.warning(
            "the run began with micro-batches of %d blocks, in a way that does not fit any more: "
            "it will end in other last bits than a run that was never stopped",
            begun.blocks,
        )
    choose.log_execution(choice)
    return choice


def _start(settings: Settings, checkpoints: Checkpoints, trainer: ResumableTrainer) -> Path | None:
    """The checkpoint to go on from."""
    if settings.resume == "never":
        checkpoints.discard()
        return None
    start = checkpoints.newest(trainer.unusable)
    if start is None and settings.resume == "must":
        raise SettingsError(
            "QLORA_RESUME=must: this run has no valid checkpoint; use QLORA_RESUME=auto to start it"
        )
    return start
