"""What is kept of drafts: few wordings, each clear, with what was left out and why."""

import pytest

from trainer.dataset.passages import Passage
from trainer.preparation.checks import UNNAMED
from trainer.preparation.drafts import Draft
from trainer.preparation.kept import AMBIGUOUS, ENOUGH, GUESSED, WORDINGS, Kept
from trainer.preparation.pointing import PassageWords

ONE, OTHER = Passage("Text one.", "a.md", "A"), Passage("Text two.", "b.md", "B")


def drafts(*questions: str, answer: str = "It costs 3 euros.", number: int = 0) -> list[Draft]:
    return [Draft(number, question, answer) for question in questions]


def test_the_first_wordings_are_kept_and_copies_and_the_rest_are_counted() -> None:
    kept = Kept("model")
    asked = [
        f"What is the {word} of A?" for word in ("price", "cost", "sum", "fee", "rate", "total")
    ]
    kept.add(ONE, ["It costs 3 euros."], drafts(asked[0], "What is a price of A?", *asked[1:]))
    records = kept.records()
    assert [r["question"] for r in records] == asked[:WORDINGS]
    assert records[0] | {"passage": ""} == {
        "question": asked[0],
        "answer": "It costs 3 euros.",
        "source": "a.md",
        "section": "A",
        "passage": "",
        "made_by": "model",
    }
    assert kept.left_out == {"says the same as another": 1, ENOUGH: 1}


def test_a_question_that_names_nothing_has_to_point_to_its_passage_among_all() -> None:
    lids = [Passage(f"The lid of {n} is closed.", f"{n}.md", "") for n in ("steel", "brass")]
    kept = Kept("model", PassageWords(lids))
    drafts = [Draft(0, q, "Closed.") for q in ("How is the lid?", "How is the steel lid?")]
    kept.add(lids[0], ["Closed."], [*drafts, Draft(0, "Well, how is it?", "Closed.", named=True)])
    asked = [record["question"] for record in kept.records()]
    assert asked == ["How is the steel lid?", "Well, how is it?"]
    assert kept.left_out == {UNNAMED: 1}


def test_what_two_documents_state_alike_is_one_statement_and_is_asked_once() -> None:
    same, long = "Visitors must register at the gate.", " The hall has its own door to the yard."
    both = [Passage(f"{same}{more}", f"{n}.md", "") for n, more in enumerate(("", long))]
    kept = Kept("model", PassageWords(both))
    asked = ["What must visitors do at the gate?", "What do visitors have to do at the gate?"]
    for passage, question in zip(both, asked, strict=True):
        kept.add(passage, [same], drafts(question, answer=same))
    assert [(r["question"], r["source"]) for r in kept.records()] == [(asked[0], "0.md")]
    assert (kept.statements, kept.covered, kept.left_out) == (1, 1, {})


def test_what_is_said_of_two_things_alike_is_two_statements() -> None:
    said = "The {0} is a pump. It weighs 3 kg."
    both = [Passage(said.format(name), f"{name}.md", name) for name in ("HG-200", "HG-300")]
    kept = Kept("model", PassageWords(both))
    for passage in both:
        question = f"How heavy is the {passage.section}?"
        kept.add(passage, ["It weighs 3 kg."], drafts(question, answer="It weighs 3 kg."))
    assert (len(kept.records()), kept.statements) == (2, 2)


def test_a_question_that_passages_answer_differently_is_left_out() -> None:
    kept = Kept("model")
    kept.add(ONE, ["3."], drafts("What is it?", "What is A?", answer="3."))
    kept.add(OTHER, ["4.", "5."], drafts("what is it", answer="4."))
    assert [r["question"] for r in kept.records()] == ["What is A?"]
    assert kept.left_out[AMBIGUOUS] == 2 and kept.covered == 1
    assert {text for text, _ in kept.uncovered} == {"4.", "5."}


@pytest.mark.parametrize("passing", [1, 2])
def test_what_the_model_asked_in_its_own_words_is_kept_where_enough_of_it_passes(
    passing: int,
) -> None:
    kept = Kept("model")
    said = [f"Number {n} is red." for n in range(16)]
    drafts = [
        Draft(n, f"What is {n}?", said[n], None if n < passing else "no question", guessed=True)
        for n in range(16)
    ]
    kept.add(ONE, said, [*drafts, Draft(5, "Is five red?", said[5])])
    asked = ["What is 0?", "What is 1?"] if passing == 2 else []
    assert [r["question"] for r in kept.records()] == [*asked, "Is five red?"]
    assert kept.left_out[GUESSED] == (1 if passing == 1 else 0)


def test_the_summary_says_coverage_and_shows_examples_of_each_reason() -> None:
    kept = Kept("model")
    bad = [Draft(1, f"Bad {n}?", "b.", "no question") for n in range(9)]
    kept.add(ONE, ["a.", "b."], [*drafts("What is A?", answer="a."), *bad])
    summary = kept.summary(len(kept.records()))
    assert summary["coverage"] == 1 / 2 and summary["questions"] == 1
    (left_out,) = summary["left_out"]
    assert left_out["drafts"] == 9 and left_out["examples"][0]["question"] == "Bad 0?"
    assert len(left_out["examples"]) == 5
    assert summary["without_a_question"] == [{"statement": "b.", "source": "a.md"}]
