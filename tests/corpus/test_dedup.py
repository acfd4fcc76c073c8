"""Copies are left out; what merely looks alike stays."""

import random

import numpy as np
import pytest
from support.corpora import signatures

from trainer.corpus import dedup
from trainer.corpus.dedup import Copy
from trainer.corpus.examples import Completion, Conversation, Message, Text


def word(number: int) -> str:
    """In letters alone: numbers tell documents apart."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


WORDS = [f"word{word(n)}" for n in range(3000)]


def prose(seed: int, words: int = 400) -> list[str]:
    return random.Random(seed).choices(WORDS, k=words)


def with_changes(words: list[str], count: int) -> str:
    """`words` with `count` of them replaced, evenly spread."""
    changed = list(words)
    for n in range(count):
        changed[(n * len(words)) // count + 3] = f"other{word(n)}"
    return " ".join(changed)


def copies(*examples: Text | Completion | Conversation) -> list[Copy]:
    found = dedup.copies(signatures(examples), np.ones(len(examples), bool))
    return [Copy(code) for code in found]


def asked(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)))


def test_white_space_makes_no_difference_and_the_kind_does():
    assert copies(
        asked("Why  so?", "Because."),
        asked("Why so?\n", "Because."),
        Completion("Why so?", "Because."),
        Text("Why so? Because."),
        asked("Why so?", "because."),
    ) == [Copy.NO, Copy.EXACT, Copy.NO, Copy.NO, Copy.NO]


@pytest.mark.parametrize("changes, copy", [(1, Copy.NEAR), (3, Copy.NEAR), (20, Copy.NO)])
def test_a_document_with_a_few_changed_words_is_a_near_copy(changes, copy):
    for seed in range(20):
        words = prose(seed)
        assert copies(Text(" ".join(words)), Text(with_changes(words, changes))) == [Copy.NO, copy]


def test_case_and_line_breaks_make_near_copies():
    text = " ".join(prose(1))
    assert copies(Text(text), Text(text.upper().replace(" ", "\n", 40))) == [Copy.NO, Copy.NEAR]


def test_documents_of_the_same_words_about_other_things_stay():
    assert set(copies(*(Text(" ".join(prose(seed))) for seed in range(300)))) == {Copy.NO}


@pytest.mark.parametrize("figures", [("40", "45"), ("1.5", "15"), ("MX-7", "MX-8"), ("٤٥", "٤٦")])
def test_documents_that_differ_in_a_number_alone_are_not_copies(figures):
    words = [*prose(7), "it", "holds", "{}", "bar"]
    sheets = [Text(" ".join(words).format(figure)) for figure in figures]
    assert copies(*sheets) == [Copy.NO, Copy.NO]
    again = Text(with_changes(words, 2).format(figures[0]))
    assert copies(sheets[0], again) == [Copy.NO, Copy.NEAR]


def test_a_form_filled_in_otherwise_stays():
    form = "Station {0} weighs {0} grams and reads every {1} seconds over {1} metres of range. "
    pages = [
        Text("".join(form.format(a + n, b + n) for n in range(9))) for a, b in [(1, 2), (70, 90)]
    ]
    assert copies(*pages) == [Copy.NO, Copy.NO]


def test_a_document_and_its_first_half_both_stay():
    words = prose(3)
    assert copies(Text(" ".join(words)), Text(" ".join(words[:200]))) == [Copy.NO, Copy.NO]


def test_questions_and_short_texts_that_differ_in_one_number_stay():
    long = "What is the code of the part that is listed " * 12
    assert set(
        copies(
            *(asked(f"{long}under {n}?", f"HG-{n}") for n in range(20)),
            *(Text(f"The code of part {n} is HG-{n}.") for n in range(20)),
        )
    ) == {Copy.NO}


def test_the_same_copies_are_found_every_time():
    documents = [Text(with_changes(prose(seed % 30), 7 + seed // 30)) for seed in range(90)]
    assert copies(*documents) == copies(*documents)
