"""`run.json`: typed, and on disk as it has always been."""

import json

import pytest
from support.run_records import RECORD, record

from trainer.errors import DataError
from trainer.reporting.run_record import DataCounts, RunRecord

KEYS = [
    "run_id", "version", "finished", "settings", "base", "inputs", "data", "device", "precision",
    "schedule", "micro_batch", "parameters", "training", "evaluation", "samples", "warnings",
    "rejected", "libraries", "seen",
]  # fmt: skip


def test_what_is_written_is_read_back_with_keys_and_order_as_ever() -> None:
    text = record().as_text()
    assert list(json.loads(text)) == KEYS
    assert RunRecord.from_json(json.loads(text)).as_text() == text


def test_a_kind_of_record_that_does_not_occur_is_not_on_disk() -> None:
    counts = {"files": 2, "completion": 3, "duplicates": 1}
    written = DataCounts.from_json(counts).to_json()
    assert list(written)[:3] == ["files", "completion", "duplicates"]
    assert "text" not in written and "conversation" not in written
    assert written["held_out"] == 0


def test_settings_are_kept_as_they_were_recorded() -> None:
    settings = RECORD["settings"] | {"of_a_later_version": 1}
    assert record(settings=settings).to_json()["settings"] == settings


@pytest.mark.parametrize("spoilt", [{}, RECORD | {"training": {}}, RECORD | {"inputs": 3}])
def test_a_record_of_something_else_is_named(spoilt: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"run\.json is of another program or damaged"):
        RunRecord.from_json(spoilt)
