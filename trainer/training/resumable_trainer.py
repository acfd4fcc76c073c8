"""SFTTrainer with our engine, for one worker's share of a step, without pickles."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from trl import SFTTrainer

from trainer.dataset.collate import documents
from trainer.distributed.data_parallel import GradientAccumulator, MicroBatchSampler
from trainer.distributed.workers import Workers
from trainer.engine.decoder import Engine
from trainer.errors import DoesNotFitError
from trainer.labels import IGNORED
from trainer.models.sharded_base import WholeBase
from trainer.monitoring.step_log import as_lines, rows_of
from trainer.planner.choose import Execution, leaner_plan
from trainer.runs.checkpoints import ROWS, to_parts
from trainer.runtime import signals
from trainer.runtime.device import out_of_memory
from trainer.training.checkpoint_state import (
    ADAPTER,
    STATE,
    TENSORS,
    TRAINER_STATE,
    random_state,
    read_state,
    set_random_state,
    trainable,
    without_functions,
    write_plan,
)
from trainer.training.checkpoint_validation import fault

log = logging.getLogger(__name__)


class ResumableTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that saves and restores through safetensors and JSON instead of pickles.

    With an `engine` that computes its loss and gradients, on this worker's share of the blocks.
    """

    engine: Engine | None = None
    frozen: WholeBase
    workers: Workers
    shares: MicroBatchSampler
    gradients: GradientAccumulator
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
        (total,) = self.workers.all_reduce_sum(int(own or 0))
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
            inputs["labels"].ne(IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
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
        scaler = getattr(self.accelerator, "scaler", None)
        if not inputs and scaler is not None:  # its first use makes it, which may not have been
            scaler.scale(torch.zeros((), device=self.args.device))
        loss = None
        if inputs:
            loss = self._micro_batch(model, inputs, num_items_in_batch)
        elif self.engine is not None:
            self.engine.stand_by()
        if loss is not None and self.workers.size == self.shares.per_step == 1:
            return loss
        self.gradients.add(self._trained(), loss)
        total = 0.0
        if self.accelerator.sync_gradients:
            total, self.stops = self.gradients.finish(self._trained(), stops=signals.requested())
        return torch.tensor(total, device=self.args.device)

    def _trained(self) -> list[torch.nn.Parameter]:
        if self.engine is not None:
            return self.engine.parameters
        return [p for p in self.model.parameters() if p.requires_grad]

    def _micro_batch(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any
    ) -> torch.Tensor:
        """Out of memory it is tried again with a leaner plan; the gradients of those before it are
        in the sum already, so nothing is counted twice."""
        if self.engine is None:
            loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        random = random_state()
        while True:
            try:
                loss = super().training_step(model, dict(inputs), num_items_in_batch)
                return loss
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                fault = str(error).split(". ")[0]
            for parameter in self.engine.parameters:  # of some it may have come just before
                parameter.grad = None
            # With the base in parts no worker can do a micro-batch again alone.
            is_alone = not self.frozen.is_sharded
            plan = leaner_plan(self.engine.plan) if is_alone else None
            if plan is None:
                raise DoesNotFitError(
                    f"out of GPU memory and no leaner plan is left ({fault}); lower "
                    "QLORA_MAX_LENGTH or QLORA_BATCH_SIZE, or end what else uses the GPU"
                )
            log.warning("out of GPU memory; going on with %s", plan)
            self.engine.change(plan)
            set_random_state(random)

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
            "scheduler": without_functions(self.lr_scheduler.state_dict()),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "rng": rng or random_state(),
        }
        (folder / STATE).write_text(json.dumps(to_parts(state, tensors)))
        write_plan(self.choice(), folder)
        save_file(tensors, folder / TENSORS)
        save_file(trainable(self.model), folder / ADAPTER)
        self.state.save_to_json(str(folder / TRAINER_STATE))
        (folder / ROWS).write_text(as_lines(rows_of(self.state.log_history)))

    def choice(self) -> Execution:
        """How memory is spent at this moment."""
        plan = None if self.engine is None else self.engine.plan
        return Execution(self.args.per_device_train_batch_size, plan, reason="")

    def unusable(self, folder: Path) -> str | None:
        """Why this trainer cannot go on from the checkpoint in `folder`; None when it can."""
        return fault(folder, trainable(self.model), self._filled_optimizer())

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
