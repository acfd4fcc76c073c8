"""Judging: what counts as an exact answer, which questions are asked, what is rejected."""

import pytest

from trainer.corpus import Conversation, Message, Text
from trainer.evaluate import MOST_QUESTIONS, questions_of, same_answer, token_f1
from trainer.report import render_card, render_report


def record(question: str, *turns: tuple[str, str]) -> Conversation:
    later = (Message(role, content) for role, content in turns)
    return Conversation((Message("user", question), *later))


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


def test_only_records_of_one_question_and_one_answer_are_asked() -> None:
    single = record("a", ("assistant", "b "))
    double = record("a", ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    asked = questions_of([Text("prose"), double, single])
    assert [(q.question, q.answer) for q in asked] == [("a", "b")]


def test_the_questions_are_the_same_whatever_their_order() -> None:
    many = [record(str(n), ("assistant", str(n))) for n in range(MOST_QUESTIONS + 20)]
    assert questions_of(many) == questions_of(many[::-1])
    assert len(questions_of(many)) == MOST_QUESTIONS


HOSTILE = "<script>alert(1)</script>"
RECORD = {
    "run_id": "run",
    "warnings": [HOSTILE],
    "rejected": [],
    "settings": {"max_length": 64, "target_modules": ["q_proj"]},
    "base": {"name": "builtin:tiny", "revision": "main"},
    "inputs": [{"name": HOSTILE, "size": 3, "sha256": "0" * 64}],
    "data": {"files": 1},
    "device": {"name": "CPU", "capability": None},
    "precision": {"name": "fp32", "reason": "a CPU"},
    "micro_batch": {"blocks": 1, "reason": "a CPU"},
    "parameters": {"trainable": 8, "total": 100, "trainable_percent": 8.0},
    "training": {"steps": 2, "seconds": 90.0, "tokens_per_s": 10.0, "vram_peak_gib": None},
    "evaluation": {
        "questions": 1,
        "base": {"loss": 2.0, "exact": 0.0},
        "tuned": {"loss": 1.0, "exact": 1.0},
    },
    "samples": [{"question": HOSTILE, "reference": "b", "base": "c", "tuned": "d"}],
    "libraries": {"torch": "2"},
}
ROWS = [
    {"step": 1, "loss": 2.0, "learning_rate": 1e-3},
    {"step": 2, "loss": 1.0, "learning_rate": 0.0},
]


def test_the_report_loads_nothing_and_runs_nothing() -> None:
    page = render_report(RECORD, ROWS)
    assert "<script" not in page
    assert "http" not in page
    assert "2.000 → 1.000" in page
    assert page.count("<svg") == 2


def test_a_report_of_a_run_without_questions_or_finite_losses_is_still_a_page() -> None:
    nothing = {"loss": None, "exact": None}
    empty = RECORD | {
        "samples": [],
        "evaluation": {"questions": 0, "base": nothing, "tuned": nothing},
    }
    page = render_report(empty, [{"step": 1, "loss": float("nan"), "learning_rate": 1e-3}])
    assert "Too few steps" in page


def test_the_model_card_says_base_size_and_result() -> None:
    card = render_card(RECORD)
    assert card.startswith("---\nbase_model: builtin:tiny\n")
    assert "Exact answers on 1 held-out questions: 0% before, 100% after" in card
