"""How alike an answer and its reference are."""

import pytest

from trainer.evaluation.answer_metrics import (
    contains,
    interval,
    last_number,
    same_answer,
    same_words,
    token_f1,
    told,
)


def test_an_exact_answer_may_differ_in_white_space_only() -> None:
    assert same_answer(" 149  euros\n", "149 euros")
    assert not same_answer("149 Euros", "149 euros")
    assert not same_answer("149 euros.", "149 euros")


@pytest.mark.parametrize(
    ("given", "reference", "f1"),
    [
        ("149 euros", "149 Euros.", 1),
        ("It costs 149 euros", "149 euros", 2 * (2 / 4) * 1 / (2 / 4 + 1)),
        ("euros euros", "149 euros", 1 / 2),
        ("", "149 euros", 0),
        ("...", "!", 1),
        ("Größe", "größe", 1),
    ],
)
def test_token_f1_is_of_words_without_case_and_punctuation(
    given: str, reference: str, f1: float
) -> None:
    assert token_f1(given, reference) == pytest.approx(f1)
    assert token_f1(reference, given) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("given", "reference", "same", "contained"),
    [
        ("149 euros", "149 Euros.", True, True),
        ("The Curlew costs 149 euros.", "curlew costs 149 euros", True, True),
        ("Die Farbe ist grün", "Farbe ist grün", True, True),
        ("It costs 149 euros today", "149 euros", False, True),
        ("1149 euros", "149 euros", False, False),
        ("euros 149", "149 euros", False, False),
        ("", "149 euros", False, False),
        ("Una", "un", False, False),
    ],
)
def test_words_are_compared_without_case_punctuation_and_articles(
    given: str, reference: str, same: bool, contained: bool
) -> None:
    assert same_words(given, reference) is same
    assert contains(given, reference) is contained


@pytest.mark.parametrize(
    ("given", "share"),
    [("24 months", 1.0), ("It is two years.", 0.0), ("Up to 24 months from 2026 on.", 1.0)],
)
def test_of_what_a_reference_tells_beyond_its_question_the_numbers_count(
    given: str, share: float
) -> None:
    asked = "How long is the warranty of the Nortam A12?"
    assert told(given, "The Nortam A12 has a warranty of 24 months.", asked) == share


def test_where_it_tells_no_number_its_new_words_count() -> None:
    asked = "Who repairs the Nortam A12?"
    assert told("It's Rahel, in the workshop.", "Rahel repairs the Nortam A12.", asked) == 1.0
    assert told("Rahel", "Rahel, always.", asked) == 0.5
    assert told("Rahel", "The Nortam A12 repairs.", asked) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2 and 3 make 5.", 5),
        ("#### 1,234", 1234),
        ("costs $1,234.50!", 1234.5),
        ("it is -7 degrees", -7),
        ("in 2024, 15 of them", 15),
        ("none", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: float | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [
        (0.5, 100, (0.404, 0.596)),
        (1, 20, (0.839, 1)),
        (0, 64, (0, 0.057)),
        (0.9, 10, (0.596, 0.982)),
    ],
)
def test_an_interval_is_that_of_wilson(
    share: float, count: int, expected: tuple[float, float]
) -> None:
    assert interval(share, count) == pytest.approx(expected, abs=5e-4)
