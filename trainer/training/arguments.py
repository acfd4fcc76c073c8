"""The settings of a run in transformers' words."""

from trl import SFTConfig

from trainer.training.setup import TrainingSetup

# QLoRA's own clipping: Dettmers et al. 2023, appendix B.2.
MAX_GRADIENT_NORM = 0.3


class OneGpuConfig(SFTConfig):  # type: ignore[misc]
    """For a process that is no worker and sees several GPUs: transformers would wrap the model in
    DataParallel, and trl share the batches out."""

    @property
    def n_gpu(self) -> int:
        seen: int = super().n_gpu
        return min(seen, 1)


def training_arguments(setup: TrainingSetup, micro_batches_per_step: int) -> SFTConfig:
    """For a worker that computes so many micro-batches of each optimizer step."""
    settings, on_gpu = setup.settings, setup.device.kind == "cuda"
    return OneGpuConfig(
        output_dir=str(settings.scratch_dir / "trl"),
        per_device_train_batch_size=setup.execution.blocks,
        gradient_accumulation_steps=micro_batches_per_step,
        num_train_epochs=setup.schedule.epochs,
        max_steps=settings.max_steps or -1,
        learning_rate=setup.schedule.learning_rate,
        lr_scheduler_type="constant",  # the trainer makes its own: `learning_rate`
        weight_decay=settings.weight_decay,
        max_grad_norm=MAX_GRADIENT_NORM,
        optim="paged_adamw_8bit",
        fp16=setup.precision.name == "fp16",
        bf16=setup.precision.name == "bf16",
        # The engine decides for itself what it keeps; a CPU has the memory and not the time.
        activation_checkpointing=on_gpu and setup.execution.plan is None,
        gradient_checkpointing=False,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it hides divergence
        save_strategy="no",  # `Checkpoints` does it
        report_to="none",
        disable_tqdm=True,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        # The router is frozen; trl would train on what it adds for a router, and log it as loss.
        router_aux_loss_coef=0.0,
        max_length=None,  # blocks are already cut
        dataset_kwargs={"skip_prepare_dataset": True},
    )
