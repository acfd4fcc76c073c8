"""Each beginning is read once, and nothing is copied before it is there."""

import random

import pytest

from trainer.engine.prompt import Prompt
from trainer.engine.prompt_reading import LEAST_SHARED, SLACK, HeldPrompts, Reading

SYSTEM, PASSAGE = list(range(100, 140)), list(range(200, 260))


def prompts(*ids: list[int]) -> list[Prompt]:
    return [Prompt(each, 5) for each in ids]


def numbers(held: HeldPrompts, first: int, *ids: list[int], tuned: bool = True) -> list[list[int]]:
    """Tokens that are read, wave by wave."""
    waves = held.readings(prompts(*ids), first, tuned=tuned)
    return [[len(reading.rest) for reading in wave] for wave in waves]


def test_a_beginning_that_prompts_share_is_read_with_the_first_of_them() -> None:
    given = [[*SYSTEM, 1, 2, 3], [*SYSTEM, 1, 2], [*SYSTEM, 4], [7, 8]]
    (first, second) = HeldPrompts(LEAST_SHARED).readings(prompts(*given), 5, tuned=True)
    assert first == [Reading(0, 5, tuple(given[0])), Reading(3, 8, (7, 8))]
    assert second == [Reading(1, 6, tuple(given[1]), 41, 5), Reading(2, 7, tuple(given[2]), 40, 5)]


def test_a_passage_in_a_system_prompt_is_read_once_too() -> None:
    given = [[*SYSTEM, 1], [*SYSTEM, *PASSAGE, 1], [*SYSTEM, *PASSAGE, 2], [*SYSTEM, *PASSAGE, 3]]
    assert numbers(HeldPrompts(LEAST_SHARED), 0, *given) == [[41], [61], [1, 1]]


def test_many_that_share_alike_take_two_passes_not_a_chain() -> None:
    noise = random.Random(3)
    given = [[*SYSTEM, *(noise.randrange(3) for _ in range(6))] for _ in range(40)]
    first, second = HeldPrompts(LEAST_SHARED).readings(prompts(*given), 0, tuned=True)
    assert len(first) == 1 and len(second) == 39
    assert all(len(reading.rest) <= 6 + SLACK for reading in second)


def test_what_rows_hold_is_not_read_again_while_the_weights_are_the_same() -> None:
    held = HeldPrompts(LEAST_SHARED)
    numbers(held, 0, [*SYSTEM, 1], [9])
    assert numbers(held, 1, [*SYSTEM, 5, 6]) == [[2]]
    assert numbers(held, 0, [*SYSTEM, 7, 8, 9]) == [[3]]  # in its own place
    assert numbers(held, 1, [*SYSTEM, 1], tuned=False) == [[41]]
    assert numbers(held, 1, [*SYSTEM, 1], tuned=True) == [[41]]


def test_a_row_that_is_overwritten_is_nobodys_source() -> None:
    held = HeldPrompts(LEAST_SHARED)
    numbers(held, 0, [*SYSTEM, 1], [7] * 50)
    assert numbers(held, 0, [3] * 9, [*SYSTEM, 2]) == [[9, 41]]
    held.move(1, 0)
    assert numbers(held, 1, [5]) == [[1]]
    assert numbers(held, 1, [*SYSTEM, 3]) == [[1]]  # of the row that was moved


def test_a_beginning_that_is_hardly_one_is_read_again() -> None:
    short = SYSTEM[: LEAST_SHARED - 1]
    assert numbers(HeldPrompts(LEAST_SHARED), 0, [*short, 1], [*short, 2]) == [[16, 16]]
    assert numbers(HeldPrompts(1000), 0, [*SYSTEM, 1], [*SYSTEM, 2]) == [[41, 41]]


def test_the_last_token_of_a_prompt_is_always_read() -> None:
    assert numbers(HeldPrompts(LEAST_SHARED), 0, SYSTEM, SYSTEM) == [[40], [1]]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_copied_is_there_and_the_same(seed: int) -> None:
    """Rows as lists of tokens, that are filled as the readings say."""
    noise = random.Random(seed)
    held, rows = HeldPrompts(LEAST_SHARED), [[0] * 300 for _ in range(12)]

    def prompt() -> list[int]:
        parts = [SYSTEM, PASSAGE, [5] * 20, [6] * 30]
        chosen = [part for part in parts if noise.random() < 0.5]
        return [token for part in chosen for token in part] + [noise.randrange(4) for _ in "abcd"]

    for _ in range(6):
        first = noise.randrange(8)
        given = prompts(*(prompt() for _ in range(noise.randrange(1, 12 - first + 1))))
        for wave in held.readings(given, first, tuned=True):
            for reading in wave:
                if reading.shared and reading.source != reading.row:
                    part = slice(0, reading.shared)
                    rows[reading.row][part] = rows[reading.source][part]
            for reading in wave:
                rows[reading.row][reading.shared : len(reading.ids)] = reading.rest
        for at, one in enumerate(given):
            assert rows[first + at][: len(one.ids)] == one.ids
