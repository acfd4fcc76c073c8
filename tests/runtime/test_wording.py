"""Sentences count as people do."""

from pathlib import Path

import pytest

from trainer.runtime.wording import as_typed, columns, counted, hanging, lasting, this_command


def test_one_is_one_and_more_are_several():
    assert counted(1, "record") == "1 record"
    assert counted(0, "record") == "0 records"
    assert counted(2000, "record") == "2,000 records"
    assert counted(2, "copy", "copies") == "2 copies"


def test_times_are_in_units_that_fit():
    assert lasting(0.42) == "0.4 seconds"
    assert lasting(18) == "18 seconds"
    assert lasting(1800) == "30.0 minutes"
    assert lasting(30 * 3600) == "30.0 hours"


def test_a_text_goes_on_below_itself_or_further_to_the_right():
    said = "one two three four five six"
    assert hanging(said, 23, "a  ") == "a  one two three four\n   five six"
    assert hanging(said, 23, "a  ", 2) == "a  one two three four\n     five six"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ([], "leave QLORA_EPOCHS out, or set QLORA_RECIPE=facts"),
        (["--epochs", "4"], "leave --epochs out, or set QLORA_RECIPE=facts"),
        (["train", "--epochs=4", "--recipe", "style"], "leave --epochs out, or set --recipe=facts"),
        (["--epoch", "--env-file", ".env"], "leave QLORA_EPOCHS out, or set QLORA_RECIPE=facts"),
    ],
)
def test_a_setting_is_named_as_it_was_typed(
    typed: list[str], read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["entrypoint.py", *typed])
    said = "leave QLORA_EPOCHS out, or set QLORA_RECIPE=facts"
    assert as_typed(said) == hanging(said, 200, "") == read


def test_a_character_takes_as_much_room_as_a_terminal_gives_it():
    assert [columns(char) for char in "aü漢\u0301\u200d"] == [1, 1, 2, 0, 0]


@pytest.mark.parametrize(
    ("started", "typed"),
    [
        ("/opt/bin/qlora-job", "qlora-job"),
        ("entrypoint.py", ".venv/bin/python entrypoint.py"),
        ("/repository/trainer/__main__.py", ".venv/bin/python -m trainer"),
    ],
)
def test_a_command_is_told_as_this_one_was_started(
    started: str, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [started, "train"])
    monkeypatch.setattr("sys.executable", f"{Path.cwd()}/.venv/bin/python")
    assert this_command() == typed
    monkeypatch.setattr("sys.executable", "/elsewhere/bin/python3")
    assert this_command() == typed.replace(".venv/bin/python", "python")
