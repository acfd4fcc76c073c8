"""Names that a run's objects have, and what is read from records that may be broken."""

import json
from pathlib import Path

import pytest

from trainer.runs.layout import LATEST, checkpoint_name, finished_at, newest_run, step_of
from trainer.storage import FolderStore


@pytest.mark.parametrize("step", [1, 999_999, 1_000_000])
def test_the_step_of_a_checkpoint_is_in_its_name(step: int) -> None:
    assert step_of(checkpoint_name(step)) == step


@pytest.mark.parametrize("name", ["", "step-", "step-12", "step-000010.partial", "rejected"])
def test_any_other_name_is_no_checkpoint(name: str) -> None:
    assert step_of(name) == 0


def test_the_newest_run_is_the_one_that_latest_names(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert newest_run(store) is None
    store.write(LATEST, b'{"run_id": "mine", "finished": 1.5}')
    assert newest_run(store) == "mine"


@pytest.mark.parametrize("broken", [b"", b"[]", b"{}", b'{"run_id', b"\xff"])
def test_a_broken_record_names_no_run_and_finished_at_no_time(
    tmp_path: Path, broken: bytes
) -> None:
    store = FolderStore(tmp_path)
    store.write(LATEST, broken)
    assert newest_run(store) is None
    assert finished_at(broken) == 0.0


def test_when_a_run_finished_is_in_its_record() -> None:
    assert finished_at(b'{"finished": 12.5}') == 12.5
    assert finished_at(None) == 0.0


@pytest.mark.parametrize(
    "run_id",
    ["../../home", "/home/u/results", "a/b", "a\nb", "", ".hidden", "x" * 129, 5, None, ["a"]],
)
def test_what_cannot_be_a_run_is_none(tmp_path: Path, run_id: object) -> None:
    store = FolderStore(tmp_path)
    store.write(LATEST, json.dumps({"run_id": run_id}).encode())
    assert newest_run(store) is None


@pytest.mark.parametrize("text", ["1e999", "9e15", "-1", "NaN", '"5"', "true0", "[" * 100_000])
def test_a_time_that_no_clock_shows_is_none(text: str) -> None:
    """Else no later run would ever be the newest."""
    assert finished_at(b'{"finished": %s}' % text.encode()) == 0.0
