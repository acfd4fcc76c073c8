"""Answers to many questions: each as it would be alone, as many together as memory allows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.loaded import built_in_model

from trainer.dataset.domain import Domain, Vocabulary
from trainer.dataset.eval_questions import Question
from trainer.engine import greedy_decoder
from trainer.engine.decode_rows import DecodeRows
from trainer.inference.generate import Answerer
from trainer.inference.known_replies import KnownReplies
from trainer.inference.reply import Reply

QUESTIONS = [Question(f"What is {n}?" + " Why?" * n, "It is.") for n in range(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return built_in_model(tmp_path_factory.mktemp("scratch"))


def ask(answerer: Answerer, questions: Sequence[Question] = QUESTIONS) -> list[Reply]:
    most = answerer.longest(questions)
    return answerer.replies([question.question for question in questions], most)


@pytest.fixture
def answerer(model: tuple[Any, Any]) -> Iterator[Answerer]:
    with Answerer(*model) as made:
        yield made


def test_answers_that_do_not_fit_together_are_given_in_halves(
    model: tuple[Any, Any], answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, sizes = ask(answerer), []

    class FewRows(DecodeRows):
        def __init__(self, model: Any, rows: int, *more: Any) -> None:
            sizes.append(rows)
            if rows > 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            super().__init__(model, rows, *more)

    monkeypatch.setattr(greedy_decoder, "DecodeRows", FewRows)
    with Answerer(*model) as short:
        assert ask(short) == together
    assert sizes == [5, 2]


def test_what_is_beside_the_domain_is_refused_in_its_place(
    model: tuple[Any, Any], answerer: Answerer
) -> None:
    told = Vocabulary()
    told.add("The Curlew weighs 3 kg.")
    asked = [Question(f"How heavy is the {n}?", "It is.") for n in ("Curlew", "Plover", "Curlew")]
    with Answerer(*model, domain=Domain(told, "Not said.")) as bound:
        heavy, refused, again = ask(bound, asked)
        base = bound.replies(["How heavy is the Plover?"], 4, tuned=False)
    assert heavy == again == ask(answerer, asked[:1])[0]
    assert refused == Reply("Not said.", stopped=True)
    assert base[0].ids


def test_what_was_answered_before_memory_ran_out_is_not_asked_again(
    model: tuple[Any, Any], answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [question.question for question in QUESTIONS]
    whole = answerer.replies(asked, 40)
    read, steps = [], []

    class RunsOut(DecodeRows):
        def admit(self, prompts: Any, first: int, *, tuned: bool) -> None:
            read.append(len(prompts))
            super().admit(prompts, first, tuned=tuned)

        def step(self, running: int, *, tuned: bool) -> None:
            steps.append(running)
            if len(steps) > 1 and steps[-1] < steps[-2] and len(read) == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            super().step(running, tuned=tuned)

    monkeypatch.setattr(greedy_decoder, "DecodeRows", RunsOut)
    with Answerer(*model) as short:
        assert short.replies(asked, 40) == whole
    assert read[0] == len(asked) and sum(read[1:]) < len(asked)


def test_a_question_beside_others_is_answered_as_alone(answerer: Answerer) -> None:
    alone = [ask(answerer, [question])[0] for question in QUESTIONS]
    assert ask(answerer) == alone


def test_an_answer_that_is_cut_off_did_not_stop_by_itself(answerer: Answerer) -> None:
    asked = [question.question for question in QUESTIONS]
    cut, whole = (answerer.replies(asked, most) for most in (1, 40))
    assert not any(reply.stopped for reply in cut)
    assert all(w.text.startswith(c.text) for c, w in zip(cut, whole, strict=True))
    assert any(reply.stopped for reply in whole)


def test_no_question_has_no_answer(answerer: Answerer) -> None:
    assert ask(answerer, []) == []


def test_the_base_is_not_asked_again_what_it_has_answered(
    model: tuple[Any, Any], answerer: Answerer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [question.question for question in QUESTIONS]
    whole, read = answerer.replies(asked, 20, tuned=False), []

    class Counted(DecodeRows):
        def admit(self, prompts: Any, first: int, *, tuned: bool) -> None:
            read.append(len(prompts))
            super().admit(prompts, first, tuned=tuned)

    monkeypatch.setattr(greedy_decoder, "DecodeRows", Counted)
    for first, count in ((0, 3), (2, 3), (0, 5)):  # three new ones, two more, none
        with Answerer(*model, base_replies=KnownReplies(tmp_path, "base")) as knowing:
            part = slice(first, first + count)
            assert knowing.replies(asked[part], 20, tuned=False) == whole[part]
    assert read == [3, 2]
    with Answerer(*model, base_replies=KnownReplies(tmp_path, "base")) as knowing:
        assert knowing.replies(asked, 20) == whole  # a tuned model is always asked
    assert sum(read) == 10


def test_a_question_that_is_asked_twice_is_answered_twice(
    model: tuple[Any, Any], tmp_path: Path
) -> None:
    with Answerer(*model, base_replies=KnownReplies(tmp_path, "base")) as knowing:
        one, other = knowing.replies(["Why?", "Why?"], 9, tuned=False)
    assert one == other


def test_transformers_answers_the_same_where_the_engine_is_off(
    model: tuple[Any, Any], answerer: Answerer
) -> None:
    with Answerer(*model, engine=False) as stock:
        assert ask(stock) == ask(answerer)
