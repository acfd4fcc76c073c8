"""The English forms of questions go with the kind of thing that a sentence says."""

import pytest

from trainer.preparation import checks, english

PRICE = "Its list price is 540 euros without delivery."


def test_a_beginning_is_given_where_the_sentence_can_answer_it() -> None:
    assert not {" Who", " When", " Why", " How long"} & set(english.beginnings(PRICE, False))
    assert {" How much", " How many"} <= set(english.beginnings(PRICE, False))
    assert {" Who", " When"} <= set(english.beginnings("Kim rests on Mondays.", True))


def test_a_quantity_is_asked_of_the_subject_only_where_it_is_its_own() -> None:
    (money,) = english.about_quantities(PRICE, "the HG-2")
    assert money[0] == "How much does the HG-2 cost?"
    assert not english.about_quantities("A repair costs 50 euros.", "the HG-2")
    assert not english.about_quantities("Its price is in euros.", "the HG-2")


@pytest.mark.parametrize(
    ("statement", "topic"),
    [
        ("Its list price is 540 euros.", "list price"),
        ("Repairs are done by Kim.", "repairs"),
        ("Every unit is covered.", ""),
        ("Packed for dispatch it weighs 3 kg.", ""),
    ],
)
def test_what_a_sentence_says_something_of_is_read_off_its_form(statement: str, topic: str) -> None:
    assert english.said_of(statement) == topic


@pytest.mark.parametrize(
    ("statement", "own", "topics"),
    [
        ("It is covered by a warranty of 3 years.", "length", {"", "warranty", "length"}),
        ("Its list price is 540 euros.", "price", {"list price", "price"}),
        ("The tree on the square is a pine.", "pine", {""}),
        ("It has a weekly market.", "a daily market", {""}),
        ("It weighs 3 kg.", "the weight", {"", "weight"}),
    ],
)
def test_topics_are_what_the_form_shows_and_words_that_are_not_the_sentence_s(
    statement: str, own: str, topics: set[str]
) -> None:
    assert set(english.topics(statement, own)) == topics


def test_a_price_is_asked_for_as_people_do_where_the_sentence_is_about_it() -> None:
    cost = "How much does the HG-2 cost?"
    asked = english.about_topic("list price", PRICE, "the HG-2", False)
    assert asked[:2] == ["What is the list price of the HG-2?", cost]
    for topic, statement in (("warranty", PRICE), ("price", "The fee is 5 euros, the price high.")):
        assert cost not in english.about_topic(topic, statement, "the HG-2", False)


@pytest.mark.parametrize("topic", ["warranty", "repairs"])
def test_questions_about_a_topic_are_sound_and_differ(topic: str) -> None:
    statement = "Its warranty and repairs by Linus last 34 months."
    asked = english.about_topic(topic, statement, "the HG-2", True)
    assert len(asked) == len(set(asked)) >= 6
    for question in asked:
        assert checks.why_unusable(question, statement, "the HG-2", []) is None, question


@pytest.mark.parametrize(
    ("question", "statement", "fits"),
    [
        ("How long does it last?", "It lasts 3 months.", True),
        ("How long does it last?", "It costs 3 euros.", False),
        ("How heavy is it?", "It weighs 3 kg.", True),
        ("When is it open?", "It opens on Mondays.", True),
        ("When is it open?", "It opens 3 doors.", False),
        ("Where is it?", "It stands in Bern.", True),
        ("What is it?", "It stands.", True),
    ],
)
def test_question_words_ask_for_a_kind_of_thing(question: str, statement: str, fits: bool) -> None:
    assert english.gives_what_is_asked(question, statement, False) is fits
