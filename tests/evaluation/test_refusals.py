"""Refusals are counted: of questions that should be refused, and of those that should not."""

from trainer.dataset.eval_questions import Question
from trainer.evaluation.refusals import Refusals, count_refusals

REFUSAL = "The manual does not say."
ASKED = [
    Question("Who won?", "the manual does not say"),
    Question("Who lost?", REFUSAL),
    Question("How long is the warranty?", "Two years."),
    Question("How heavy is it?", "30 kg"),
]


def test_an_answer_with_the_words_of_the_refusal_is_one_whatever_its_case() -> None:
    answers = ["The manual does not say. Sorry!", "Spain", "THE MANUAL DOES NOT SAY", "30 kg"]
    assert count_refusals(ASKED, answers, REFUSAL) == Refusals(2, 1, 2, 1)


def test_where_nothing_is_refused_and_nothing_should_be_there_is_nothing_to_count() -> None:
    assert count_refusals(ASKED[2:], ["no", "no"], REFUSAL) is None
    assert count_refusals(ASKED, ["no"] * 4, "") is None
    assert count_refusals(ASKED, ["no"] * 4, REFUSAL) == Refusals(2, 0, 2, 0)


def test_a_caveat_says_which_way_the_share_should_go() -> None:
    assert Refusals(50, 45, 100, 2).caveat is None
    few, many = Refusals(50, 10, 100, 0).caveat, Refusals(50, 50, 100, 20).caveat
    assert few is not None and "10 of 50" in few and "raise QLORA_REFUSAL_SHARE" in few
    assert many is not None and "20 of 100" in many and "lower QLORA_REFUSAL_SHARE" in many
