"""One question at a time: its answer comes in pieces, and can be ended at any of them."""

import threading
from pathlib import Path

import pytest
from support.small_adapters import random_adapter

from trainer.errors import DataError
from trainer.inference.chat_model import ChatModel, load_chat_model
from trainer.settings import Settings

QUESTIONS = ["How heavy is the Curlew?", "What does the Plover cost?"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run: Path) -> ChatModel:
    return load_chat_model(str(run), Settings.read({}, {}, trains=False), None)


def said(model: ChatModel, question: str, *, tuned: bool = True) -> str:
    return "".join(model.stream(question, tuned=tuned))


def test_an_answer_comes_in_pieces_and_can_be_ended(model: ChatModel) -> None:
    pieces = model.stream(QUESTIONS[1])
    first = next(pieces)
    pieces.close()
    assert said(model, QUESTIONS[1]).startswith(first)
    assert len(list(model.stream(QUESTIONS[1]))) > 1


def test_a_question_that_is_too_long_is_named(model: ChatModel) -> None:
    with pytest.raises(DataError, match="tokens, more than the model reads; shorten it"):
        said(model, "word " * 2000)


def test_an_answer_that_is_ended_from_elsewhere_ends_with_the_next_token(model: ChatModel) -> None:
    threads = threading.active_count()
    whole = said(model, QUESTIONS[1])
    ended = "".join(model.stream(QUESTIONS[1], is_ended=lambda: True))
    assert whole.startswith(ended) and len(ended) < len(whole)
    assert threading.active_count() == threads
