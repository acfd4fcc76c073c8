"""`run.json`: typed, and on disk as it has always been."""

import json

import pytest
from support.run_records import RECORD, record

from trainer.errors import DataError
from trainer.evaluation.compare import Evaluation, Scores
from trainer.reporting.run_record import DataCounts, RecordedEvaluation, RunRecord

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


def test_a_score_of_another_version_is_left_out_and_one_that_is_missing_was_not_measured() -> None:
    scores = RecordedEvaluation.from_json({"questions": 3, "base": {"loss": 1.0, "bleu": 0.5}})
    assert scores.base == Scores(loss=1.0)
    assert scores.tuned == Scores()
    assert scores.to_json()["tuned"] == dict.fromkeys(Scores().figures())


def test_a_loss_that_is_not_finite_is_json() -> None:
    evaluation = Evaluation(Scores(loss=2.0), Scores(loss=float("nan"), exact=1.0), ())
    written = RecordedEvaluation.of(evaluation).to_json()
    assert json.loads(json.dumps(written, allow_nan=False))["tuned"]["loss"] is None


@pytest.mark.parametrize("spoilt", [{}, RECORD | {"training": {}}, RECORD | {"inputs": 3}])
def test_a_record_of_something_else_is_named(spoilt: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"run\.json is of another program or damaged"):
        RunRecord.from_json(spoilt)
