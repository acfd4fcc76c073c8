"""The trainer whose state is saved and restored without pickles."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerState

from trainer.monitoring.step_log import as_lines, best_held_out, rows_of
from trainer.planner.choose import Execution
from trainer.runs.layout import METRICS
from trainer.training.checkpoint_state import (
    ADAPTER,
    BEST,
    STATE,
    TENSORS,
    TRAINER_STATE,
    extract_tensors,
    random_state,
    read_state,
    set_random_state,
    trainable,
    without_functions,
    write_plan,
)
from trainer.training.checkpoint_validation import fault
from trainer.training.engine_trainer import EngineTrainer
from trainer.training.keep import KeptAdapter
from trainer.training.setup import TrainingSetup


class ResumableTrainer(EngineTrainer):
    """Saves and restores through safetensors and JSON, where transformers would pickle."""

    def __init__(self, setup: TrainingSetup) -> None:
        super().__init__(setup)
        self._keeps_best = setup.settings.keep == "best"
        self.best: KeptAdapter | None = None
        """after the step whose held-out loss was least so far; it travels in each checkpoint"""

    def offer(self, step: int, held_out_loss: float) -> None:
        """Keep the adapter as it is now if none before had so low a held-out loss."""
        if not self._keeps_best or not math.isfinite(held_out_loss):
            return
        if self.best is None or held_out_loss < self.best.loss:
            self.best = KeptAdapter.of(self.model, step, held_out_loss)

    def save_state(self, folder: Path, rng: dict[str, Any] | None = None) -> None:
        """Everything that the next step depends on, as files in `folder`.

        In the middle of a step, `rng` is what `random_state` gave before it.
        """
        tensors: dict[str, torch.Tensor] = {}
        scaler = getattr(self.accelerator, "scaler", None)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": without_functions(self.lr_scheduler.state_dict()),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "rng": rng or random_state(),
        }
        (folder / STATE).write_text(json.dumps(extract_tensors(state, tensors)), encoding="utf-8")
        write_plan(self.execution(), folder)
        save_file(tensors, folder / TENSORS)
        save_file(trainable(self.model), folder / ADAPTER)
        if self.best is not None and self.best.step != self.state.global_step:
            save_file(self.best.tensors, folder / BEST)
        self.state.save_to_json(str(folder / TRAINER_STATE))
        (folder / METRICS).write_text(as_lines(rows_of(self.state.log_history)), encoding="utf-8")

    def execution(self) -> Execution:
        """How memory is spent at this moment."""
        plan = None if self.engine is None else self.engine.plan
        return Execution(self.args.per_device_train_batch_size, plan, reason="")

    def unusable(self, folder: Path) -> str | None:
        """Why this trainer cannot go on from the checkpoint in `folder`; None when it can."""
        tensors = trainable(self.model)
        return fault(folder, tensors, self._filled_optimizer(), self._keeps_best)

    def _filled_optimizer(self) -> dict[str, Any]:
        """The state of an optimizer like ours after a step; on the CPU, where it costs nothing."""
        kind, arguments = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        groups = [
            group | {"params": [torch.nn.Parameter(torch.empty(p.shape)) for p in group["params"]]}
            for group in self.create_optimizer().param_groups
        ]
        filled = kind(groups, **arguments)
        for number, group in enumerate(filled.param_groups):
            for at, parameter in enumerate(group["params"]):
                filled.init_state(group, parameter, number, at)
        state: dict[str, Any] = filled.state_dict()
        return state

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / ADAPTER)
        with torch.no_grad():
            for name, parameter in trainable(self.model).items():
                parameter.copy_(saved[name])
        if self._keeps_best:
            self._load_best(Path(resume_from_checkpoint))

    def _load_best(self, checkpoint: Path) -> None:
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
        best = best_held_out(rows_of(state.log_history))
        if best is not None:
            name = ADAPTER if best["step"] == state.global_step else BEST
            tensors = load_file(checkpoint / name)
            self.best = KeptAdapter(best["step"], best["held_out_loss"], tensors)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state = read_state(Path(checkpoint))
            self.optimizer.load_state_dict(state["optimizer"])
            self.lr_scheduler.load_state_dict(state["scheduler"])

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state = read_state(Path(checkpoint))["scaler"]
            if state is not None:
                self.accelerator.scaler.load_state_dict(state)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_random_state(read_state(Path(checkpoint))["rng"])
