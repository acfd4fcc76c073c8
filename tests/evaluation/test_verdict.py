"""What a tuned model has learned, in a sentence."""

import pytest

from trainer.dataset.eval_questions import Question
from trainer.evaluation.compare import Evaluation, Scores
from trainer.evaluation.verdict import verdict, verdict_by_heart, what_to_change
from trainer.settings import Settings

SHORT = (Question("How much is it?", "149 euros"),)
LONG = (Question("Why?", "because " * 40),)


def given(**settings: str) -> Settings:
    return Settings.read({}, {f"QLORA_{n}": v for n, v in settings.items()}, trains=False)


def said(
    trained: Scores | None, held_out: Scores, asked: tuple[Question, ...] = SHORT, **settings: str
) -> str:
    evaluation = Evaluation(Scores(), held_out, asked, trained, 32)
    return "".join(verdict(evaluation, given(**settings)))


@pytest.mark.parametrize(
    ("trained", "held_out", "start"),
    [
        (1.0, 0.97, "it knows its data: 100% and 97% of the answers (32 trained questions, 1 held"),
        (1.0, 0.3, "it has learned its data by heart: 100% and 30% of the answers"),
        (0.2, 0.1, "it has not learned its data: 20% and 10% of the answers"),
        (0.2, 0.9, "it has not learned its data"),
    ],
)
def test_trained_and_new_wordings_tell_knowing_from_learning_by_heart(
    trained: float, held_out: float, start: str
) -> None:
    assert said(Scores(normalised=trained), Scores(normalised=held_out)).startswith(start)


def test_long_answers_are_judged_by_their_words() -> None:
    sentence = said(Scores(normalised=0.0, f1=0.7), Scores(normalised=0.0, f1=0.6), LONG)
    assert sentence.startswith("it knows its data: 70% and 60% of their words")


def test_without_questions_on_both_sides_nothing_is_said() -> None:
    assert said(None, Scores(normalised=1.0)) == ""
    assert said(Scores(normalised=1.0), Scores(), ()) == ""
    assert said(Scores(normalised=1.0), Scores()) == ""


@pytest.mark.parametrize(("known", "start"), [(1.0, "it has learned its data by heart: 100% of the "
    "answers (1 trained questions)"), (0.5, "it has not learned its data: 50%")])  # fmt: skip
def test_where_no_question_was_kept_back_that_is_said(known: float, start: str) -> None:
    asked_trained = Evaluation(Scores(), Scores(normalised=known), SHORT)
    first, second = verdict_by_heart(asked_trained, given())
    assert first.startswith(start)
    assert second.startswith("no question was kept back")
    assert not list(verdict_by_heart(Evaluation(Scores(), Scores(), ()), given()))


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({}, "set QLORA_RECIPE=facts"),
        ({"MAX_STEPS": "3", "EPOCHS": "1"}, "leave QLORA_MAX_STEPS unset"),
        ({"EPOCHS": "1", "LEARNING_RATE": "1e-4"}, "QLORA_EPOCHS and QLORA_LEARNING_RATE at auto"),
        ({"RECIPE": "style"}, "leave QLORA_RECIPE=style out"),
        ({"RECIPE": "facts"}, "use a larger base model"),
        ({"RECIPE": "facts", "EPOCHS": "5"}, "leave QLORA_EPOCHS at auto"),
        ({"NEFTUNE_ALPHA": "45"}, "lower QLORA_NEFTUNE_ALPHA"),
    ],
)
def test_the_next_step_is_never_one_that_was_taken(settings: dict[str, str], advice: str) -> None:
    assert advice in what_to_change(given(**settings))


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({}, "with one wording alone QLORA_RECIPE=facts and QLORA_NEFTUNE_ALPHA=10 helps"),
        ({"RECIPE": "facts"}, "with one wording alone QLORA_NEFTUNE_ALPHA=10 helps"),
        ({"NEFTUNE_ALPHA": "5"}, "trained in other words"),
        ({"BASE_MODEL": "builtin:tiny"}, "trained in other words"),
    ],
)
def test_what_helps_with_other_words_is_not_what_is_set(
    settings: dict[str, str], advice: str
) -> None:
    sentence = said(Scores(normalised=1.0), Scores(normalised=0.3), **settings)
    assert sentence.endswith(advice)
