"""How alike an answer and its reference are."""

import pytest

from trainer.evaluation.answer_metrics import same_answer, token_f1


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
