"""The training run: SFTTrainer on packed blocks, resumable to the bit, stopped when it diverges."""

import contextlib
import json
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from trainer import stopping
from trainer.batches import collate, collate_for_engine, documents
from trainer.blocks import Block
from trainer.checkpoints import ROWS, Checkpoints, from_parts, to_parts
from trainer.device import Device, Precision, memory_gib
from trainer.engine import Engine
from trainer.errors import (
    DoesNotFitError,
    Interrupted,
    RejectedError,
    SettingsError,
    UnreachableError,
)
from trainer.heldout import HeldOut
from trainer.metrics import Metrics
from trainer.model import adapter_to_float32
from trainer.planner import Choice, leaner
from trainer.progress import Progress
from trainer.rows import Row, as_lines, best_held_out, rows_of
from trainer.settings import Settings
from trainer.shares import GradientSum, Shares
from trainer.tracking import Tracking
from trainer.workers import OtherFailed, Workers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

# fp16 loss scaling starts high and skips the first steps; more than this in a row is divergence.
BAD_STEPS = 8
SAVING = "saving a checkpoint at the end of this step; a second signal ends at once"
# QLoRA's own clipping: Dettmers et al. 2023, appendix B.2.
MAX_GRADIENT_NORM = 0.3
STATE, TENSORS, ADAPTER = "state.json", "state.safetensors", "adapter.safetensors"
TRAINER_STATE = "trainer_state.json"  # the name under which transformers looks for its own


@dataclass(frozen=True)
class Trained:
    """What a finished training run leaves beside the weights. `history` has one row a step.

    Seconds and tokens/s are of all starts of the run together, without what a kill made it repeat.
    """

    steps: int
    seconds: float
    tokens_per_s: float
    vram_peak_gib: float | None
    history: list[Row]

    @property
    def loss(self) -> float | None:
        """Mean training loss of the last tenth of the steps."""
        last = self.history[-max(1, len(self.history) // 10) :]
        losses = [row["loss"] for row in last if row["loss"] is not None]
        return sum(losses) / len(losses) if losses else None

    @property
    def best(self) -> Row | None:
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
    choice: Choice,
    checkpoints: Checkpoints,
    metrics: Metrics,
    tracking: Tracking,
    workers: Workers,
) -> Trained:
    """Train the adapter of `model` in place, from the newest valid checkpoint if there is one.

    Raises Interrupted (state saved), RejectedError on divergence, and what a checkpoint's push
    failed with.
    """
    start = _start(settings, checkpoints) if workers.first else None
    start = workers.hand_out(start, settings.scratch_dir / workers.own("handed-out"))
    trainer = _trainer(model, tokenizer, blocks, settings, precision, device, choice, workers)
    watch = _Watch(trainer, settings, checkpoints, metrics, tracking, held_out)
    trainer.add_callback(watch)
    if start is not None:
        log.info("resuming from checkpoint %s", start.name)
    if device.kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with stopping.deferred(SAVING):
        try:
            with contextlib.suppress(_StepGivenUp):
                trainer.train(resume_from_checkpoint=str(start) if start else None)
            checkpoints.finish()
        except OtherFailed:
            watch.save_whole_steps()
            checkpoints.finish()
            raise
        except UnreachableError as error:
            if not stopping.requested():
                raise
            log.warning("the last checkpoint is on this disk only: %s", error)
        finally:
            watch.progress.close()
        if trainer.stops and not stopping.requested():
            raise Interrupted("a signal stopped another worker; start all again to go on")
    if trainer.engine is not None:
        trainer.engine.close()
    history = rows_of(trainer.state.log_history)
    return Trained(
        steps=trainer.state.global_step,
        seconds=_seconds(history),
        tokens_per_s=history[-1]["tokens_per_s"],
        vram_peak_gib=(
            max(row["memory_gib"] for row in history) if device.kind == "cuda" else None
        ),
        history=history,
    )


def _start(settings: Settings, checkpoints: Checkpoints) -> Path | None:
    """The checkpoint to go on from."""
    if settings.resume == "never":
        checkpoints.discard()
        return None
    start = checkpoints.newest()
    if start is None and settings.resume == "must":
        raise SettingsError(
            "QLORA_RESUME=must: this run has no valid checkpoint; use QLORA_RESUME=auto to start it"
        )
    return start


def _trainer(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    blocks: Sequence[Block],
    settings: Settings,
    precision: Precision,
    device: Device,
    choice: Choice,
    workers: Workers,
) -> "_ResumableTrainer":
    on_gpu = device.kind == "cuda"
    shares = Shares(
        len(blocks),
        effective=settings.effective_batch_size,
        micro_batch=choice.blocks,
        seed=settings.seed,
        workers=workers,
    )
    arguments = SFTConfig(
        output_dir=str(settings.scratch_dir / "trl"),
        per_device_train_batch_size=choice.blocks,
        gradient_accumulation_steps=shares.per_step,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_ratio if settings.warmup_ratio < 1 else 0.999,
        lr_scheduler_type=(
            "constant_with_warmup" if settings.scheduler == "constant" else settings.scheduler
        ),
        weight_decay=settings.weight_decay,
        max_grad_norm=MAX_GRADIENT_NORM,
        optim="paged_adamw_8bit",
        fp16=precision.name == "fp16",
        bf16=precision.name == "bf16",
        # The engine decides for itself what it keeps; a CPU has the memory and not the time.
        activation_checkpointing=on_gpu and choice.plan is None,
        gradient_checkpointing=False,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it hides divergence
        save_strategy="no",  # `checkpoints` does it
        report_to="none",
        disable_tqdm=True,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        max_length=None,  # blocks are already cut
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = _ResumableTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"block": range(len(blocks))}),
        processing_class=tokenizer,
        data_collator=_Numbered(blocks, collate if choice.plan is None else collate_for_engine),
    )
    trainer.shares, trainer.workers = shares, workers
    trainer.gradients = GradientSum(settings.seed, workers)
    adapter_to_float32(model)
    if choice.plan is not None:
        trainer.engine = Engine(
            model, dtype=precision.dtype, plan=choice.plan, row_tokens=settings.max_length
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


class _Numbered:
    """Batches of blocks by their numbers: they are read from the disk here and not before."""

    def __init__(
        self,
        blocks: Sequence[Block],
        stack: Callable[[list[dict[str, Any]]], dict[str, Any]],
    ) -> None:
        self._blocks, self._stack = blocks, stack

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        return self._stack([vars(self._blocks[row["block"]]) for row in rows])


class _ResumableTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that saves and restores through safetensors and JSON instead of pickles.

    With an `engine` that computes its loss and gradients, on this worker's share of the blocks.
    """

    engine: Engine | None = None
    workers: Workers
    shares: Shares
    gradients: GradientSum
    stops = False  # a signal came to some worker

    def get_train_dataloader(self) -> Any:
        return self.accelerator.prepare(
            DataLoader(
                self.train_dataset,
                batch_sampler=self.shares,
                collate_fn=self.data_collator,
                pin_memory=self.args.dataloader_pin_memory,
            )
        )

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        """Trained tokens of the whole step."""
        own = super()._get_num_items_in_batch([batch for batch in batch_samples if batch], device)
        if self.workers.size == 1:
            return own
        (total,) = self.workers.sums(int(own or 0))
        return torch.tensor(int(total), device=device)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.engine is None:
            stock: torch.optim.Optimizer = super().create_optimizer(model)
            return stock
        kind, arguments = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        group = {"params": self.engine.parameters, "weight_decay": self.args.weight_decay}
        made: torch.optim.Optimizer = kind([group], **arguments)
        self.optimizer = made
        return made

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if self.engine is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = self.engine.loss_sum(
            inputs["input_ids"],
            inputs["labels"],
            inputs["position_ids"],
            documents(inputs),
        )
        trained = (
            inputs["labels"].ne(-100).sum() if num_items_in_batch is None else num_items_in_batch
        )
        return loss / torch.as_tensor(trained).clamp(min=1)

    def _run_epoch(self, **arguments: Any) -> None:
        """One epoch, unless all steps are done: a run that is started again between its last step
        and its publishing would train one more each time."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(**arguments)
        else:
            self.control.should_training_stop = True

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One micro-batch; after the last one of a step the gradients are those of all."""
        self.gradients.begin(self.state.global_step)
        loss = self._micro_batch(model, inputs, num_items_in_batch) if inputs else None
        if loss is not None and self.workers.size == self.shares.per_step == 1:
            return loss
        self.gradients.add(self._trained(), loss)
        total = 0.0
        if self.accelerator.sync_gradients:
            total, self.stops = self.gradients.finish(self._trained(), stops=stopping.requested())
        return torch.tensor(total, device=self.args.device)

    def _trained(self) -> list[torch.nn.Parameter]:
        if self.engine is not None:
            return self.engine.parameters
        return [p for p in self.model.parameters() if p.requires_grad]

    def _micro_batch(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any
    ) -> torch.Tensor:
        """Out of memory it is tried again with a leaner plan: gradients are added at the very
        end of a backward pass, so nothing is counted twice."""
        if self.engine is None or self.engine.device.type == "cpu":
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        random = torch.cuda.get_rng_state()
        while True:
            try:
                loss = super().training_step(model, dict(inputs), num_items_in_batch)
                return loss
            except torch.OutOfMemoryError as error:
                fault = str(error).split(". ")[0]
            plan = leaner(self.engine.plan, len(self.engine.layers))
            if plan is None:
                raise DoesNotFitError(
                    f"out of GPU memory even with the leanest plan ({fault}); lower "
                    "QLORA_MAX_LENGTH or QLORA_BATCH_SIZE, or end what else uses the GPU"
                )
            log.warning("out of GPU memory; going on with %s", plan)
            self.engine.change(plan)
            torch.cuda.set_rng_state(random)

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        limit = self.args.max_grad_norm
        norm: torch.Tensor = self.accelerator.clip_grad_norm_(self._trained(), limit)
        return norm

    def save_state(self, folder: Path, rng: dict[str, Any] | None = None) -> None:
        """Everything that the next step depends on, as files in `folder`.

        In the middle of a step, `rng` is what `random_state` gave before it.
        """
        tensors: dict[str, torch.Tensor] = {}
        scaler = getattr(self.accelerator, "scaler", None)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": _without_functions(self.lr_scheduler.state_dict()),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "rng": rng or random_state(),
        }
        (folder / STATE).write_text(json.dumps(to_parts(state, tensors)))
        save_file(tensors, folder / TENSORS)
        save_file(_trainable(self.model), folder / ADAPTER)
        self.state.save_to_json(str(folder / TRAINER_STATE))
        (folder / ROWS).write_text(as_lines(rows_of(self.state.log_history)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / ADAPTER)
        with torch.no_grad():
            for name, parameter in _trainable(self.model).items():
                parameter.copy_(saved[name])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state = _read_state(Path(checkpoint))
            self.optimizer.load_state_dict(state["optimizer"])
            self.lr_scheduler.load_state_dict(state["scheduler"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state = _read_state(Path(checkpoint))["scaler"]
            if state is not None:
                self.accelerator.scaler.load_state_dict(state)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            _set_random_state(_read_state(Path(checkpoint))["rng"])


class _StepGivenUp(Exception):
    """A signal came in a step that takes longer than the grace period leaves."""


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Progress, divergence, checkpoints and signals, at the end of each optimizer step."""

    def __init__(
        self,
        trainer: _ResumableTrainer,
        settings: Settings,
        checkpoints: Checkpoints,
        metrics: Metrics,
        tracking: Tracking,
        held_out: Sequence[Block],
    ) -> None:
        self.progress = Progress(settings.log_format, metrics)
        self._trainer = trainer
        self._every = settings.checkpoint_every
        self._checkpoints = checkpoints
        self._step_blocks = settings.effective_batch_size
        self._block_tokens = settings.max_length
        self._epoch_blocks = len(trainer.train_dataset)
        self._blocks = held_out
        self._tracking = tracking
        self._bad = 0
        self._micro_batches = 0
        self._rng = random_state()
        self._started = self._saved = self._step_started = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._saved = time.monotonic()
        self._started = self._saved - _seconds(state.log_history)
        self.progress.start(state.global_step, state.max_steps)
        self._tracking.start(rows_of(state.log_history))
        self._held_out = HeldOut(self._blocks, steps=state.max_steps, step_blocks=self._step_blocks)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._micro_batches = 0
        self._step_started = time.monotonic()

    def on_substep_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step that would outlive the grace period is given up, and what was before it saved."""
        self._micro_batches += 1
        each_s = (time.monotonic() - self._step_started) / self._micro_batches
        left_s = each_s * (args.gradient_accumulation_steps - self._micro_batches)
        if left_s > stopping.seconds_left() / 2:  # the other half is for the push
            self.save_whole_steps()
            raise _StepGivenUp

    def save_whole_steps(self) -> None:
        """In the middle of a step: what was before it."""
        step = self._trainer.state.global_step
        if step > 0:
            self._save(step, self._rng)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for parameter in self._trainer.engine.parameters if self._trainer.engine else ():
            parameter.grad = None

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._trainer.stops or (self._trainer.workers.size == 1 and stopping.requested()):
            control.should_training_stop = True
        control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" not in logs:
            return
        seconds = time.monotonic() - self._started
        tokens_per_s = self._tokens(state.global_step) / seconds
        row = state.log_history[-1]
        row |= {"seconds": seconds, "tokens_per_s": tokens_per_s, "memory_gib": memory_gib()}
        self._stop_if_diverged(logs)
        self._measure_held_out(state.global_step, row)
        self.progress.step(
            state.global_step,
            loss=logs["loss"],
            held_out_loss=row.get("held_out_loss"),
            learning_rate=logs["learning_rate"],
            tokens_per_s=tokens_per_s,
            seconds_left=seconds / state.global_step * (state.max_steps - state.global_step),
        )
        self._tracking.log(rows_of([row])[0])
        self._save_if_due(state, control)

    def _tokens(self, steps: int) -> int:
        """Trained in so many steps, padding included; the last step of an epoch may be short."""
        epoch_steps = -(-self._epoch_blocks // self._step_blocks)
        epochs, rest = divmod(steps, epoch_steps)
        blocks = epochs * self._epoch_blocks + min(rest * self._step_blocks, self._epoch_blocks)
        return blocks * self._block_tokens

    def _measure_held_out(self, step: int, row: Row) -> None:
        """Between two steps, and outside the training time. Not when there is little time left."""
        if not self._trainer.workers.first or stopping.requested() or not self._held_out.due(step):
            return
        begin = time.monotonic()
        trainer = self._trainer
        row["held_out_loss"] = self._held_out.loss(
            trainer.model, trainer.engine, trainer.args.per_device_train_batch_size
        )
        self._started += time.monotonic() - begin

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
        if self._trainer.workers.first:
            self._checkpoints.save(step, lambda folder: self._trainer.save_state(folder, rng))
        self._saved = time.monotonic()
        self.progress.saved(step)

    def _stop_if_diverged(self, logs: dict[str, float]) -> None:
        gradient = logs.get("grad_norm", math.nan)
        sound = math.isfinite(logs["loss"]) and math.isfinite(gradient) and gradient > 0
        self._bad = 0 if sound else self._bad + 1
        if self._bad >= BAD_STEPS:
            raise RejectedError(
                f"training diverged: loss {logs['loss']:.4g}, gradient norm {gradient:.4g} and "
                f"{BAD_STEPS} unusable steps in a row; lower QLORA_LEARNING_RATE or check the data"
            )


def _trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def _read_state(checkpoint: Path) -> dict[str, Any]:
    parts = json.loads((checkpoint / STATE).read_text())
    state: dict[str, Any] = from_parts(parts, load_file(checkpoint / TENSORS))
    return state


def _without_functions(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without its lambdas, which are rebuilt from the settings."""
    return {name: value for name, value in state.items() if name != "lr_lambdas"} | {
        "lr_lambdas": [None]
    }


def random_state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])


def _seconds(history: list[dict[str, float]]) -> float:
    """Training time up to the last row that says so."""
    return next((row["seconds"] for row in reversed(history) if "seconds" in row), 0.0)
