"""The form of a sentence gives the question that it answers."""

import pytest

from trainer.preparation import forms


def first_of(statement: str, beside: str = "", about: bool = False) -> list[str]:
    return [form.questions[0] for form in forms.questions(statement, beside, about=about)]


@pytest.mark.parametrize(
    ("statement", "questions"),
    [
        ("If one fan stops, the other goes on.", ["What happens if one fan stops?"]),
        ("Once your kiln is hot, you should wait.", ["What should I do once my kiln is hot?"]),
        ("If you need to dry a hat, open the lid.", ["How can I dry a hat?"]),
        ("To open the lid, push the green knob.", ["How can I open the lid?"]),
        ("You can also dry wet hats by turning them.", ["How can I dry wet hats?"]),
        ("You can dry hats and scarves at night.", ["Can I dry hats and scarves at night?"]),
        ("Use the small ladder to reach your shelf.", ["What can I use to reach my shelf?"]),
        ("Open the lid by turning it.", ["How can I open the lid?"]),
        ("The lid stays shut because it is heavy.", ["Why is it that the lid stays shut?"]),
        ("There are three doors in the hall.", ["How many doors are there?"]),
        ("The Nora is a dryer of hats.", ["What is the Nora?"]),
        ("`turn()` - Turns the fan by one step.", ["What is `turn()`?"]),
        ("Wet hats must not be ironed.", ["Must wet hats be ironed?"]),
    ],
)
def test_each_form_has_its_question(statement: str, questions: list[str]) -> None:
    assert first_of(statement, "Many wet hats are here.") == questions


@pytest.mark.parametrize(
    "statement",
    [
        "The fan turns at night.",
        "If this is so, the other fan goes on.",  # which nobody knows who asks
        "If you are looking for more, see the manual of it.",
        "When using the old fan the lid is shut, and it stays so.",  # where the condition ends?
        "If so, it is the lid.",
        "You can do 20 hats in it.",
    ],
)
def test_what_has_none_or_cannot_be_asked_alone_has_no_question(statement: str) -> None:
    assert first_of(statement) == []


def test_a_name_keeps_its_capital_and_a_word_at_the_beginning_does_not() -> None:
    said = "Copper lids must be cleaned."
    assert first_of(said, "They are copper lids.") == ["Must copper lids be cleaned?"]
    assert first_of(said, "They are lids.") == ["Must Copper lids be cleaned?"]


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("Burnt combs are buried in the yard.", "Burnt combs"),
        ("The bow ramp must be locked at night.", "the bow ramp"),
        ("The decision is taken by Kim.", ""),  # which one?
        ("They are buried in the yard.", ""),
        ("The first of them is red.", ""),
        ("On Mondays it is closed.", ""),
    ],
)
def test_what_a_sentence_begins_with_is_asked_about_where_it_has_a_name(
    statement: str, named: str
) -> None:
    assert [q[23:-1] for q in first_of(statement, about=True) if "know" in q] == [named][
        : len(named)
    ]


def test_what_something_is_asks_for_it_by_name() -> None:
    named = [f.named for f in forms.questions("The Nora is a dryer.", "", about=False)]
    assert named == [True]
    assert not forms.questions("If one fan stops, the other goes on.", "")[0].named


def test_a_long_sentence_takes_no_time() -> None:
    words = "the lid of the fan of the kiln " * 9
    assert (
        forms.questions(f"The {words} can not {words} and is not {words}", words, about=False) == []
    )
