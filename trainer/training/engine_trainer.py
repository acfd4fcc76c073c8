"""SFTTrainer for one worker's micro-batches, whose loss and gradients our engine computes."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import PrinterCallback
from trl import SFTTrainer

from trainer.dataset.collate import collate, collate_for_engine, documents, one_document_a_row
from trainer.dataset.packing import Block
from trainer.distributed.data_parallel import GradientAccumulator, MicroBatchSampler
from trainer.engine.decoder import Engine
from trainer.engine.embedding_noise import noisy_embedding
from trainer.errors import DoesNotFitError
from trainer.labels import IGNORED
from trainer.models.load import adapter_to_float32
from trainer.planner.memory_plan import leaner_plan
from trainer.runtime import signals
from trainer.runtime.device import out_of_memory
from trainer.training.arguments import training_arguments
from trainer.training.checkpoint_state import random_state, set_random_state
from trainer.training.learning_rate import share_of_peak
from trainer.training.setup import TrainingSetup

log = logging.getLogger(__name__)


class EngineTrainer(SFTTrainer):  # type: ignore[misc]
    """Each optimizer step is shared among `workers`; without an `engine` trl computes the loss."""

    def __init__(self, setup: TrainingSetup) -> None:
        """Raises SettingsError when a step has fewer micro-batches than there are workers."""
        settings, execution = setup.settings, setup.execution
        self.workers, self.frozen_base = setup.workers, setup.frozen_base
        self.sampler = MicroBatchSampler(
            len(setup.blocks),
            effective_batch_size=setup.schedule.step_blocks,
            micro_batch_size=execution.blocks,
            seed=settings.seed,
            workers=setup.workers,
        )
        self.accumulator = GradientAccumulator(settings.seed, setup.workers)
        self._warmup_ratio, self._scheduler = setup.schedule.warmup_ratio, settings.scheduler
        self._noise_alpha = settings.neftune_alpha
        self.separate_documents = setup.separate_documents
        self.stop_requested = False
        """whether a signal came to any worker"""
        self.is_over = False
        """whether more steps would give nothing better: `trainer.training.keep.is_over`"""
        stack = collate if execution.plan is None else collate_for_engine
        super().__init__(
            model=setup.model,
            args=training_arguments(setup, self.sampler.micro_batches_per_step),
            train_dataset=Dataset.from_dict({"block": range(len(setup.blocks))}),
            processing_class=setup.tokenizer,
            data_collator=_BlockCollator(setup.blocks, stack),
        )
        self.remove_callback(PrinterCallback)
        adapter_to_float32(setup.model)  # trl has made it bf16, also where fp16 is computed in
        self.engine = _engine(setup)  # joins the adapter's tensors: not before they are float32

    def close(self) -> None:
        """Leave the model as it was, and free all memory but the adapter's."""
        if self.engine is not None:
            self.engine.close()

    def get_train_dataloader(self) -> Any:
        return self.accelerator.prepare(
            DataLoader(
                self.train_dataset,
                batch_sampler=self.sampler,
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

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        def share(step: int) -> float:
            return share_of_peak(
                step,
                steps=num_training_steps,
                warmup_ratio=self._warmup_ratio,
                scheduler=self._scheduler,
            )

        made = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, share)
        self.lr_scheduler, self._created_lr_scheduler = made, True
        return made

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if self.engine is None:
            with self._noise(model, inputs):
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

    def _noise(self, model: Any, inputs: Any) -> AbstractContextManager[None]:
        if not self._noise_alpha:
            return nullcontext()
        return noisy_embedding(model, inputs["position_ids"], self._noise_alpha)

    def _run_epoch(self, **arguments: Any) -> None:
        """One epoch, unless the training is over: a run that is started again between its last step
        and its publishing would train one more each time."""
        if self.state.global_step < self.state.max_steps and not self.is_over:
            super()._run_epoch(**arguments | self._walked())
        else:
            self.control.should_training_stop = True

    def _walked(self) -> dict[str, Any]:
        """In place of a model whose gradients the engine computes: transformers walks through all
        modules of it several times a step, which takes as long as a GPU computes a small one's."""
        return {} if self.engine is None else {"model": torch.nn.ParameterList(self._trained())}

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: nobody reads it, and that walks through the model too."""
        return 0

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One micro-batch; after the last one of a step the gradients are those of all."""
        self.accumulator.seed_dropout(self.state.global_step)
        scaler = getattr(self.accelerator, "scaler", None)
        if not inputs and scaler is not None:  # its first use makes it, which may not have been
            scaler.scale(torch.zeros((), device=self.args.device))
        loss = None
        if inputs:
            loss = self._micro_batch(model, inputs, num_items_in_batch)
        elif self.engine is not None:
            self.engine.stand_by()
        if loss is not None and self.workers.size == self.sampler.micro_batches_per_step == 1:
            return loss
        self.accumulator.add(self._trained(), loss)
        total = 0.0
        if self.accelerator.sync_gradients:
            total, self.stop_requested = self.accumulator.all_reduce(
                self._trained(), stop_requested=signals.requested()
            )
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
            total = torch.zeros((), device=self.args.device)
            for part in self._parts(inputs):
                total += super().training_step(model, part, num_items_in_batch)
            return total
        random = random_state()
        while True:
            try:
                loss: torch.Tensor = super().training_step(model, dict(inputs), num_items_in_batch)
                return loss
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                fault = str(error).split(". ")[0]
            for parameter in self.engine.parameters:  # of some it may have come just before
                parameter.grad = None
            plan = leaner_plan(self.engine.plan)
            if plan is None:
                raise DoesNotFitError(
                    f"out of GPU memory and no leaner plan is left ({fault}); lower "
                    "QLORA_MAX_LENGTH or QLORA_BATCH_SIZE, or end what else uses the GPU"
                )
            log.warning("out of GPU memory; going on with %s", plan)
            self.engine.change(plan)
            set_random_state(random)

    def _parts(self, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        """The stock path's micro-batch, or its documents, each in a row of its own."""
        if not self.separate_documents:
            return [inputs]
        names = ("input_ids", "labels", "position_ids")
        return [{name: part[name] for name in names} for part in one_document_a_row(inputs)]

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        limit = self.args.max_grad_norm
        norm: torch.Tensor = self.accelerator.clip_grad_norm_(self._trained(), limit)
        return norm


class _BlockCollator:
    """Batches of blocks by their numbers: they are read from the disk here and not before."""

    def __init__(
        self,
        blocks: Sequence[Block],
        stack: Callable[[list[dict[str, Any]]], dict[str, Any]],
    ) -> None:
        self._blocks, self._stack = blocks, stack

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        return self._stack([vars(self._blocks[row["block"]]) for row in rows])


def _engine(setup: TrainingSetup) -> Engine | None:
    if setup.execution.plan is None:
        return None
    return Engine(
        setup.model,
        dtype=setup.precision.dtype,
        plan=setup.execution.plan,
        row_tokens=setup.settings.max_length,
        frozen=setup.frozen_base,
        noise_alpha=setup.settings.neftune_alpha,
    )
