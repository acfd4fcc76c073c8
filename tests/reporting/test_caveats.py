"""What a reader should know before trusting an adapter."""

from typing import Any

import pytest

from trainer.dataset.eval_questions import Question
from trainer.evaluation.compare import Evaluation, Scores
from trainer.evaluation.merged_answers import MergedAnswers
from trainer.monitoring.step_log import StepRow
from trainer.reporting.caveats import find_caveats
from trainer.reporting.run_record import DataCounts
from trainer.settings import Settings


def held_out(*losses: float) -> list[StepRow]:
    return [{"step": n, "held_out_loss": loss} for n, loss in enumerate(losses, 1)]


SOUND = {"files": 1, "skipped": 0, "truncated": 0, "fully_masked": 0, "records": 100}
ASKED = tuple(Question(str(n), "a") for n in range(40))


@pytest.mark.parametrize(
    ("data", "rows", "questions", "base", "tuned", "words"),
    [
        ({}, held_out(3, 2, 1, 1), 40, Scores(loss=3), Scores(loss=1), None),
        ({"skipped": 2}, held_out(), 40, Scores(loss=3), Scores(loss=1), "2 files or records"),
        (
            {"truncated": 9, "length_for_most": 640, "length_for_all": 960},
            held_out(),
            40,
            Scores(loss=3),
            Scores(loss=1),
            "9 of 100 records (9%) are longer than QLORA_MAX_LENGTH=512 and lose their end: 960",
        ),
        (
            {},
            held_out(),
            40,
            Scores(loss=3, general_text=2.5),
            Scores(loss=1, general_text=4.0),
            "rose from 2.50 to 4.00; set QLORA_RECIPE=facts, which forgets less",
        ),
        (
            {},
            held_out(),
            40,
            Scores(loss=3, general_text=2.5),
            Scores(loss=1, general_text=3.4),
            None,
        ),
        ({}, held_out(), 40, Scores(loss=2), Scores(loss=3), "rose from 2.00 to 3.00: it is surer"),
        ({}, held_out(), 0, Scores(), Scores(), "nothing could be held out"),
        ({}, held_out(), 0, Scores(loss=2), Scores(loss=1), "no question was held out"),
        ({}, held_out(), 5, Scores(loss=2), Scores(loss=1), "one of them is 20%"),
        (
            {},
            held_out(3, 1, 2, 2),
            40,
            Scores(loss=3),
            Scores(loss=2),
            "best at step 2 (1.0000)",
        ),
        (
            {"held_out": 25, "held_out_by": "facts"},
            held_out(3, 2, 1, 1),
            40,
            Scores(loss=3),
            Scores(loss=1),
            "25 records were held out whole",
        ),
        (
            {"held_out_by": "nothing"},
            held_out(3, 2, 1, 1),
            0,
            Scores(loss=3),
            Scores(loss=1),
            "the loss is that of trained text",
        ),
        ({}, held_out(4, 3, 2, 1), 40, Scores(loss=4), Scores(loss=1), "more epochs may do"),
        ({}, held_out(), 40, Scores(loss=4), Scores(loss=1, stopped=0.5), "50% of the answers did"),
        (
            {},
            held_out(),
            40,
            Scores(loss=4, f1=0.5),
            Scores(loss=1, f1=0.25),
            "from 50% to 25%",
        ),
    ],
)
def test_what_a_reader_should_know_is_said(
    data: dict[str, Any], rows: list[StepRow], questions: int, base: Scores, tuned: Scores,
    words: str | None,
) -> None:  # fmt: skip
    evaluation = Evaluation(base, tuned, ASKED[:questions])
    settings = Settings.read({}, {}, trains=False)
    found = find_caveats(DataCounts.from_json(SOUND | data), rows, evaluation, settings)
    assert len(found) == (0 if words is None else 1)
    assert words is None or words in found[0]


@pytest.mark.parametrize(("same", "is_said"), [(40, False), (39, False), (37, True)])
def test_that_a_merged_model_answers_otherwise_is_said(same: int, is_said: bool) -> None:
    judged = Evaluation(
        Scores(loss=4), Scores(loss=1), ASKED, merged=MergedAnswers(asked=40, same=same)
    )
    settings = Settings.read({}, {}, trains=False)
    found = find_caveats(DataCounts.from_json(SOUND), held_out(), judged, settings)
    said = [words for words in found if "its merged model answers 3 of 40 questions" in words]
    assert bool(said) == is_said


@pytest.mark.parametrize(
    ("kept", "words"),
    [(2, "the adapter is that of that step"), (4, "a lower rate would do better"), (None, "lower")],
)
def test_a_loss_that_rose_matters_less_where_the_best_step_was_kept(
    kept: int | None, words: str
) -> None:
    settings = Settings.read({}, {}, trains=False)
    evaluation = Evaluation(Scores(loss=3), Scores(loss=1), ASKED)
    (found,) = find_caveats(
        DataCounts.from_json(SOUND), held_out(3, 1, 2, 2), evaluation, settings, kept_step=kept
    )
    assert words in found


def test_questions_that_were_not_asked_are_told_with_the_interval() -> None:
    asked = Evaluation(Scores(loss=4), Scores(loss=1, exact=0.5), ASKED[:40], left_out=24)
    settings = Settings.read({}, {}, trains=False)
    (said,) = find_caveats(DataCounts.from_json(SOUND), [], asked, settings)
    assert "40 of 64 questions were asked" in said and "35% to 65%" in said
