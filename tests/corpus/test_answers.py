"""A list of answers is parts of one, or several of which the first is trained: told either way."""

from collections import Counter
from typing import Any

import pytest

from trainer.corpus.answers import FURTHER_ANSWERS, JOINED, answer_of, has_no_answer
from trainer.corpus.examples import Unusable


def answer(value: Any, column: str = "answer") -> tuple[str, dict[str, int]]:
    counts: Counter[str] = Counter()
    return answer_of(value, f'"{column}"', counts), dict(counts)


@pytest.mark.parametrize(
    "names",
    [
        ["Paris", "City of Paris"],
        ["14 December 1972 UTC", "December 1972"],
        ["United Kingdom", "UK"],
        ["The Beatles", "Beatles"],
    ],
)
def test_names_of_the_same_are_one_answer(names: list[str]) -> None:
    assert answer(names) == (names[0], {FURTHER_ANSWERS: 1})


@pytest.mark.parametrize(
    "parts",
    [
        ["red", "yellow", "blue"],
        ["First open it.", "Then open the valve."],
        ["Save.", "Save as."],
        ["Click Save", "Click OK"],
        ["Bobby Scott", "Bob Russell"],
        ["Stop", "stop the pump first and wait for five minutes before you open"],
    ],
)
def test_parts_are_joined_and_told(parts: list[str]) -> None:
    assert answer(parts) == ("\n".join(parts), {JOINED: 1})


def test_one_entry_is_the_answer_and_nothing_to_tell() -> None:
    assert answer(["Paris"]) == ("Paris", {})


def test_the_advice_of_the_notice_helps() -> None:
    assert answer(["Clemens", "Twain"], "answers") == ("Clemens", {FURTHER_ANSWERS: 1})


def test_an_object_of_triviaqa_is_its_value() -> None:
    asked = {"value": "Paris", "aliases": ["Paris", "City of Light"], "type": "Wiki"}
    assert answer(asked) == ("Paris", {FURTHER_ANSWERS: 1})


def test_an_empty_list_is_no_answer_only_where_a_column_of_answers_has_it() -> None:
    assert has_no_answer([], '"answers"') and has_no_answer({"text": []}, '"answer"')
    assert not has_no_answer([], '"answer"')
    with pytest.raises(Unusable, match="holds no answer"):
        answer([])
