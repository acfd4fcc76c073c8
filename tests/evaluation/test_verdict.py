"""What a tuned model has learned, in a sentence."""

from dataclasses import replace

import pytest

from trainer.dataset.eval_questions import Question
from trainer.evaluation.compare import Evaluation, Scores
from trainer.evaluation.verdict import (
    answers_improved,
    caution,
    forgetting,
    forgotten,
    verdict,
    verdict_by_heart,
    what_to_change,
    what_to_soften,
)
from trainer.settings import Settings

SHORT = (Question("How much is it?", "149 euros"),)
LONG = (Question("Why?", "because " * 40),)
SOUND = {"records": 10}


def settings_of(**given: str) -> Settings:
    return Settings.read({}, {f"QLORA_{n}": v for n, v in given.items()}, trains=False)


def said(
    trained: Scores | None, held_out: Scores, asked: tuple[Question, ...] = SHORT, **settings: str
) -> str:
    evaluation = Evaluation(Scores(), held_out, asked, trained, 32)
    return "".join(verdict(evaluation, settings_of(**settings), SOUND))


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


@pytest.mark.parametrize(
    ("known", "start"),
    [
        (1.0, "it has learned its data by heart: 100% of the answers (1 trained question)"),
        (0.5, "it has not learned its data: 50%"),
    ],
)
def test_where_no_question_was_kept_back_that_is_said(known: float, start: str) -> None:
    asked_trained = Evaluation(Scores(), Scores(normalised=known), SHORT)
    first, second = verdict_by_heart(asked_trained, settings_of(), SOUND)
    assert first.startswith(start)
    assert second.startswith("no question was kept back")
    assert not list(verdict_by_heart(Evaluation(Scores(), Scores(), ()), settings_of(), SOUND))


def test_of_trained_questions_that_time_left_out_the_rest_is_unsure() -> None:
    part = Evaluation(Scores(), Scores(normalised=1.0), SHORT * 20, left_out=30)
    first, _ = verdict_by_heart(part, settings_of(), SOUND)
    assert "(20 of 50 trained questions, 95 % sure 84% to 100% of them all)" in first
    whole, _ = verdict_by_heart(replace(part, left_out=0), settings_of(), SOUND)
    assert "(all 20 trained questions)" in whole


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({}, "set QLORA_RECIPE=facts"),
        ({"MAX_STEPS": "3", "EPOCHS": "1"}, "leave QLORA_MAX_STEPS and QLORA_EPOCHS out"),
        ({"EPOCHS": "1", "LEARNING_RATE": "1e-4"}, "QLORA_EPOCHS and QLORA_LEARNING_RATE out"),
        ({"RECIPE": "style"}, "leave QLORA_RECIPE=style out"),
        ({"RECIPE": "facts"}, "set QLORA_EPOCHS to twice the passes of this run"),
        ({"RECIPE": "facts", "EPOCHS": "120"}, "or use a larger base model"),
        ({"RECIPE": "facts", "EPOCHS": "5"}, "leave QLORA_EPOCHS out"),
        ({"NEFTUNE_ALPHA": "45"}, "lower QLORA_NEFTUNE_ALPHA"),
    ],
)
def test_the_next_step_is_never_one_that_was_taken(settings: dict[str, str], advice: str) -> None:
    assert advice in what_to_change(settings_of(**settings), SOUND)


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


def test_known_in_trained_words_alone_asks_for_more_and_other_wordings() -> None:
    found = Evaluation(Scores(), Scores(normalised=0.2), SHORT, Scores(normalised=1.0), 32)
    for number, step in ((1.0, "in three or four ways"), (4.0, "in more ways, and less alike")):
        (said,) = verdict(found, settings_of(), SOUND | {"wordings": number})
        assert step in said


def test_answers_in_wrong_rows_come_before_all_else() -> None:
    mixed = {"records": 10, "truncated": 4, "misplaced_answer": ["What is a?", "It is b."]}
    for trained in (0.2, 1.0):
        found = Evaluation(Scores(), Scores(normalised=0.1), SHORT, Scores(normalised=trained), 32)
        (said,) = verdict(found, settings_of(MAX_STEPS="1"), mixed)
        assert said.endswith("; put each answer beside its own question")


def test_records_that_are_cut_come_before_what_was_set() -> None:
    cut = {"records": 10, "truncated": 4, "fully_masked": 1, "length_for_all": 960}
    for advice in (what_to_change, what_to_soften):
        words = advice(settings_of(LEARNING_RATE="1e-4"), cut)
        assert words == "set QLORA_MAX_LENGTH=960, or split the records it cuts"


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({}, "set QLORA_RECIPE=facts, which forgets less"),
        ({"LEARNING_RATE": "0.5"}, "leave QLORA_LEARNING_RATE out, or lower it"),
        ({"RECIPE": "facts"}, "set QLORA_EPOCHS lower, or mix records of another kind"),
    ],
)
def test_what_was_unlearned_asks_for_less_of_what_was_set(
    given: dict[str, str], advice: str
) -> None:
    assert what_to_soften(settings_of(**given), SOUND).startswith(advice)


@pytest.mark.parametrize(
    ("base", "tuned", "lost", "is_said"),
    [(2.5, 2.8, 0.3, False), (2.5, 3.6, 1.1, True), (6.5, 9.0, None, False), (None, None, None, 0)],
)
def test_a_model_that_could_speak_can_forget_it(
    base: float | None, tuned: float | None, lost: float | None, is_said: bool
) -> None:
    found = Evaluation(Scores(general_text=base), Scores(general_text=tuned), SHORT)
    assert forgotten(found) == (lost if lost is None else pytest.approx(lost))
    said = list(forgetting(found, settings_of(), SOUND))
    assert len(said) == is_said
    assert all("rose from 2.50 to 3.60; set QLORA_RECIPE" in sentence for sentence in said)


def test_a_loss_of_no_number_is_forgetting_too() -> None:
    found = Evaluation(Scores(general_text=2.5), Scores(general_text=float("nan")), SHORT)
    assert len(list(forgetting(found, settings_of(), SOUND))) == 1


@pytest.mark.parametrize(
    ("before", "tuned", "trained", "improved"),
    [
        (0.0, 0.0, 0.0, False),
        (0.2, 0.3, 0.3, False),  # of 40 and 32 questions: chance
        (0.2, 0.8, None, True),
        (0.2, 0.2, 0.9, True),
        (0.8, 0.2, 0.2, False),
    ],
)
def test_answers_improved_when_more_of_them_are_right_than_by_chance(
    before: float, tuned: float, trained: float | None, improved: bool
) -> None:
    known = None if trained is None else Scores(exact=trained)
    found = Evaluation(Scores(exact=before), Scores(exact=tuned), SHORT * 40, known, 32)
    assert answers_improved(found) == improved


def test_answers_worded_otherwise_than_their_references_have_improved_where_they_tell_more() -> (
    None
):
    found = Evaluation(Scores(exact=0.0, told=0.1), Scores(exact=0.0, told=0.8), SHORT * 40)
    assert answers_improved(found)


def test_of_a_model_that_has_not_learned_its_data_that_is_said() -> None:
    failed = "it has not learned its data: 6% of the answers (60 asked); set …"
    said = "do not rely on its answers: it has not learned its data: 6% of the answers (60 asked)"
    assert caution(["something else", failed]) == said
    assert caution(["it knows its data: 97%"]) is caution([]) is None
