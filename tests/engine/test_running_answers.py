"""Answers that are made together: who joins late, leaves early or ends says what it says alone."""

from typing import Any

import pytest
from support.small_models import tuned_model

from trainer.engine.greedy_decoder import GreedyDecoder
from trainer.engine.prompt import Prompt
from trainer.engine.running_answers import RunningAnswers

PROMPTS = [[4, 9, 100], [7], [250, 3], [11, 12, 13, 14]]
NEVER, MOST = 331, 9


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> GreedyDecoder:
    model = tuned_model("llama", tmp_path_factory.mktemp("model"), "q_proj,v_proj").eval()
    return GreedyDecoder(model, [NEVER])


@pytest.fixture(scope="module")
def alone(decoder: GreedyDecoder) -> list[list[int]]:
    return [list(decoder.stream(Prompt(prompt, MOST), tuned=True)) for prompt in PROMPTS]


def opened(decoder: GreedyDecoder) -> RunningAnswers:
    running = decoder.open(3, 16, MOST, tuned=True)
    assert running.rows == 3
    return running


def to_the_end(running: RunningAnswers) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    while running:
        running.step()
        found |= running.take_ended()
    return found


def test_who_joins_late_or_has_a_limit_says_what_it_says_alone(
    decoder: GreedyDecoder, alone: list[Any]
) -> None:
    running = opened(decoder)
    running.join({7: Prompt(PROMPTS[0], MOST), 8: Prompt(PROMPTS[1], 4)})
    running.step()
    running.join({9: Prompt(PROMPTS[2], MOST)})
    assert running.newest(2) == [(9, alone[2][0])]
    assert not running.free and not running.take_ended()
    assert to_the_end(running) == {7: alone[0], 8: alone[1][:4], 9: alone[2]}


def test_who_leaves_makes_room_for_another(decoder: GreedyDecoder, alone: list[Any]) -> None:
    running = opened(decoder)
    running.join({number: Prompt(PROMPTS[number], MOST) for number in range(3)})
    running.step()
    running.leave(0)
    running.leave(2)
    assert running.free == 2
    running.join({3: Prompt(PROMPTS[3], MOST)})
    assert running.newest(1) == [(3, alone[3][0])]
    assert to_the_end(running) == {1: alone[1], 3: alone[3]}


def test_the_last_that_leaves_leaves_nothing_running(decoder: GreedyDecoder) -> None:
    running = opened(decoder)
    running.join({0: Prompt(PROMPTS[0], MOST)})
    running.leave(0)
    assert not running and running.free == 3 and running.take_ended() == []


def test_what_needs_more_places_than_a_row_has_does_not_fit(decoder: GreedyDecoder) -> None:
    running = opened(decoder)
    length = running._rows.length
    assert running.fits(Prompt([1] * (length - MOST), MOST))
    assert not running.fits(Prompt([1] * (length - MOST + 1), MOST))
    assert not running.fits(Prompt([1], MOST + 1))
