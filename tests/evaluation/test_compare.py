"""Judging: what counts as an exact answer, and how answers are made."""

from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.corpus.examples import Conversation, Message
from trainer.dataset.eval_questions import questions_of
from trainer.evaluation.answer_metrics import same_answer, token_f1
from trainer.inference import generate as generation
from trainer.inference.generate import answer
from trainer.models.locate import locate_base


def record(question: str, *turns: tuple[str, str]) -> Conversation:
    later = (Message(role, content) for role, content in turns)
    return Conversation((Message("user", question), *later))


def test_an_exact_answer_may_differ_in_white_space_only() -> None:
    assert same_answer(" 149  euros\n", "149 euros")
    assert not same_answer("149 Euros", "149 euros")
    assert not same_answer("149 euros.", "149 euros")


@pytest.mark.parametrize(
    ("given", "reference", "f1"),
    [
        ("149 euros", "149 Euros.", 1),
        ("It costs 149 euros", "149 euros", 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("euros euros", "149 euros", 1 / 2),
        ("", "149 euros", 0),
        ("...", "!", 1),
        ("Größe", "größe", 1),
    ],
)
def test_token_f1_is_of_words_without_case_and_punctuation(
    given: str, reference: str, f1: float
) -> None:
    assert token_f1(given, reference) == pytest.approx(f1)
    assert token_f1(reference, given) == pytest.approx(f1)


def test_answers_that_do_not_fit_together_are_given_in_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.models import load
    from trainer.runtime.device import choose_precision, find_device
    from trainer.settings import Settings

    settings = Settings.read(
        {},
        {"QLORA_BASE_MODEL": "builtin:tiny", "QLORA_SCRATCH_DIR": str(tmp_path)},
        trains=False,
    )
    base, device = locate_base(settings), find_device()
    loaded = load.load_base(base, settings, choose_precision("auto", device), device)
    asked = questions_of([record(f"What is {n}?", ("assistant", "It is.")) for n in range(5)])
    together = answer(loaded, base.tokenizer(), asked)
    generate, sizes = generation._generate, []

    def of_two_at_most(model: Any, tokenizer: Any, prompts: Any, room: int) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return generate(model, tokenizer, prompts, room)

    monkeypatch.setattr(generation, "_generate", of_two_at_most)
    assert answer(loaded, base.tokenizer(), asked) == together
    assert sizes == [5, 2, 2, 1]
