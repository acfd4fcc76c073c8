"""A run's last words name what was reached, the report and the one next command."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from trainer.dataset.holdout import HeldOutBy
from trainer.reporting.outcome import log_outcome

VERDICT = "it has not learned its data: 10% and 5% of the answers; set QLORA_RECIPE=facts"


def said(record: bytes | None, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.INFO):
        log_outcome(record, "s3://models/a b")
    return caplog.messages


def of(*warnings: str, **evaluation: Any) -> bytes:
    return json.dumps({"warnings": warnings, "evaluation": evaluation}).encode()


def test_the_verdict_comes_first_and_then_where_it_is(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/qlora-job"])
    assert said(of("it has forgotten general language: …", VERDICT), caplog) == [
        f"published, but {VERDICT}",
        "report: s3://models/a b/report.html",
        "ask it: qlora-job ask --adapter 's3://models/a b'",
    ]


def test_without_questions_it_is_the_loss(caplog: pytest.LogCaptureFixture) -> None:
    first, *_ = said(of(base={"loss": 3.0}, tuned={"loss": 2.5}), caplog)
    assert first == "no question was asked: the held-out loss went from 3.00 to 2.50"


def test_of_a_run_that_holds_nothing_out_it_is_that_of_trained_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = {
        "warnings": [],
        "evaluation": {"base": {"loss": 3.0}, "tuned": {"loss": 2.5}},
        "data": {"held_out_by": str(HeldOutBy.NOTHING)},
    }
    first, *_ = said(json.dumps(record).encode(), caplog)
    assert first == "no question was asked: the loss on trained data went from 3.00 to 2.50"


def test_a_base_in_a_folder_is_named_in_the_command(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a base").mkdir()
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        log_outcome(None, "runs/r", Path("a base"))
    assert caplog.messages[-1].endswith(f" --adapter runs/r --base-model '{tmp_path}/a base'")


@pytest.mark.parametrize("record", [None, b"no JSON", b"{}", of(base={}, tuned={}), b"[]"])
def test_a_record_that_says_nothing_ends_no_run(
    record: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = said(record, caplog)
    assert (first[:8], second[:8]) == ("report: ", "ask it: ")
