"""A run in three sentences: what the bot knows, how sure that is, what to do next."""

import pytest
from support.run_records import ROWS, record

from trainer.dataset.eval_questions import Question
from trainer.evaluation.compare import Evaluation, Scores
from trainer.evaluation.verdict import verdict, verdict_by_heart
from trainer.reporting.html_report import render_report
from trainer.reporting.summary import others, summary
from trainer.settings import Settings

ASKED = (Question("How much is it?", "149 euros"),) * 40
SOUND = {"records": 10}


def warned(known: float, new: float | None) -> list[str]:
    """What a run says that answered so; of one that kept no question back, without `new`."""
    settings = Settings.read({}, {}, trains=False)
    scores = Scores(normalised=known)
    if new is None:
        return list(verdict_by_heart(Evaluation(Scores(), scores, ASKED), settings, SOUND))
    found = Evaluation(Scores(), Scores(normalised=new), ASKED, scores, 32)
    return list(verdict(found, settings, SOUND))


@pytest.mark.parametrize(
    ("known", "new", "knows", "step"),
    [
        (1.0, 0.95, "It knows its data", "Ask it in your users' words"),
        (
            1.0,
            0.25,
            "It answers what it was trained on; the same",
            "Write each question",
        ),
        (1.0, None, "It answers what it was trained on; nobody", "Write each question"),
        (0.2, 0.1, "It has not learned its data yet", "Set QLORA_RECIPE=facts"),
        (0.2, None, "It has not learned its data yet", "Set QLORA_RECIPE=facts"),
    ],
)
def test_each_verdict_is_said_in_words_with_how_sure_and_what_next(
    known: float, new: float | None, knows: str, step: str
) -> None:
    found = summary(record(warnings=["something else", *warned(known, new)]))
    assert found.knows.startswith(knows)
    assert found.step.startswith(step)
    asked = known if new is None else new
    assert f"{asked:.0%}" in found.sure and "40" in found.sure
    # Of all trained questions nothing is unsure.
    assert ("all 40 trained" if new is None else "95 % sure") in found.sure


def test_long_answers_are_summed_up_by_their_words() -> None:
    long = (Question("Why?", "because " * 40),) * 9
    found = Evaluation(Scores(), Scores(f1=0.6), long, Scores(f1=0.7), 32)
    warnings = list(verdict(found, Settings.read({}, {}, trains=False), SOUND))
    said = summary(record(warnings=warnings)).sure
    assert said == (
        "70% and 60% of their words (token F1) were right (32 trained questions, 9 held-out ones)"
    )


def test_of_few_questions_the_verdict_says_how_little_is_sure() -> None:
    (said,) = verdict(
        Evaluation(Scores(), Scores(normalised=0.8), ASKED[:5], Scores(normalised=1.0), 5),
        Settings.read({}, {}, trains=False),
        SOUND,
    )
    assert "5 held-out ones, of the latter 95 % sure 38% to 96%)" in said


def test_without_questions_the_losses_speak() -> None:
    found = summary(record(warnings=[], evaluation={"questions": 0, "base": {}, "tuned": {}}))
    assert (found.sure, "asked no question" in found.knows) == ("", True)
    assert "from 2.00 to 1.00" in summary(record(warnings=["x"])).sure


def test_the_page_begins_with_it_and_does_not_say_it_twice() -> None:
    told = record(warnings=[*warned(1.0, 0.25), "the rest"])
    page = render_report(told, ROWS)
    assert (
        page.index("in other words it often misses")
        < page.index('class="card"')
        < page.index("The rest.")
    )
    assert others(told) == ["the rest"]
    assert "it has learned its data by heart" not in page
