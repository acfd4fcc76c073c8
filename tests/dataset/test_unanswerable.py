"""Questions that the documents do not answer are made of those that they do, and checked."""

import pytest

from trainer.dataset.unanswerable import (
    INVENTED,
    OTHER_KIND,
    OTHER_TOPIC,
    Vocabulary,
    refusals,
    subject,
    unanswerable,
)
from trainer.settings import Settings

ENGLISH = [(f"How heavy is the Curlew A{n}?", f"Curlew A{n}") for n in range(20)]
GERMAN = [(f"Wie schwer ist der Brachvogel A{n}?", f"Brachvogel A{n}") for n in range(20)]


def told_in(*texts: str) -> Vocabulary:
    told = Vocabulary()
    for text in texts:
        told.add(text)
    return told


@pytest.mark.parametrize(
    ("question", "section", "found"),
    [
        ("How heavy is the Nortam A12?", "", "Nortam A12"),
        ("Is the dryer loud?", "Machines > Dryer", "dryer"),
        ("Which port does HTTP/2 of the Great Server use?", "", "Great Server"),
        ("What does it cost?", "", ""),
        ("Nortam?", "Manual", ""),
    ],
)
def test_a_question_is_about_the_heading_that_it_names_or_its_longest_name(
    question: str, section: str, found: str
) -> None:
    assert subject(question, section) == found


def test_they_are_of_three_kinds_and_name_nothing_that_the_documents_know() -> None:
    told = told_in(*(f"The {section} weighs 3 kg." for _, section in ENGLISH))
    made = unanswerable(ENGLISH, told, 30, seed=1)
    kinds = [m.how for m in made]
    assert all(kinds.count(how) >= 8 for how in (INVENTED, OTHER_KIND, OTHER_TOPIC))
    assert len({m.question for m in made}) == 30
    assert not {m.question for m in made} & {question for question, _ in ENGLISH}
    names = [subject(m.question) for m in made if m.how != OTHER_TOPIC]
    assert not any(told.knows(name) for name in names)
    assert made == unanswerable(ENGLISH, told, 30, seed=1)
    assert made != unanswerable(ENGLISH, told, 30, seed=2)


def test_what_the_documents_speak_of_is_not_asked_as_something_else() -> None:
    told = told_in("The penguins of the Eiffel Tower, and photosynthesis.")
    made = unanswerable(ENGLISH, told, 10_000, seed=1)
    asked = " ".join(m.question for m in made)
    assert "Mona Lisa" in asked and "Mongolia" in asked
    assert not any(word in asked for word in ("Eiffel", "penguins", "photosynthesis"))


def test_where_the_questions_are_not_english_only_names_are_invented() -> None:
    made = unanswerable(GERMAN, told_in(), 12, seed=1)
    assert {m.how for m in made} == {INVENTED} and len(made) == 12
    assert all(m.question.startswith("Wie schwer ist der ") for m in made)


def test_they_make_up_their_share_of_all_records_and_are_refused_in_the_words_of_the_user() -> None:
    records = [{"question": q, "answer": "3 kg", "section": s} for q, s in ENGLISH * 5]
    settings = {"QLORA_REFUSAL": "Das steht hier nicht.", "QLORA_REFUSAL_SHARE": "0.2"}
    made = refusals(records, told_in(), Settings.read({}, settings, trains=False))
    assert len(made) == 25 and {r["answer"] for r in made} == {"Das steht hier nicht."}
    none = Settings.read({}, {"QLORA_REFUSAL_SHARE": "0"}, trains=False)
    assert refusals(records, told_in(), none) == []
