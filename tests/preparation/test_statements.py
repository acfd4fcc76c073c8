"""What a passage states: whole sentences that say something by themselves, and their subject."""

import pytest

from trainer.dataset.passages import Passage
from trainer.preparation.statements import left_over, statements_of


def texts(text: str) -> list[str]:
    return [statement.text for statement in statements_of(Passage(text, "a.md", ""))]


def test_sentences_and_list_items_are_statements_and_what_says_nothing_is_none() -> None:
    text = (
        "# Dryer HG-2\n\nThe fan, e.g. of No. 4, turns 3.5 times. Short one.\n"
        "It is\nmade of steel.\n"
        "```\nfan.turn(now) is not prose here.\n```\n| a row of | a table is none. |\n\n"
        "- The [lid](a.md) is closed by a spring.\n- The motor hums at night!\n"
        "Is it loud at all, then? You can also see how it turns..."
    )
    assert texts(text) == [
        "The fan, e.g. of No. 4, turns 3.5 times.",
        "The fan, e.g. of No. 4, turns 3.5 times. It is made of steel.",
        "The lid is closed by a spring.",
        "The motor hums at night!",
    ]
    assert left_over(Passage(text, "a.md", "")) == [
        "| a row of | a table is none. |",
        "Short one.",
        "Is it loud at all, then?",
        "You can also see how it turns...",
    ]


def test_a_sentence_that_leans_on_the_one_before_stands_with_it_or_not_at_all() -> None:
    assert texts(
        "This makes it quite warm. The fan turns at night. However, it rests at noon."
    ) == ["The fan turns at night. However, it rests at noon."]


def test_marks_of_quotations_notes_and_emphasis_are_no_words_and_names_in_code_keep_theirs() -> (
    None
):
    text = (
        '!!! note "Care"\n    The **fan** turns at _night_ by `__turn__` alone.\n\n'
        "> The lid is *closed* by a spring.\n\nSee the page on lids for more of it.\n"
    )
    assert texts(text) == [
        "The fan turns at night by `__turn__` alone.",
        "The lid is closed by a spring.",
    ]


def test_a_pronoun_stands_with_what_it_means_unless_the_heading_is_that() -> None:
    text = "The fan Ada turns at night. It was built in 1993. It has two blades."
    assert texts(text)[1:] == [
        "The fan Ada turns at night. It was built in 1993.",
        "The fan Ada turns at night. It has two blades.",
    ]
    named = statements_of(Passage(text, "a.md", "Ada"))
    assert [s.text for s in named][1:] == ["It was built in 1993.", "It has two blades."]


@pytest.mark.parametrize(
    ("text", "section", "subject"),
    [
        ("The Dryer HG-2 turns at night.", "Machines > Dryer HG-2", "the Dryer HG-2"),
        ("At night Nora turns and turns.", "Nora > Care", "Nora"),
        ("It is warm there. Nora turns and turns.", "Nora > Care", "Nora"),
        ("Doors are shut at night. Whoever comes waits.", "Nora > Care", ""),
        ("It turns at night, and then it rests.", "Dryer > Care", "Care"),
        ("It turns at night, and then it rests.", "", ""),
    ],
)
def test_the_subject_is_the_heading_that_the_text_uses_as_a_name(
    text: str, section: str, subject: str
) -> None:
    assert {s.subject for s in statements_of(Passage(text, "a.md", section))} == {subject}
