"""trl's trainer as this job needs it: its arguments, its data, its engine."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from transformers import PrinterCallback
from trl import SFTConfig

from trainer.dataset.collate import collate, collate_for_engine
from trainer.dataset.packing import Block
from trainer.distributed.data_parallel import GradientAccumulator, MicroBatchSampler
from trainer.distributed.workers import Workers
from trainer.engine.decoder import Engine
from trainer.models.load import adapter_to_float32
from trainer.models.sharded_base import WholeBase
from trainer.planner.choose import Execution
from trainer.runtime.device import Device, Precision
from trainer.settings import Settings
from trainer.training.resumable_trainer import ResumableTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# QLoRA's own clipping: Dettmers et al. 2023, appendix B.2.
MAX_GRADIENT_NORM = 0.3


def make_trainer(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    blocks: Sequence[Block],
    settings: Settings,
    precision: Precision,
    device: Device,
    choice: Execution,
    workers: Workers,
    frozen: WholeBase,
) -> "ResumableTrainer":
    on_gpu = device.kind == "cuda"
    shares = MicroBatchSampler(
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
    if arguments.n_gpu > 1:  # seen by a process that is no worker: trl would share batches out
        arguments._n_gpu = 1
    trainer = ResumableTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict({"block": range(len(blocks))}),
        processing_class=tokenizer,
        data_collator=_Numbered(blocks, collate if choice.plan is None else collate_for_engine),
    )
    trainer.shares, trainer.workers, trainer.frozen = shares, workers, frozen
    trainer.gradients = GradientAccumulator(settings.seed, workers)
    adapter_to_float32(model)
    if choice.plan is not None:
        trainer.engine = Engine(
            model,
            dtype=precision.dtype,
            plan=choice.plan,
            row_tokens=settings.max_length,
            frozen=frozen,
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
