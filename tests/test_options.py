"""One option: what is typed becomes a value, and what it lacks is said."""

from dataclasses import dataclass, fields
from typing import Any

import pytest

from trainer.options import (
    INTERVAL,
    NAMES,
    NUMBER,
    WHOLE_OR_AUTO,
    WHOLE_OR_UNSET,
    Interval,
    Option,
    neutral,
    option,
    options_of,
    unquoted,
)


@pytest.mark.parametrize(
    ("parser", "raw", "value"),
    [
        (WHOLE_OR_UNSET, " ", None),
        (WHOLE_OR_UNSET, "7", 7),
        (WHOLE_OR_AUTO, "Auto", None),
        (NAMES, "q_proj, v_proj q_proj", ("q_proj", "v_proj")),
        (INTERVAL, "10M", Interval(minutes=10)),
        (INTERVAL, "200", Interval(steps=200)),
    ],
)
def test_what_is_typed_becomes_a_value(parser: Any, raw: str, value: Any) -> None:
    assert parser.parse(raw) == value


def test_a_flag_beats_a_variable_and_a_variable_the_default() -> None:
    rank = Option(name="lora_r", default="8", meaning="rank")
    assert rank.given({"lora_r": "2"}, {"QLORA_LORA_R": "4"}) == ("--lora-r", "2")
    assert rank.given({"lora_r": None}, {"QLORA_LORA_R": " '4' "}) == ("QLORA_LORA_R", "4")
    assert rank.given({}, {"QLORA_LORA_R": '""'}) == ("QLORA_LORA_R", "8")


def test_a_choice_may_be_written_in_capitals_and_yes_in_many_ways() -> None:
    pays = Option(default="no", meaning="who pays", choices=("no", "yes"))
    assert {pays.parse(raw) for raw in ("YES", "true", "On", "1")} == {"yes"}
    assert {pays.parse(raw) for raw in ("no", "False", "0")} == {"no"}
    assert list(pays.faults(pays.parse("perhaps"))) == ["needs one of no, yes"]


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        (0.5, []),
        (1.0, []),
        (0.0, ["needs more than 0"]),
        (1.5, ["needs at most 1"]),
        (float("nan"), ["needs a finite number"]),
        (float("inf"), ["needs a finite number", "needs at most 1"]),
        (None, []),
    ],
)
def test_a_number_is_held_to_its_limits(value: float | None, faults: list[str]) -> None:
    share = Option(default="1", meaning="a share", parser=NUMBER, above=0, most=1)
    assert list(share.faults(value)) == faults


def test_the_fields_of_a_dataclass_are_its_options_in_their_order() -> None:
    @dataclass
    class Few:
        rank: int = option("8", "rank")
        place: str = neutral("", "place", shown="here")

    rank, place = options_of(fields(Few))
    assert (rank.name, rank.env, rank.flag) == ("rank", "QLORA_RANK", "--rank")
    assert (rank.shown_default, place.shown_default) == ("8", "here")
    assert rank.changes_result and not place.changes_result


def test_quotes_that_an_env_file_leaves_are_taken_away() -> None:
    assert unquoted(' "my docs"\r\n') == "my docs"
    assert unquoted('it"s') == 'it"s'
