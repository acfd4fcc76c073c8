"""The page that a person reads of a run."""

import re
from dataclasses import asdict
from typing import Any

import pytest
from support.run_records import HOSTILE, RECORD, ROWS, record

from trainer.reporting.html_report import charts, render_report


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    page = render_report(record(), ROWS)
    assert "<script" not in page
    assert not re.search(r"https?:|url\(|@import|src=|href=", page)
    assert page.count("<svg") == 4
    for words in ("2.000 → 1.000", "0% → 100%", "10% → 100%", "accepted", "1 min 30 s"):
        assert words in page


def test_a_rejected_run_says_so_with_the_reason_first() -> None:
    page = render_report(record(rejected=["its held-out loss is worse"]), ROWS)
    assert page.index("Its held-out loss is worse.") < page.index("Worth knowing")
    assert "accepted" not in page


def test_a_page_of_a_run_without_questions_steps_or_finite_losses_is_still_a_page() -> None:
    empty = record(samples=[], evaluation={"questions": 0, "base": {}, "tuned": {}})
    for rows in ([], [{"step": 1, "loss": None, "learning_rate": 1e-3}]):
        page = render_report(empty, rows)
        assert "too few steps" in page
        assert "no question to ask" in page


def test_an_exact_answer_is_marked() -> None:
    page = render_report(record(), ROWS)
    assert page.count("✓") == 1
    assert page.index("before") < page.index("✓")


def test_a_page_of_many_files_names_some_and_a_long_run_stays_small() -> None:
    files = [{"name": f"{n}.txt", "size": n, "sha256": "0"} for n in range(5000)]
    rows = [ROWS[0] | {"step": n, "seconds": n} for n in range(1, 20_000)]
    page = render_report(record(inputs=files), rows)
    assert "4,900 more" in page
    assert len(page) < 100_000


def test_what_a_file_or_an_answer_holds_is_text_and_not_markup() -> None:
    page = render_report(record(run_id=HOSTILE, rejected=[HOSTILE]), ROWS)
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;|") >= 6
    assert "<script" not in page


def test_records_stand_as_the_model_saw_them_with_what_was_trained_marked() -> None:
    pieces = [("<s>", False, True), ("Why?", False, False), ("So\n <b>", True, False)]
    pieces += [("</s>", True, True)]
    seen = {"file": "faq.csv", "number": 2, "count": 3, "tokens": 9, "trained_tokens": 4,
            "sequences": 1, "cut": False,
            "pieces": [dict(zip(("text", "trained", "special"), piece, strict=True))
                       for piece in pieces]}  # fmt: skip
    page = render_report(record(seen=[seen]), ROWS)
    assert "<h3>faq.csv, 2 of 3: 9 tokens, 4 trained</h3>" in page
    assert (
        "<pre><b>&lt;s&gt;</b>Why?<mark>So\n &lt;b&gt;</mark><mark><b>&lt;/s&gt;</b></mark></pre>"
    ) in page
    assert "As the model saw it" not in render_report(record(), ROWS)


def test_kinds_of_files_are_a_table() -> None:
    kinds = {".csv": {"files": 1, "records": 1200}, HOSTILE: {"files": 2, "records": 0}}
    page = render_report(record(data=RECORD["data"] | {"by_file_type": kinds}), ROWS)
    assert "<td>.csv</td><td>1</td><td>1,200</td>" in page
    assert "<script" not in page


def test_a_score_that_was_not_measured_is_a_dash_or_left_out() -> None:
    scores = {"questions": 1, "base": {"loss": 2.0}, "tuned": {"exact": 0.5}}
    page = render_report(record(evaluation=scores), ROWS)
    for words in ("2.000 → -", "- → 50%"):
        assert words in page
    assert "token F1" not in page


def test_a_long_run_s_losses_are_smoothed_and_the_base_s_is_a_level() -> None:
    few, many = (charts(record(), ROWS[:1] * count)[0].lines for count in (2, 30))
    assert [line.shape for line in few] == ["level", "line", "dots"]
    assert [line.role for line in many][:2] == ["faint", "second"]


def test_the_base_s_loss_on_all_blocks_is_no_level_for_a_curve_of_a_part() -> None:
    training = RECORD["training"] | {"held_out_blocks": 7, "measured_blocks": 1}
    lines = charts(record(training=training), ROWS)[0].lines
    assert [line.name for line in lines] == ["training", "part of held-out"]


def test_the_report_says_how_many_answers_the_merged_model_gives() -> None:
    evaluation = RECORD["evaluation"] | {"merged": {"asked": 60, "same": 59}}
    assert "it answers 59 of 60 questions as it does unmerged" in render_report(
        record(evaluation=evaluation), ROWS
    )


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"kept_step": 1, "kept_because": "better answers"}, "of step 1: better answers"),
        ({"planned_steps": 9}, "2 of 9: ended early"),
        ({"held_out_blocks": 9, "measured_blocks": 3}, "of 3 of 9 held-out blocks; the scores"),
        ({"held_out_blocks": 9, "measured_blocks": 9}, "of all 9 held-out blocks"),
    ],
)
def test_which_step_was_kept_and_what_the_curve_is_of_is_said(
    training: dict[str, Any], words: str
) -> None:
    known = asdict(record().training)
    assert words in render_report(record(training=known | training), ROWS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"held_out_by": "wordings"}, "question about facts that are trained in other words"),
        ({"held_out_by": "nothing"}, "questions, all of which were trained"),
        ({"held_out_by": "facts"}, "record whole, with their questions and answers"),
        ({}, "1 record or document"),
    ],
)
def test_what_was_held_out_and_so_what_is_measured_is_said(
    data: dict[str, Any], words: str
) -> None:
    known = record().data.to_json()
    assert words in render_report(record(data=known | data), ROWS)


def test_answers_with_passages_in_view_are_a_table_where_there_are_some() -> None:
    sides = {"base": {"told": 0.5}, "tuned": {"told": 1.0}}
    found = {"passages": 3, "questions": 50} | sides
    page = render_report(record(evaluation=RECORD["evaluation"] | {"with_passages": found}), ROWS)
    assert "<td>base with 3 passages</td><td>50% (37-63%)</td>" in page
    assert "right tool" in page and "right tool" not in render_report(record(), ROWS)


def test_what_was_refused_is_a_sentence_where_something_was() -> None:
    refusals = {"unanswerable": 50, "refused": 45, "answerable": 100, "wrongly": 2}
    page = render_report(record(evaluation=RECORD["evaluation"] | {"refusals": refusals}), ROWS)
    assert "refused 45 of 50 (79-96%) that should be, and 2 of 100 (1-7%)" in page
    assert "that should be" not in render_report(record(), ROWS)
