"""What is written of an evaluation: JSON, and read back from other versions."""

import json

from trainer.dataset.eval_questions import Question
from trainer.evaluation.compare import Evaluation, Scores, WithPassages
from trainer.evaluation.refusals import Refusals
from trainer.reporting.recorded_evaluation import RecordedEvaluation


def test_a_score_of_another_version_is_left_out_and_one_that_is_missing_was_not_measured() -> None:
    scores = RecordedEvaluation.from_json({"questions": 3, "base": {"loss": 1.0, "bleu": 0.5}})
    assert scores.base == Scores(loss=1.0)
    assert scores.tuned == Scores()
    assert scores.to_json()["tuned"] == dict.fromkeys(Scores().figures())


def test_a_loss_that_is_not_finite_is_json() -> None:
    evaluation = Evaluation(Scores(loss=2.0), Scores(loss=float("nan"), exact=1.0), ())
    written = RecordedEvaluation.of(evaluation).to_json()
    assert json.loads(json.dumps(written, allow_nan=False))["tuned"]["loss"] is None


def test_how_many_questions_were_asked_and_left_out_is_kept() -> None:
    asked = Evaluation(Scores(), Scores(), (Question("Why?", "so"),), left_out=4)
    written = RecordedEvaluation.of(asked).to_json()
    assert (written["questions"], written["left_out"]) == (1, 4)
    assert RecordedEvaluation.from_json(written).left_out == 4
    assert RecordedEvaluation.from_json({"questions": 3}).left_out == 0


def test_what_was_answered_with_passages_in_view_is_kept() -> None:
    found = WithPassages(3, 1, Scores(told=0.5), Scores(told=1.0, f1=0.25))
    asked = Evaluation(Scores(), Scores(), (Question("Why?", "so"),), with_passages=found)
    written = json.loads(json.dumps(RecordedEvaluation.of(asked).to_json()))
    assert RecordedEvaluation.from_json(written).with_passages == found
    assert RecordedEvaluation.from_json({}).with_passages is None


def test_what_was_refused_is_kept() -> None:
    asked = Evaluation(Scores(), Scores(), (), refusals=Refusals(50, 45, 100, 2))
    written = json.loads(json.dumps(RecordedEvaluation.of(asked).to_json()))
    assert RecordedEvaluation.from_json(written).refusals == asked.refusals
    assert RecordedEvaluation.from_json({}).refusals is None


def test_how_sure_the_exact_answers_are_is_told_where_some_were_asked() -> None:
    questions = tuple(Question(f"{number}?", "so") for number in range(40))
    asked = RecordedEvaluation.of(Evaluation(Scores(), Scores(exact=0.5), questions))
    assert asked.sure("facts") == "95 % sure: 35% to 65% of all such questions"
    assert asked.sure("nothing") == "all that are trained were asked"
    assert RecordedEvaluation.of(Evaluation(Scores(), Scores(), ())).sure("facts") == ""
