"""The gate on a sound adapter, by what its evaluation found: too little, too much, forgotten."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_adapters import TINY, random_adapter

from trainer.dataset.eval_questions import Question
from trainer.dataset.packing import Block
from trainer.evaluation.compare import Evaluation, Scores
from trainer.evaluation.gate import rejection_reasons
from trainer.models.locate import local_base
from trainer.settings import Settings

END = 7
ASKED = (Question("How heavy is it?", "30 kg"),) * 40


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An adapter on disk, and the model that carries it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = random_adapter(tmp_path_factory.mktemp("gate")) / "adapter"
    model = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    return folder, PeftModel.from_pretrained(model, folder, is_trainable=True).eval()


def reasons(
    sound: tuple[Path, Any], base: Scores, tuned: Scores, *, counts: Any = None, **given: str
) -> list[str]:
    folder, model = sound
    tokens = np.arange(16) % 12 + 1
    settings = Settings.read({}, {f"QLORA_{n}": v for n, v in given.items()}, trains=False)
    return rejection_reasons(
        folder,
        model,
        local_base(TINY, "builtin:tiny"),
        Evaluation(base, tuned, ASKED),
        train=[Block(tokens, tokens, np.arange(16))],
        held_out=[],
        ends=[END],
        settings=settings,
        counts={"records": 10} | (counts or {}),
    )


def test_a_sound_adapter_that_learned_is_let_pass(sound: tuple[Path, Any]) -> None:
    assert reasons(sound, Scores(loss=3.0, exact=0.0), Scores(loss=1.0, exact=0.9)) == []


@pytest.mark.parametrize("loss", [2.995, 3.0, 3.02])
def test_a_loss_that_did_not_move_is_nothing_learned_unless_answers_did(
    sound: tuple[Path, Any], loss: float
) -> None:
    (said,) = reasons(sound, Scores(loss=3.0, exact=0.0), Scores(loss=loss, exact=0.1))
    assert said.startswith(f"it learned nothing: its held-out loss is {loss:.4f}, the base model's")
    assert "; set QLORA_RECIPE=facts, or set QLORA_MAX_LOSS_RATIO=1.01 to publish it" in said
    assert reasons(sound, Scores(loss=3.0, exact=0.0), Scores(loss=loss, exact=0.5)) == []


def test_following_that_sentence_publishes_it(sound: tuple[Path, Any]) -> None:
    both = Scores(loss=3.0, exact=0.0), Scores(loss=3.02, exact=0.0)
    assert reasons(sound, *both, MAX_LOSS_RATIO="1.01") == []


def test_what_was_set_is_what_the_sentence_asks_to_unset(sound: tuple[Path, Any]) -> None:
    (said,) = reasons(sound, Scores(loss=3.0), Scores(loss=2.995), MAX_STEPS="1", EPOCHS="1")
    assert "; leave QLORA_MAX_STEPS and QLORA_EPOCHS out, or" in said


@pytest.mark.parametrize(
    ("given", "step"),
    [
        ({"LEARNING_RATE": "0.5"}, "leave QLORA_LEARNING_RATE out"),
        ({}, "set QLORA_RECIPE=facts"),
        ({"RECIPE": "facts"}, "set QLORA_EPOCHS lower"),
    ],
)
def test_a_worse_loss_and_lost_ends_ask_for_less(
    sound: tuple[Path, Any], given: dict[str, str], step: str
) -> None:
    worse = Scores(loss=4.0, end_loss=5.0)
    loss, ends = reasons(sound, Scores(loss=3.0, end_loss=0.1), worse, **given)
    assert loss.startswith("its held-out loss is 4.0000, the base model's 3.0000, and")
    assert ends.startswith("where an answer ends it stops with a chance of 1%")
    assert f"; {step}" in loss and f"; {step}" in ends


def test_a_worse_loss_is_let_pass_where_more_held_out_answers_are_right(
    sound: tuple[Path, Any],
) -> None:
    """Answers that are right in other words than the references are: of those it is less sure."""
    base = Scores(loss=1.9, exact=0.0, told=0.1, f1=0.1)
    assert reasons(sound, base, Scores(loss=3.6, exact=0.0, told=0.6, f1=0.1)) == []
    for tuned in (Scores(loss=3.6, exact=0.0, told=0.1, f1=0.9), Scores(loss=float("inf"), told=1)):
        (said,) = reasons(sound, base, tuned)
        assert said.startswith("its held-out loss is ")


def test_ends_of_prose_alone_are_not_judged(sound: tuple[Path, Any]) -> None:
    both = Scores(loss=3.0, end_loss=0.1), Scores(loss=2.0, end_loss=5.0)
    assert reasons(sound, *both, counts={"records": 0}) == []


def test_forgetting_rejects_where_a_limit_is_set(sound: tuple[Path, Any]) -> None:
    both = Scores(loss=3.0, general_text=2.5), Scores(loss=1.0, general_text=4.75)
    assert reasons(sound, *both) == []
    assert reasons(sound, *both, MAX_FORGETTING="2.5") == []
    (said,) = reasons(sound, *both, MAX_FORGETTING="2", RECIPE="facts")
    assert said == (
        "its loss on general text rose by 2.25 nats a token, and QLORA_MAX_FORGETTING is 2; "
        "set QLORA_EPOCHS lower, or mix records of another kind into the data"
    )


def test_a_damaged_file_is_named_beside_what_was_measured(
    sound: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, model = sound
    shutil.copytree(folder, tmp_path / "cut")
    weights = tmp_path / "cut" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    damaged, worse = reasons((tmp_path / "cut", model), Scores(loss=3.0), Scores(loss=4.0))
    assert "is cut off or damaged" in damaged and "held-out loss is 4.0000" in worse
