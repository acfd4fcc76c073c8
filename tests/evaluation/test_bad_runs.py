"""Five runs that go wrong as runs do: each says what is wrong, and following that mends it."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.jobs import run_here
from support.machines import Records, facts, shuffled, write_facts

from trainer.errors import RejectedError

FOUR, ONE, UNLIKE = facts(range(4)), facts(range(1)), facts(range(5, 6))
SETTINGS = {
    "TARGET_MODULES": "all-linear",
    "EPOCHS": "20",
    "EFFECTIVE_BATCH_SIZE": "2",
    "CHECKPOINT_EVERY": "10m",
    "LEARNING_RATE": "",
    "MAX_STEPS": "",
}


def record_of(
    folder: Path, trained: Records = FOUR, asked: Records | None = None, **changes: str
) -> dict[str, Any]:
    """`run.json` of a run on `trained`, also of one that was rejected."""
    write_facts(folder, trained, asked)
    given = SETTINGS | {"EVAL_URI": str(folder / "asked")} | changes
    try:
        run = run_here(folder, **given)
    except RejectedError:
        (run,) = folder.glob("out/*/rejected")
    return dict(json.loads((run / "run.json").read_text()))


def said(record: dict[str, Any]) -> str:
    return "; ".join([*record["rejected"], *record["warnings"]])


@pytest.fixture(scope="module")
def mended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run that all advice leads to: as many steps and as high a rate as the data needs, in
    blocks that hold the records, four wordings of each fact, each answer beside its question."""
    return record_of(tmp_path_factory.mktemp("mended"))


def test_the_run_that_all_advice_leads_to_knows_its_data(mended: dict[str, Any]) -> None:
    assert mended["rejected"] == []
    assert mended["warnings"][0].startswith("it knows its data")
    assert mended["data"]["length_for_all"] == mended["data"]["truncated"] == 0
    assert mended["data"]["misplaced_answer"] == []


def test_one_step_is_too_few(tmp_path: Path, mended: dict[str, Any]) -> None:
    bad = record_of(tmp_path, MAX_STEPS="1")
    assert "it has not learned its data: 0% and 0%" in said(bad)
    assert "leave QLORA_MAX_STEPS and" in said(bad)
    assert mended["settings"] == bad["settings"] | {
        name: mended["settings"][name]
        for name in ("max_steps", "data_uri", "eval_uri", "output_uri")
    }


def test_a_rate_a_hundred_times_too_high_is_rejected(
    tmp_path: Path, mended: dict[str, Any]
) -> None:
    write_facts(tmp_path, FOUR)
    rate = 100 * mended["schedule"]["learning_rate"]
    given = SETTINGS | {"EVAL_URI": str(tmp_path / "asked"), "LEARNING_RATE": f"{rate:.3f}"}
    with pytest.raises(RejectedError, match="QLORA_LEARNING_RATE"):
        run_here(tmp_path, **given)


def test_one_wording_is_learned_by_heart(tmp_path: Path) -> None:
    bad = record_of(tmp_path, ONE, UNLIKE, EPOCHS="60")
    assert "it has learned its data by heart" in said(bad)
    assert "write each question in three or four ways" in said(bad)
    assert bad["data"]["wordings"] == 1.0


def test_answers_in_wrong_rows_are_named_before_anything_else(tmp_path: Path) -> None:
    bad = record_of(tmp_path, shuffled(FOUR), MAX_STEPS="4")
    assert "answers do not belong to their questions" in said(bad)
    assert "; put each answer beside its own question" in bad["warnings"][0]


def test_answers_that_are_cut_ask_for_the_length_that_holds_them(
    tmp_path: Path, mended: dict[str, Any]
) -> None:
    bad = record_of(tmp_path, MAX_LENGTH="28")
    assert bad["data"]["truncated"] > 0.4 * bad["data"]["records"]
    assert f"lose their end: {mended['settings']['max_length']} would hold all of them" in said(bad)
    assert f"; set QLORA_MAX_LENGTH={mended['settings']['max_length']}" in said(bad)
