"""What happens at the end of each optimizer step: progress, divergence, checkpoints, signals."""

import logging
import math
import time
from typing import Any

from transformers import TrainerCallback

from trainer.dataset.holdout import HELD_OUT_LOSS
from trainer.monitoring.forecast import Forecast
from trainer.monitoring.progress import Progress
from trainer.monitoring.prometheus import Metrics
from trainer.monitoring.step_log import StepRow, best_held_out, recent_rate, rows_of, seconds_of
from trainer.monitoring.trackers import Tracking
from trainer.runs.checkpoints import Checkpoints
from trainer.runtime import signals
from trainer.runtime.device import memory_gib
from trainer.runtime.log import figures
from trainer.training.checkpoint_state import random_state
from trainer.training.divergence import DivergenceDetector
from trainer.training.keep import is_over
from trainer.training.resumable_trainer import ResumableTrainer
from trainer.training.setup import TrainingSetup
from trainer.training.validation import HeldOutLoss

log = logging.getLogger(__name__)


def first_step_sentence(on_gpu: bool) -> str:
    """Why nothing is heard for a while."""
    if on_gpu:
        return "the first step compiles kernels and captures graphs, which takes up to minutes"
    return "the first step begins; how long it takes says when the last will end"


class StepAbandoned(Exception):
    """A signal came in a step that takes longer than the grace period leaves."""


class TrainingCallback(TrainerCallback):  # type: ignore[misc]
    """Progress, divergence, checkpoints and signals, at the end of each optimizer step."""

    def __init__(
        self,
        trainer: ResumableTrainer,
        setup: TrainingSetup,
        checkpoints: Checkpoints,
        metrics: Metrics,
        tracking: Tracking,
    ) -> None:
        settings = setup.settings
        is_held_out = setup.loss_name == HELD_OUT_LOSS
        self.progress = Progress(settings.log_format, metrics, shows_held_out=is_held_out)
        self._trainer = trainer
        self._after = setup.afterwards
        self._on_gpu = setup.device.kind == "cuda"
        self._every = settings.checkpoint_every
        self._checkpoints = checkpoints
        self._step_blocks = setup.schedule.step_blocks
        self._block_tokens = settings.max_length
        self._epoch_blocks = len(setup.blocks)
        self._held_out_blocks = setup.held_out
        self._loss_name = setup.loss_name
        self._ends_early = setup.settings.keep == "best"
        self._teaches_answers = setup.teaches_answers
        self._tracking = tracking
        self._divergence = DivergenceDetector()
        self._micro_batches = 0
        self._rng = random_state()
        self._started = self._saved = self._step_started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved = time.monotonic()
        self._started = self._saved - seconds_of(state.log_history)
        self.progress.start(state.global_step, state.max_steps)
        self._forecast = Forecast(self._tokens, self._afterwards, state.max_steps)
        self._forecast.start(state.global_step, self._saved)
        if self._trainer.workers.is_main:
            log.info("%s", first_step_sentence(self._on_gpu))
        self._held_out = HeldOutLoss(
            self._held_out_blocks, steps=state.max_steps, step_blocks=self._step_blocks
        )
        if state.log_history:
            self._judge_resumed(state, state.log_history[-1])
        self._tracking.start(rows_of(state.log_history))

    @property
    def measured_blocks(self) -> int:
        """Of the held-out ones, those whose loss is measured in a run."""
        return self._held_out.measured_blocks

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._micro_batches = 0
        self._step_started = time.monotonic()

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step that would outlive the grace period is given up, and what was before it saved."""
        self._micro_batches += 1
        each_s = (time.monotonic() - self._step_started) / self._micro_batches
        left_s = each_s * (args.gradient_accumulation_steps - self._micro_batches)
        if left_s > signals.seconds_left() / 2:  # the other half is for the push
            self.save_completed_steps()
            raise StepAbandoned

    def save_completed_steps(self) -> None:
        """In the middle of a step: what was before it."""
        step = self._trainer.state.global_step
        if step > 0:
            self._save(step, self._rng)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for parameter in self._trainer.engine.parameters if self._trainer.engine else ():
            parameter.grad = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._should_stop():
            control.should_training_stop = True
        control.should_log = True

    def _should_stop(self) -> bool:
        """Of several workers all stop after the same step."""
        is_alone = self._trainer.workers.size == 1
        return self._trainer.stop_requested or (is_alone and signals.requested())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" not in logs:
            return
        seconds = time.monotonic() - self._started
        tokens_per_s = self._tokens(state.global_step) / seconds
        row = state.log_history[-1]
        row |= {"seconds": seconds, "tokens_per_s": tokens_per_s, "memory_gib": memory_gib()}
        self._divergence.step(logs["loss"], logs.get("grad_norm", math.nan))
        self._judge(state, row)
        self.progress.step(
            state.global_step,
            loss=logs["loss"],
            held_out_loss=row.get("held_out_loss"),
            learning_rate=logs["learning_rate"],
            tokens_per_s=recent_rate(state.log_history, self._tokens),
            seconds_left=self._forecast.step(state.global_step, time.monotonic()),
        )
        self._tracking.log(rows_of([row])[0])
        control.should_training_stop |= self._trainer.is_over
        self._save_if_due(state, control)

    def _tokens(self, steps: int) -> int:
        """Trained in so many steps, padding included; the last step of an epoch may be short."""
        epoch_steps = -(-self._epoch_blocks // self._step_blocks)
        epochs, rest = divmod(steps, epoch_steps)
        blocks = epochs * self._epoch_blocks + min(rest * self._step_blocks, self._epoch_blocks)
        return blocks * self._block_tokens

    def _afterwards(self, training_s: float, trained_s: float) -> str:
        if self._after is None:
            return "questions and checks"
        each_s = self._trainer.workers.size * trained_s  # the first does that alone
        return self._after.in_words(training_s, each_s, on_gpu=self._on_gpu)

    def _judge_resumed(self, state: Any, row: StepRow) -> None:
        """What a start that was killed has found, or had no time for when a signal came."""
        if "held_out_loss" not in row:
            self._judge(state, row)
        elif self._ends_early:
            self._trainer.is_over = self._is_over(state)

    def _judge(self, state: Any, row: StepRow) -> None:
        """Between two steps, and outside the training time. Not when there is little time left.

        All workers learn what the main one has found: they end after the same step.
        """
        if self._should_stop() or not self._held_out.is_due(state.global_step):
            return
        begin = time.monotonic()
        trainer = self._trainer
        # Workers that hold a shard of the base each measure together: a layer needs all of them.
        if trainer.workers.is_main or trainer.frozen_base.is_sharded:
            self._measure_held_out(state, row)
        if self._ends_early:
            over = trainer.workers.is_main and self._is_over(state)
            trainer.is_over = trainer.workers.all_reduce_sum(over) != [0]
        self._started += time.monotonic() - begin

    def _measure_held_out(self, state: Any, row: StepRow) -> None:
        trainer = self._trainer
        loss = self._held_out.measure(
            trainer.model, trainer.engine, trainer.args.per_device_train_batch_size
        )
        with trainer.workers.translate_errors():
            trainer.workers.raise_if_peer_lost()
        row["held_out_loss"] = loss
        trainer.offer(state.global_step, loss)

    def _is_over(self, state: Any) -> bool:
        history = rows_of(state.log_history)
        over = is_over(history, teaches_answers=self._teaches_answers)
        if over and state.global_step < state.max_steps:
            log.info(
                "the %s has risen since step %d: training ends after step %d of %d",
                self._loss_name,
                (best_held_out(history) or {}).get("step", 0),
                state.global_step,
                state.max_steps,
                extra=figures(step=state.global_step, steps=state.max_steps),
            )
        return over

    def _save_if_due(self, state: Any, control: Any) -> None:
        """After the log row of this step, so that a resumed run's history has no gap."""
        if self._every.steps is not None:
            due = state.global_step % self._every.steps == 0
        else:
            due = time.monotonic() - self._saved >= (self._every.minutes or 0) * 60
        if due or control.should_training_stop or state.global_step == state.max_steps:
            self._save(state.global_step)
        self._rng = random_state()

    def _save(self, step: int, rng: dict[str, Any] | None = None) -> None:
        if self._trainer.workers.is_main:
            self._checkpoints.save(step, lambda folder: self._trainer.save_state(folder, rng))
        self._saved = time.monotonic()
        self.progress.saved(step)
