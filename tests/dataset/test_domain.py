"""Words tell what documents speak of, and what they do not is refused without a model."""

import json
from pathlib import Path

import pytest
from support.effort import calls_of

from trainer.corpus.examples import Message
from trainer.dataset.domain import DOMAIN, Domain, Vocabulary, names_in, stem

MANUAL = (
    "# Nortam A12",
    "Its list price is 540 euros. Every unit is covered by a warranty of 34 months.",
    "# The lift",
    "If the alarm sounds, leave the cabin. Repairs are done by Kim.",
)


def manual() -> Vocabulary:
    told = Vocabulary()
    for text in MANUAL:
        told.add(text)
    return told


@pytest.mark.parametrize(
    "question",
    [
        "How many euros is a Nortam A12?",
        "I bought a Nortam A12. How long is it under warranty?",
        "Who is the technician for the nortam a12?",
        "WHAT DO I PAY FOR THE NORTAM A12?",
        "What Do I Pay For The Nortam A12?",
        "Is Kim as good as Petra Stone?",  # one of two names
        "What do I do when the alarms go off?",
        "Who repaired it?",
        "What can you do?",
        "Who does repairs on Sundays?",  # a day names nothing
        "Is the warranty longer than 99 months?",  # a number names nothing
        "Is the price in EUR, and in German?",  # nor do letters or a language
        "What does Mr. Kim repair?",  # a title ends no sentence
        "Who is Kím?",
        "Who is Ki\u0301m?",
        "How much is a nortma a12?",
        "What is the waranty?",  # typed wrongly
        "How heavy is the lift?",  # a third of the words
        "Which one is cheapest?",  # one word alone says too little
        "Hello",
        "Good morning Bot, who does the repairs?",
        "Thank you!",
        "Norway is a kingdom. " * 20 + "Who reigns in Norway?",  # it brings its own text
    ],
)
def test_the_documents_speak_of(question: str) -> None:
    assert manual().speaks_of(question)


@pytest.mark.parametrize(
    "question",
    [
        "How many euros is a Nortam A13?",  # another one of these machines
        "What is the warranty of the Kelvir U57?",
        "What is the price of the Eiffel Tower?",
        "What is the capital of Norway?",
        "How do I boil an egg?",
        "How deep and salty is the ocean under the alarm?",  # one word of four
        "Who is Dr. House?",
        "Hi, how do I boil an egg?",
    ],
)
def test_the_documents_do_not_speak_of(question: str) -> None:
    assert not manual().speaks_of(question)


@pytest.mark.parametrize("name", ["Aquila-20", "Aquila 20", "aquila20", "AQUILA20"])
def test_a_name_with_a_number_is_one_however_it_is_joined(name: str) -> None:
    told = Vocabulary()
    told.add("The Aquila-20 is a pump.")
    assert told.speaks_of(f"What is the {name}?")
    assert not told.speaks_of(f"What is the {name}7?")


@pytest.mark.parametrize("words", ["Saturday Saturdays", "weigh weighs", "copy copies", "day days"])
def test_a_word_is_one_in_its_forms(words: str) -> None:
    assert len({stem(word) for word in words.split()}) == 1


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("My Nortam A12 stopped. Who helps?", ["Nortam A12"]),
        ("Nortam?", []),
        ("So -- Nortam. -- Alta, Bora - Cora: Dora", ["Nortam", "Bora", "Cora"]),
        ("Which port does HTTP/2 of the Great Server use?", ["HTTP", "2", "Great Server"]),
    ],
)
def test_names_are_words_with_a_capital_or_a_digit_inside_a_sentence(
    question: str, found: list[str]
) -> None:
    assert names_in(question) == found


@pytest.mark.parametrize("question", ["." * 200_000 + "a b" * 9, "is " * 100_000, "A. " * 100_000])
def test_a_question_of_any_length_takes_no_time(question: str) -> None:
    assert names_in(question) == []


def test_a_conversation_is_refused_where_no_turn_of_the_user_is_about_the_documents() -> None:
    domain = Domain(manual(), "It does not say.")
    asked = Message("user", "What is the price of the Nortam A12?")
    said, follows = Message("assistant", "540 euros."), Message("user", "And a blue whale?")
    assert not domain.refuses([asked, said, follows])
    assert domain.refuses([Message("system", "The Nortam A12."), follows])


HALF = '{"words": [], "refusal": "\\ud800 no"}'  # a character's
LONG = json.dumps({"words": [], "refusal": "a" * 4001})


def test_it_is_kept_in_a_file_and_a_damaged_one_is_an_error(tmp_path: Path) -> None:
    assert Domain.read(tmp_path) is None
    domain = Domain(manual(), "Das steht hier nicht: „nie“.")
    (tmp_path / DOMAIN).write_text(domain.as_json(), encoding="utf-8")
    assert Domain.read(tmp_path) == domain
    for text in (
        '{"words": ["a"]}',
        '{"words": [1], "refusal": ""}',
        "[",
        '{"words": 3}',
        LONG,
        HALF,
    ):
        (tmp_path / DOMAIN).write_text(text)
        with pytest.raises(ValueError):
            Domain.read(tmp_path)


@pytest.mark.parametrize("space", [" ", "\n"])
def test_many_spaces_in_a_question_take_no_time(space: str) -> None:
    """To look for a greeting behind each of them would take hours."""
    assert manual().speaks_of(f"Hello Kim, what is{space * 500_000}the price of a Nortam A12?")
    assert not manual().speaks_of(f"What is{space * 500_000}a Quetzal?")


def test_a_word_is_compared_with_few_of_a_large_vocabulary() -> None:
    """All of a million would take a minute for each word of a question."""
    told = Vocabulary({f"antenn{n}" for n in range(5_000)} | {"warrant"})
    calls = calls_of(lambda: told.speaks_of("What is the waranty of my antennzzae?"))
    assert 0 < calls["set_seq1"] <= 1100
    assert told.speaks_of("What is the waranty?")
    assert not told.speaks_of("Which antennzzae and quetzals?")
