"""A run from its newest checkpoint to its last step, and what it leaves."""

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from trainer.distributed.failures import OtherFailed
from trainer.errors import Interrupted, SettingsError, UnreachableError
from trainer.models.probe import probe
from trainer.monitoring.counting import waiting
from trainer.monitoring.prometheus import Metrics
from trainer.monitoring.step_log import StepRow, best_held_out, rows_of, seconds_of
from trainer.monitoring.trackers import Tracking
from trainer.planner import choose
from trainer.planner.choose import Execution
from trainer.runs.checkpoints import Checkpoints
from trainer.runtime import signals
from trainer.settings import Settings
from trainer.training.callback import StepAbandoned, TrainingCallback
from trainer.training.checkpoint_state import read_plan
from trainer.training.keep import KeptAdapter, candidate
from trainer.training.resumable_trainer import ResumableTrainer
from trainer.training.setup import TrainingSetup

log = logging.getLogger(__name__)

SAVING = "saving a checkpoint at the end of this step; a second signal ends at once"


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training run leaves beside the weights. `history` has one row a step.

    Seconds and tokens/s are of all starts of the run together, without what a kill made it repeat.
    """

    steps: int
    seconds: float
    tokens_per_s: float
    vram_peak_gib: float | None
    execution: Execution
    history: list[StepRow]
    planned_steps: int = 0
    """`steps` is less where it ended early"""
    measured_blocks: int = 0
    """held-out blocks whose loss `history` has"""
    earlier: KeptAdapter | None = None
    """of a step that may be better than the last one, which the model has; else None"""

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
    setup: TrainingSetup,
    *,
    replan_on_resume: Callable[[Execution], Execution],
    checkpoints: Checkpoints,
    metrics: Metrics,
    tracking: Tracking,
) -> TrainingResult:
    """Train the adapter of `setup` in place, from the newest valid checkpoint if there is one.

    Then memory is spent as in that checkpoint, or as `replan_on_resume` says where that no longer
    fits. Raises Interrupted (state saved), RejectedError on divergence, and what a checkpoint's
    push failed with.
    """
    setup, trainer, start = _made_ready(setup, replan_on_resume, checkpoints)
    callback = TrainingCallback(trainer, setup, checkpoints, metrics, tracking)
    trainer.add_callback(callback)
    if start is not None:
        log.info("resuming from checkpoint %s", start.name)
    if setup.device.kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    _run(trainer, callback, checkpoints, start)
    trainer.close()
    return _result(setup, trainer, callback)


@waiting("getting ready")
def _made_ready(
    setup: TrainingSetup,
    replan_on_resume: Callable[[Execution], Execution],
    checkpoints: Checkpoints,
) -> tuple[TrainingSetup, ResumableTrainer, Path | None]:
    """How it trains, by what, and behind which checkpoint."""
    setup = replace(setup, separate_documents=_probe(setup))
    trainer = ResumableTrainer(setup)
    start = _shared_start(setup, checkpoints, trainer)
    begun = read_plan(start) if start is not None else None
    if begun is not None and not begun.is_as(setup.execution):
        setup = replace(setup, execution=_execution_on_resume(begun, replan_on_resume))
        trainer.close()
        trainer = ResumableTrainer(setup)
    return setup, trainer, start


def _probe(setup: TrainingSetup) -> bool:
    return probe(
        setup.model,
        setup.settings.base_model,
        setup.blocks[0].input_ids,
        setup.execution.plan,
        setup.precision,
    )


def _run(
    trainer: ResumableTrainer,
    callback: TrainingCallback,
    checkpoints: Checkpoints,
    start: Path | None,
) -> None:
    """To the last step. A signal ends it in Interrupted, with the steps before it saved."""
    with signals.deferred(SAVING):
        try:
            with contextlib.suppress(StepAbandoned):
                trainer.train(resume_from_checkpoint=str(start) if start else None)
            checkpoints.finish()
        except OtherFailed:
            callback.save_completed_steps()
            checkpoints.finish()
            raise
        except UnreachableError as error:
            if not signals.requested():
                raise
            log.warning("the last checkpoint is on this disk only: %s", error)
        finally:
            callback.progress.close()
        if trainer.stop_requested and not signals.requested():
            raise Interrupted("a signal stopped another worker; start all again to go on")


def _result(
    setup: TrainingSetup, trainer: ResumableTrainer, callback: TrainingCallback
) -> TrainingResult:
    history = rows_of(trainer.state.log_history)
    on_gpu = setup.device.kind == "cuda"
    return TrainingResult(
        steps=trainer.state.global_step,
        seconds=seconds_of(history),
        tokens_per_s=history[-1]["tokens_per_s"],
        vram_peak_gib=max(row["memory_gib"] for row in history) if on_gpu else None,
        execution=setup.execution,
        history=history,
        planned_steps=trainer.state.max_steps,
        measured_blocks=callback.measured_blocks,
        earlier=candidate(trainer.best, history),
    )


def _execution_on_resume(
    begun: Execution, replan_on_resume: Callable[[Execution], Execution]
) -> Execution:
    """Memory may have become less, or more, since the run began."""
    execution = replan_on_resume(begun)
    if not execution.is_as(begun):
        log.warning(
            "the run began with micro-batches of %d blocks, in a way that does not fit any more: "
            "it will end in other last bits than a run that was never stopped",
            begun.blocks,
        )
    choose.log_execution(execution)
    return execution


def _shared_start(
    setup: TrainingSetup, checkpoints: Checkpoints, trainer: ResumableTrainer
) -> Path | None:
    """The checkpoint to go on from, which the first worker has; the others get a copy."""
    workers, settings = setup.workers, setup.settings
    start = _start(settings, checkpoints, trainer) if workers.is_main else None
    copied = settings.scratch_dir / workers.per_worker_name("handed-out")
    return workers.broadcast_folder(start, copied)


def _start(settings: Settings, checkpoints: Checkpoints, trainer: ResumableTrainer) -> Path | None:
    if settings.resume == "never":
        checkpoints.discard()
        return None
    start = checkpoints.newest(trainer.unusable)
    if start is None and settings.resume == "must":
        raise SettingsError(
            "QLORA_RESUME=must: this run has no valid checkpoint; use QLORA_RESUME=auto to start it"
        )
    return start
