"""A step of the trainer: by our engine and by trl, in one micro-batch and in several."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training_setups import STEPS, on_stock_path, tiny_setup
from transformers import TrainerCallback

from trainer.distributed.workers import Workers
from trainer.errors import SettingsError
from trainer.training.engine_trainer import EngineTrainer


def losses(trainer: EngineTrainer) -> list[float]:
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("noise", ["0", "25"])
def test_the_engine_and_trl_take_the_same_steps(noise: str, tmp_path: Path) -> None:
    """With the same dropout and the same noise on the embeddings."""
    ours = losses(EngineTrainer(tiny_setup(tmp_path, NEFTUNE_ALPHA=noise)))
    stock = losses(EngineTrainer(on_stock_path(tiny_setup(tmp_path, NEFTUNE_ALPHA=noise))))
    assert len(ours) == STEPS
    assert ours == pytest.approx(stock, rel=1e-4)


def test_noise_on_the_embeddings_shows_in_the_loss(tmp_path: Path) -> None:
    quiet = losses(EngineTrainer(tiny_setup(tmp_path)))
    noisy = losses(EngineTrainer(tiny_setup(tmp_path, NEFTUNE_ALPHA="25")))
    assert all(a != b for a, b in zip(quiet, noisy, strict=True))


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
def test_the_size_of_a_micro_batch_does_not_show_in_a_step(
    micro_batch: int, tmp_path: Path
) -> None:
    expected = losses(EngineTrainer(tiny_setup(tmp_path, LORA_DROPOUT="0")))
    setup = tiny_setup(tmp_path, micro_batch=micro_batch, LORA_DROPOUT="0")
    assert losses(EngineTrainer(setup)) == pytest.approx(expected, rel=1e-5)


def test_it_is_whole_when_it_is_made(tmp_path: Path) -> None:
    """Nothing is set on it before it can train, and the adapter is float32."""
    setup = tiny_setup(tmp_path)
    trainer = EngineTrainer(setup)
    assert trainer.engine is not None
    assert {p.dtype for p in trainer.engine.parameters} == {torch.float32}
    assert not trainer.stop_requested
    assert {type(c).__name__ for c in trainer.callback_handler.callbacks} == {"DefaultFlowCallback"}
    assert EngineTrainer(on_stock_path(setup)).engine is None


def test_a_step_of_the_engine_walks_through_no_module_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers counts, zeroes and switches all of them, several times a step."""
    trainer, walked = EngineTrainer(tiny_setup(tmp_path)), []
    named_modules = torch.nn.Module.named_modules

    def seen(module: torch.nn.Module, *given: Any, **named: Any) -> Any:
        if module is trainer.model:
            walked.append(trainer.state.global_step)
        return named_modules(module, *given, **named)

    monkeypatch.setattr(torch.nn.Module, "named_modules", seen)
    assert len(losses(trainer)) == STEPS
    assert set(walked) == {0}  # before the first


def test_a_step_with_fewer_micro_batches_than_workers_is_refused(tmp_path: Path) -> None:
    setup = replace(tiny_setup(tmp_path, micro_batch=4), workers=Workers(1, 2))
    with pytest.raises(SettingsError, match="too little for 2 workers"):
        EngineTrainer(setup)


def test_a_run_that_has_all_its_steps_trains_no_further(tmp_path: Path) -> None:
    trainer = EngineTrainer(tiny_setup(tmp_path))

    class AtTheLastStep(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, _: object, state: object, *__: object, **___: object) -> None:
            state.global_step = STEPS  # type: ignore[attr-defined]

    trainer.add_callback(AtTheLastStep())
    assert losses(trainer) == []
