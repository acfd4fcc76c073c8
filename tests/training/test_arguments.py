"""The settings of a run in transformers' words."""

from pathlib import Path

import pytest
from support.training_setups import on_stock_path, tiny_setup

from trainer.training.arguments import MAX_GRADIENT_NORM, OneGpuConfig, training_arguments


def test_a_step_is_made_of_this_worker_s_micro_batches(tmp_path: Path) -> None:
    arguments = training_arguments(tiny_setup(tmp_path, micro_batch=2), 2)
    assert arguments.per_device_train_batch_size == 2
    assert arguments.gradient_accumulation_steps == 2
    assert arguments.max_grad_norm == MAX_GRADIENT_NORM


def test_transformers_writes_no_checkpoint_reports_nowhere_and_recomputes_nothing_on_a_cpu(
    tmp_path: Path,
) -> None:
    arguments = training_arguments(on_stock_path(tiny_setup(tmp_path)), 1)
    assert arguments.save_strategy == "no"
    assert arguments.report_to == []
    assert not arguments.gradient_checkpointing
    assert not arguments.fp16 and not arguments.bf16


def test_the_rate_of_each_step_is_not_transformers(tmp_path: Path) -> None:
    """Its schedules begin at 0: `learning_rate` has ours."""
    arguments = training_arguments(tiny_setup(tmp_path, LEARNING_RATE="1e-3"), 1)
    assert arguments.learning_rate == 1e-3
    assert arguments.lr_scheduler_type == "constant"


def test_of_several_gpus_that_a_lone_process_sees_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = training_arguments(tiny_setup(tmp_path), 1)
    assert isinstance(arguments, OneGpuConfig)
    arguments._n_gpu = 2
    assert arguments.n_gpu == 1
    assert arguments.train_batch_size == 2
