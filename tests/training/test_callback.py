"""What the callback does at the end of a step: rows, checkpoints, the end on a signal."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.checkpoints import open_checkpoints
from support.training_setups import STEPS, noise_blocks, tiny_setup

from trainer.monitoring.prometheus import Metrics
from trainer.monitoring.trackers import Tracking
from trainer.runs.checkpoints import Checkpoints
from trainer.runtime import signals
from trainer.training.callback import StepAbandoned, TrainingCallback
from trainer.training.resumable_trainer import ResumableTrainer
from trainer.training.setup import TrainingSetup


def watched(
    setup: TrainingSetup, folder: Path
) -> tuple[ResumableTrainer, TrainingCallback, Checkpoints]:
    """A trainer with its callback, and checkpoints in `folder`/checkpoints."""
    trainer = ResumableTrainer(setup)
    checkpoints = open_checkpoints(folder, "checkpoints")
    tracking = Tracking(setup.settings, "run", folder / "tensorboard")
    metrics = Metrics(setup.settings)
    callback = TrainingCallback(trainer, setup, checkpoints, metrics, tracking)
    trainer.add_callback(callback)
    return trainer, callback, checkpoints


def trained(folder: Path, micro_batch: int = 4, **changes: str) -> ResumableTrainer:
    """After its last step."""
    setup = tiny_setup(folder, micro_batch=micro_batch, **changes)
    trainer, _, checkpoints = watched(setup, folder)
    try:
        trainer.train()
    finally:
        checkpoints.finish()
    return trainer


def saved(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


def test_each_step_has_a_row_with_time_rate_and_memory(tmp_path: Path) -> None:
    history = trained(tmp_path, CHECKPOINT_EVERY="60m").state.log_history
    rows = [row for row in history if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(row["tokens_per_s"] > 0 and row["memory_gib"] > 0 for row in rows)
    assert [row["seconds"] for row in rows] == sorted(row["seconds"] for row in rows)


@pytest.mark.parametrize(("every", "steps"), [("1", [2, 3]), ("2", [2, 3]), ("60m", [3])])
def test_checkpoints_are_saved_as_often_as_asked_and_after_the_last_step(
    every: str, steps: list[int], tmp_path: Path
) -> None:
    """Two are kept."""
    trained(tmp_path, CHECKPOINT_EVERY=every)
    assert saved(tmp_path) == [f"step-{step:06d}" for step in steps]


def test_a_signal_ends_it_after_the_step_with_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "requested", lambda: True)
    assert trained(tmp_path, CHECKPOINT_EVERY="60m").state.global_step == 1
    assert saved(tmp_path) == ["step-000001"]


def test_a_step_that_would_outlive_the_grace_period_is_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "seconds_left", lambda: 0.0)
    with pytest.raises(StepAbandoned):
        trained(tmp_path, micro_batch=1)
    assert saved(tmp_path) == []  # there was no step before it


def test_tokens_are_counted_with_a_short_last_step_of_an_epoch(tmp_path: Path) -> None:
    setup = replace(tiny_setup(tmp_path), blocks=noise_blocks(6))
    _, callback, _ = watched(setup, tmp_path)
    blocks = [callback._tokens(steps) // setup.settings.max_length for steps in range(1, 5)]
    assert blocks == [4, 6, 10, 12]
