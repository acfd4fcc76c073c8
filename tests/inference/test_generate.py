"""Answers to many questions: each as it would be alone, as many together as memory allows."""

from typing import Any

import pytest
import torch
from support.loaded import built_in_model

from trainer.dataset.eval_questions import Question
from trainer.inference import generate
from trainer.inference.generate import answer_questions, generate_replies

QUESTIONS = [Question(f"What is {n}?" + " Why?" * n, "It is.") for n in range(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return built_in_model(tmp_path_factory.mktemp("scratch"))


def test_answers_that_do_not_fit_together_are_given_in_halves(
    model: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = answer_questions(*model, QUESTIONS)
    generate_together, sizes = generate._generate, []

    def of_two_at_most(model: Any, tokenizer: Any, prompts: Any, max_new_tokens: int) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return generate_together(model, tokenizer, prompts, max_new_tokens)

    monkeypatch.setattr(generate, "_generate", of_two_at_most)
    assert answer_questions(*model, QUESTIONS) == together
    assert sizes == [5, 2, 2, 1]


def test_a_question_that_was_padded_is_answered_as_alone(model: tuple[Any, Any]) -> None:
    alone = [answer_questions(*model, [question])[0] for question in QUESTIONS]
    assert answer_questions(*model, QUESTIONS) == alone


def test_an_answer_that_is_cut_off_did_not_stop_by_itself(model: tuple[Any, Any]) -> None:
    asked = [question.question for question in QUESTIONS]
    cut, whole = (generate_replies(*model, asked, most) for most in (1, 40))
    assert not any(reply.stopped for reply in cut)
    assert all(w.text.startswith(c.text) for c, w in zip(cut, whole, strict=True))
    assert any(reply.stopped for reply in whole)


def test_no_question_has_no_answer(model: tuple[Any, Any]) -> None:
    assert answer_questions(*model, []) == []
