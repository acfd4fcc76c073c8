"""Where attention has a window, short answers are our own loop's; all are transformers' tokens."""

from pathlib import Path
from typing import Any

import pytest
from support.small_models import tuned_model

from trainer.engine.greedy_decoder import GreedyDecoder
from trainer.engine.prompt import Prompt
from trainer.engine.running_answers import RunningAnswers
from trainer.inference.by_length import ByLength
from trainer.inference.generate import choose_decoder
from trainer.inference.stock_decoder import OneRunning, StockDecoder

WINDOW, MOST, NEVER = 64, 12, [331]
PROMPTS = [[(7 * n + at) % 330 + 1 for at in range(n)] for n in (5, 90, 52, 53, 20)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("base")
    return tuned_model("gemma3_text", folder, "all-linear", sliding_window=WINDOW).eval()


@pytest.fixture(scope="module")
def decoder(model: Any) -> ByLength:
    made = choose_decoder(model, NEVER, 0, engine=True)
    assert isinstance(made, ByLength)
    return made


def test_tokens_are_those_of_transformers(model: Any, decoder: ByLength) -> None:
    given: dict[str, Any] = {"tuned": True, "most_rows": 5}
    expected = dict(StockDecoder(model, NEVER, 0).answers(PROMPTS, MOST, **given))
    assert dict(decoder.answers(PROMPTS, MOST, **given)) == expected
    short, long = (list(decoder.stream(Prompt(PROMPTS[n], MOST), tuned=True)) for n in (0, 1))
    assert [short, long] == [expected[0], expected[1]]


def test_what_reaches_behind_the_window_is_left_to_transformers(decoder: ByLength) -> None:
    assert isinstance(decoder.open(1, WINDOW, MOST, tuned=True), RunningAnswers)
    assert isinstance(decoder.open(1, WINDOW + 1, MOST, tuned=True), OneRunning)


def test_a_model_without_a_window_is_answered_by_our_loop_alone(tmp_path: Path) -> None:
    made = choose_decoder(tuned_model("llama", tmp_path, "q_proj"), NEVER, 0, engine=True)
    assert isinstance(made, GreedyDecoder)
