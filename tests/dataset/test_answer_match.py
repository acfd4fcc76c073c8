"""Answers that stand in wrong rows are found, and those that name nothing are let be."""

import json
import random
import tracemalloc

import pytest
from support.jobs import ROOT

from trainer.dataset.answer_match import misplaced_answer, wordings
from trainer.dataset.eval_questions import Question

MACHINES = ("Curlew", "Dunlin", "Plover", "Whimbrel", "Avocet", "Knot")
FACTS = (
    ("How heavy is the {}?", "The {} weighs {} kilograms."),
    ("What does the {} cost?", "The {} costs {} euros."),
    ("Since when is the {} sold?", "The {} has been sold since {}."),
    ("How loud is the {}?", "The {} makes a noise of {} decibels."),
)
SENTENCES = [
    Question(asked.format(name), said.format(name, 37 * number + 100 * at))
    for number, name in enumerate(MACHINES)
    for at, (asked, said) in enumerate(FACTS)
]


def shuffled(questions: list[Question], seed: int) -> list[Question]:
    answers = [q.answer for q in questions]
    random.Random(seed).shuffle(answers)
    return [Question(q.question, a) for q, a in zip(questions, answers, strict=True)]


def test_answers_beside_their_questions_are_let_be() -> None:
    assert misplaced_answer(SENTENCES) is None


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_answers_are_found_with_one_that_shows_it(seed: int) -> None:
    mixed = shuffled(SENTENCES, seed)
    found = misplaced_answer(mixed)
    assert found in mixed
    (asked,) = (name for name in MACHINES if name in found.question)
    assert asked not in found.answer


def test_a_column_that_slipped_by_some_rows_is_found() -> None:
    answers = [q.answer for q in SENTENCES]
    slipped = [
        Question(q.question, a) for q, a in zip(SENTENCES, answers[5:] + answers[:5], strict=True)
    ]
    assert misplaced_answer(slipped) is not None


@pytest.mark.parametrize("answer", ["positive", "HG-{}", "yes, surely", "{}"])
def test_labels_and_codes_tell_nothing(answer: str) -> None:
    labelled = [Question(q.question, answer.format(n)) for n, q in enumerate(SENTENCES)]
    assert misplaced_answer(labelled) is None
    assert misplaced_answer(shuffled(labelled, 1)) is None


def test_few_records_tell_nothing() -> None:
    assert misplaced_answer([]) is None
    assert misplaced_answer(shuffled(SENTENCES[:12], 1)) is None


def test_sentences_that_share_no_word_with_any_question_are_let_be() -> None:
    free = [
        Question(f"Compose poem {n}.", f"Wind über {n * 7} Hügeln weht leis") for n in range(40)
    ]
    assert misplaced_answer(free) is None


def test_the_demo_s_data_is_let_be() -> None:
    lines = (ROOT / "examples/data/questions.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert misplaced_answer([Question(r["question"], r["answer"]) for r in records]) is None


def test_wordings_are_the_questions_for_each_answer() -> None:
    four = [Question(f"{n}?", f"answer {n // 4}") for n in range(20)]
    assert wordings(four) == 4.0
    assert wordings(SENTENCES) == 1.0
    assert wordings([]) == 0.0


def test_answers_of_any_length_take_little_memory() -> None:
    """A column of the table is a word of any of them."""
    long = [Question(f"q{n}", " ".join(f"w{n}x{m}" for m in range(20_000))) for n in range(30)]
    tracemalloc.start()
    assert misplaced_answer(long) is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
