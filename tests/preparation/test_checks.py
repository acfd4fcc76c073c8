"""Questions that cannot be trained on are left out with their reason."""

import pytest

from trainer.preparation import checks

STATEMENT = "Its warranty lasts 34 months from the day of delivery."
OTHERS = ["Repairs are done by Linus.", "Dryer HG-2"]
SUBJECT = "the Dryer HG-2"


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ("How long is the warranty of the Dryer HG-2?", None),
        ("Can you tell me about the warranty of the Dryer HG-2?", None),
        ("How many months does the warranty of the Dryer HG-2 last?", None),
        ("The warranty of the Dryer HG-2", checks.NO_QUESTION),
        ("Dryer HG-2?", checks.NO_QUESTION),
        ("How long is the warranty?", checks.UNNAMED),
        ("How long is the warranty of the Dryer HG-20?", checks.UNNAMED),
        ("What lasts 34 months with the Dryer HG-2?", checks.HOLDS_ANSWER),
        ("Does the warranty of the Dryer HG-2 last?", checks.HOLDS_ANSWER),
        ("Who gives the warranty of the Dryer HG-2?", checks.OTHER_KIND),
        ("How many floors has the Dryer HG-2?", checks.OTHER_KIND),
        ("Why is there a warranty of the Dryer HG-2?", checks.OTHER_KIND),
    ],
)
def test_a_question_names_its_subject_and_asks_for_what_is_said(
    question: str, reason: str | None
) -> None:
    assert checks.why_unusable(question, STATEMENT, SUBJECT, OTHERS) == reason


def test_a_question_that_holds_all_that_is_said_teaches_nothing() -> None:
    question, said = "Which machine is the HG-2?", "The HG-2 is one of our machines."
    assert checks.why_unusable(question, said, "the HG-2", []) == checks.NOTHING_NEW


@pytest.mark.parametrize(
    ("words", "fits"),
    [("list price", True), ("", False), ("HG", False), ("the", False), ("a b c d", False)],
)
def test_a_topic_is_short_and_no_name(words: str, fits: bool) -> None:
    assert checks.is_topic(words, "the HG-2") is fits


def test_a_name_that_stands_beside_it_too_is_no_news() -> None:
    assert checks.news("HTTPX sends HTTP/2 to Kim.", ["HTTPX is a client."]) == {"http/2", "kim"}


def test_what_the_form_of_a_sentence_gives_may_hold_numbers_and_be_closed() -> None:
    question, said = "What happens if it has 20 teeth?", "If it has 20 teeth, the wheel stops."
    assert checks.why_unusable(question, said, "", []) == checks.HOLDS_ANSWER
    assert checks.why_unusable(question, said, "", [], by_form=True) is None
    assert checks.why_unusable(question, said, "the HG-2", [], by_form=True) == checks.UNNAMED


def test_near_copies_are_told_from_other_wordings() -> None:
    kept = ["What is the price of the HG-2?"]
    assert checks.is_near_copy("What is the price of HG-2?", kept)
    assert not checks.is_near_copy("What does the HG-2 cost?", kept)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("The HG-2 costs 540 euros.", "540 euros", True),
        ("The housing is yellow.", "yellow", True),
        ("540 euros without delivery", "The HG-2 costs 540 euros.", True),
        ("The HG-2 costs 450 euros.", "The HG-2 costs 540 euros.", False),
        ("It is yellow.", "It is green.", False),
        ("not said", "540 euros", False),
        ("", "540 euros", False),
    ],
)
def test_answers_are_the_same_by_what_they_tell_beyond_the_question(
    one: str, other: str, same: bool
) -> None:
    question = "What does the HG-2 cost, and what colour is the housing?"
    assert checks.same_answer(one, other, question) is same
