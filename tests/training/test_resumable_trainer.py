"""Saving and restoring: everything that the next step depends on, and nothing pickled."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training_setups import STEPS, on_stock_path, tiny_setup
from transformers import TrainerCallback

from trainer.training.checkpoint_state import trainable
from trainer.training.resumable_trainer import ResumableTrainer
from trainer.training.setup import TrainingSetup


class Save(TrainerCallback):  # type: ignore[misc]
    """After the second step."""

    def __init__(self, trainer: ResumableTrainer, folder: Path) -> None:
        self._trainer, self._folder = trainer, folder

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if state.global_step == 2 and "loss" in logs:
            state.log_history[-1] |= {"seconds": 1.0, "tokens_per_s": 1.0, "memory_gib": 0.0}
            self._folder.mkdir(exist_ok=True)
            self._trainer.save_state(self._folder)


def weights(trainer: ResumableTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainable(trainer.model).items()}


@pytest.mark.parametrize("path", ["engine", "stock"])
def test_a_run_that_goes_on_from_what_was_saved_ends_in_the_same_bits(
    path: str, tmp_path: Path
) -> None:
    def setup() -> TrainingSetup:
        tiny = tiny_setup(tmp_path, LORA_DROPOUT="0.2")
        return tiny if path == "engine" else on_stock_path(tiny)

    trainer = ResumableTrainer(setup())
    trainer.add_callback(Save(trainer, tmp_path / "step-000002"))
    trainer.train()
    expected = weights(trainer)
    resumed = ResumableTrainer(setup())
    resumed.train(resume_from_checkpoint=str(tmp_path / "step-000002"))
    assert resumed.state.global_step == STEPS
    found = weights(resumed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_what_is_saved_is_safetensors_and_json(tmp_path: Path) -> None:
    folder = tmp_path / "step-000002"
    trainer = ResumableTrainer(tiny_setup(tmp_path))
    trainer.add_callback(Save(trainer, folder))
    trainer.train()
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter.safetensors",
        "metrics.jsonl",
        "plan.json",
        "state.json",
        "state.safetensors",
        "trainer_state.json",
    ]
    assert json.loads((folder / "plan.json").read_text())["blocks"] == 2
    assert trainer.execution().is_as(tiny_setup(tmp_path).execution)
