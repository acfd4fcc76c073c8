"""`evaluate`: what it prints, for a person and for a program."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.jobs import variables, write_records
from support.small_adapters import TINY
from transformers import AutoTokenizer

from trainer.commands.evaluate import (
    FORMS,
    MOST_SAMPLES,
    EvaluationResult,
    asking_as,
    evaluate_adapter,
)
from trainer.dataset.domain import Domain, Vocabulary
from trainer.dataset.eval_questions import Question
from trainer.errors import DataError, SettingsError
from trainer.evaluation.compare import Evaluation, Scores, WithPassages
from trainer.inference.chat_model import ChatModel
from trainer.settings import Settings

ASKED = tuple(Question(f"What\nis {n}?", f"{n}") for n in range(12))
RESULT = EvaluationResult(
    "s3://key:secret@bucket/run",
    "/home/somebody/data",
    3,
    Evaluation(
        Scores(loss=2.0, perplexity=7.389, exact=0.0, answers=("no " * 80,) * 12),
        Scores(loss=float("nan"), exact=0.5, answers=("1",) * 12),
        ASKED,
    ),
)


def test_scores_stand_side_by_side_a_missing_one_is_a_dash_and_what_nobody_has_is_left_out() -> (
    None
):
    lines = RESULT.as_text().splitlines()
    assert lines[0] == "12 questions and 3 blocks of /home/somebody/data"
    # Whoever names the data may have trained it.
    assert f"{'loss on this data':20}{'2.0000':>12}{'-':>12}   lower" in lines
    assert f"{'exact answers':20}{'0%':>12}{'50%':>12}   higher" in lines
    assert not any(line.startswith("stopped by itself") for line in lines)
    tuned = [line.split()[:2] for line in lines if line.startswith("  tuned")]
    assert len(tuned) == MOST_SAMPLES
    assert tuned.count(["tuned,", "right"]) == 1  # of "1", which is said to all
    assert all(len(line) <= 100 for line in lines)


def test_it_ends_with_what_that_says_and_the_next_command() -> None:
    said, _, command = RESULT.as_text().rpartition("\n\n")
    assert command.endswith(" ask --adapter s3://bucket/run")
    assert "what was asked" not in said  # where nobody counted what is right
    judged = RESULT.evaluation
    base = replace(judged.base, normalised=0.25)
    known = replace(judged, tuned=replace(judged.tuned, normalised=1.0), base=base)
    named = replace(RESULT, evaluation=known, base_model="here/a base").as_text()
    assert "it knows what was asked: 12 of 12 answers right, 3 of the base's (of other" in named
    assert named.endswith(" --base-model 'here/a base'")
    named = replace(RESULT, adapter="/runs of mine/one").as_text()
    assert named.endswith(" ask --adapter '/runs of mine/one'")
    unknown = replace(known, tuned=replace(judged.tuned, normalised=0.25))
    assert (
        "it does not know what was asked: 3 of 12 answers right"
        in replace(RESULT, evaluation=unknown).as_text()
    )
    assert " ask " not in replace(RESULT, form="merged").as_text().rpartition("\n\n")[2]


def test_what_is_judged_in_another_form_is_said() -> None:
    assert "nf4" not in RESULT.as_text()
    for form, words in (("merged", "as `merge` writes it"), ("16bit", "was not trained")):
        judged = replace(RESULT, form=form)
        assert words in judged.as_text().splitlines()[1]
        assert json.loads(judged.as_json())["as"] == form


def test_a_program_gets_every_question_and_no_name_of_this_machine() -> None:
    record = json.loads(RESULT.as_json())
    assert list(record) == [
        "adapter", "as", "data", "blocks", "questions", "base", "tuned", "trained", "merged",
        "judge", "left_out", "with_passages", "refusals", "samples",
    ]  # fmt: skip
    assert len(record["samples"]) == record["questions"] == 12
    assert record["samples"][1] == {
        "question": "What\nis 1?", "reference": "1", "base": "no " * 80, "tuned": "1",
        "base_cut": False, "tuned_cut": False,
    }  # fmt: skip
    assert record["tuned"]["loss"] is None
    assert "somebody" not in json.dumps(record) and "secret" not in json.dumps(record)


def test_answers_with_passages_in_view_are_rows_of_a_table() -> None:
    found = WithPassages(3, 12, Scores(told=0.5), Scores(told=0.75))
    judged = replace(RESULT, evaluation=replace(RESULT.evaluation, with_passages=found))
    rows = [line for line in judged.as_text().splitlines() if "with 3 passages" in line]
    assert [row.split()[:6] for row in rows] == [
        ["base", "with", "3", "passages", "50%", "(25-75%)"],
        ["adapter", "with", "3", "passages", "75%", "(47-91%)"],
    ]
    assert json.loads(judged.as_json())["with_passages"]["tuned"]["told"] == 0.75


def test_what_is_refused_for_its_words_is_judged_as_ask_answers_and_not_as_others_do() -> None:
    domain = Domain(Vocabulary({"curlew"}), "Not said.")
    model = ChatModel(None, AutoTokenizer.from_pretrained(TINY), "tiny", domain=domain)
    settings = Settings.read({}, {}, trains=False)
    found = [asking_as(form, model, settings).domain for form in ("nf4", *FORMS)]
    assert found == [domain, None, None]


@pytest.mark.parametrize(
    ("documents", "error", "words"),
    [
        ("ftp://host/manuals", SettingsError, "--documents=ftp://host/manuals: only folders"),
        ("records", DataError, "records: holds no document of 80 characters"),
    ],
)
def test_a_place_without_documents_is_refused_before_a_model_is_loaded(
    documents: str, error: type[Exception], words: str, tmp_path: Path
) -> None:
    write_records(tmp_path / "records" / "faq.jsonl")
    where = documents if "://" in documents else str(tmp_path / documents)
    with pytest.raises(error, match=re.escape(words)):
        evaluate_adapter("", Settings.read({}, variables(tmp_path)), None, documents=where)
