"""Base against tuned: what is measured, how it is named, which answers are shown."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.loaded import built_in_model

from trainer.dataset.eval_questions import Question
from trainer.evaluation.asking import PORTIONS, Asking
from trainer.evaluation.compare import (
    SCORES,
    Evaluation,
    Score,
    Scores,
    _log,
    compare,
    score,
)
from trainer.evaluation.merged_answers import MergedAnswers
from trainer.inference.reply import Reply


def test_what_is_shown_is_measured() -> None:
    known = Scores().figures()
    assert {score.key for score in SCORES} <= known.keys()
    assert len({score.label for score in SCORES}) == len(SCORES)
    assert all(format(0.5, score.format) for score in SCORES)


def test_a_score_that_is_missing_or_not_finite_is_none() -> None:
    loss = Score("loss", "loss", ".1f", "loss")
    values = [loss.of(Scores(loss=given)) for given in (1.0, None, float("nan"), float("inf"))]
    assert values == [1.0, None, None, None]


def test_the_last_number_counts_where_most_answers_end_in_one() -> None:
    """In a FAQ it is the number of a product, which every answer repeats."""
    said = [Reply("It is 7", True), Reply("It is 8", True)]
    arithmetic = [Question("3 + 4?", "#### 7"), Question("How much?", "$9")]
    assert score({}, arithmetic, said).number == 0.5
    names = [Question("What is 7?", "The T7"), Question("How long is 8?", "8 months")]
    assert score({}, names, said).number is None


def test_the_loss_of_a_run_that_held_nothing_out_is_named_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    scores = Scores(loss=2.0, exact=0.5)
    asked = (Question("a?", "b"),) * 4
    for by in ("facts", "nothing"):
        merged = MergedAnswers(asked=4, same=4)
        _log(Evaluation(scores, scores, asked, merged=merged, by=by))
    held_out, sure, merged_too, trained, all_asked, _ = caplog.messages
    assert held_out == "held-out loss 2.0000 before, 2.0000 after"
    assert trained == "loss on trained data 2.0000 before, 2.0000 after"
    right = "asked 4 questions: 2 right before, 2 right after "
    assert sure == f"{right}(95 % sure: 15% to 85% of all such questions)"
    assert all_asked == f"{right}(all that are trained were asked)"
    assert merged_too.endswith("answers 4 of 4 questions as it does unmerged: either can be used")
    few = MergedAnswers(asked=4, same=3).in_words
    assert few.endswith("use the adapter on its base in four bits instead")


def test_scores_are_json_and_read_back_without_the_answers() -> None:
    scores = Scores(loss=float("nan"), exact=1.0, answers=("a",))
    written = json.loads(json.dumps(scores.figures(), allow_nan=False))
    assert Scores.from_json(written) == Scores(exact=1.0)
    assert list(written) == ["loss", "end_loss", "perplexity", "exact", "normalised",
        "contained", "told", "number", "f1", "stopped", "general_text", "general_answers",
        "judge",
    ]  # fmt: skip


def test_the_base_is_measured_without_its_adapter(tmp_path: Path) -> None:
    loaded, tokenizer = built_in_model(tmp_path)
    model: Any = get_peft_model(loaded, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    asked = [Question("How heavy is the Curlew?", "30.7 kg")]
    before = compare(model, tokenizer, [], asked)
    assert before.base == before.tuned
    assert before.base.loss is None and before.base.stopped == 1.0
    assert 0 < before.base.general_answers < 20 and before.base.general_text is not None
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    after = compare(model, tokenizer, [], asked)
    assert after.base == before.base != after.tuned
    assert before.merged is None
    compared = compare(model, tokenizer, [], asked, asked, stored=torch.float32)
    assert compared.merged == MergedAnswers(asked=2, same=2)
    assert after.figures()["base_f1"] == pytest.approx(before.base.f1)


def asked_with(limit_s: float | None, scratch: Path, questions: list[Question]) -> Evaluation:
    loaded, tokenizer = built_in_model(scratch)
    model: Any = get_peft_model(loaded, LoraConfig(r=2, target_modules=["q_proj"]))
    return compare(model, tokenizer, [], questions, how=Asking(limit_s=limit_s))


def test_questions_are_asked_in_portions_until_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PORTIONS, "cpu", 2)
    questions = [Question(f"What is {n}?", "so") for n in range(5)]
    found = asked_with(0.0, tmp_path, questions)
    assert len(found.tuned.answers) == len(found.base.answers) == len(found.questions) == 2
    assert found.left_out == 3 and found.questions == tuple(questions[:2])
    assert not asked_with(None, tmp_path, questions).left_out


def test_more_is_not_asked_where_it_would_say_no_more(tmp_path: Path) -> None:
    """None of 72 answers right is 0 to 5 %; 104 would make it 0 to 4 %."""
    questions = [Question(f"What is {n}?", "so") for n in range(128)]
    found = asked_with(1e9, tmp_path, questions)
    assert len(found.questions) == 72
    assert found.interval == "95 % sure: 0% to 5% of all such questions"
    assert replace(found, by="nothing").interval == "95 % sure: 0% to 5% of all trained ones"
    assert len(asked_with(None, tmp_path, questions).questions) == 128


def test_the_second_adapter_is_asked_what_the_first_one_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PORTIONS, "cpu", 2)
    loaded, tokenizer = built_in_model(tmp_path)
    model: Any = get_peft_model(loaded, LoraConfig(r=2, target_modules=["q_proj"]))
    questions = [Question(f"What is {n}?", "so") for n in range(5)]
    first = compare(model, tokenizer, [], questions, how=Asking(limit_s=0.0))
    again = compare(model, tokenizer, [], questions, base=first.base)
    assert again == first and len(again.questions) == 2
