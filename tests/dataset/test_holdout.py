"""Which examples are held out, and that adding data moves none."""

import pytest
from support.corpora import hold_out, hold_out_records, read_document
from support.records import asked
from support.tokenizers import PROSE

from trainer.corpus.examples import Conversation, Example, Text


def documents(count: int) -> list[Example]:
    return [Text(f"document {number}") for number in range(count)]


def test_about_the_share_is_held_out_and_adding_data_moves_nothing():
    train, held_out = hold_out(documents(2000))
    assert 150 < len(held_out) < 250
    grown_train, grown_held_out = hold_out(documents(3000))
    assert set(train) <= set(grown_train)
    assert set(held_out) <= set(grown_held_out)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("count", [2, 3, 7])
def test_neither_side_is_empty_from_two_examples_on(count, share):
    train, held_out = hold_out(documents(count), share)
    assert train and held_out
    assert sorted(e.key for e in train + held_out) == sorted(e.key for e in documents(count))


def test_of_a_single_document_the_end_is_held_out():
    text = PROSE * 5
    ((head,), (tail,)) = hold_out([Text(text)])
    assert isinstance(head, Text) and isinstance(tail, Text)
    assert head.text.endswith("question.") and text.strip().endswith(tail.text)
    assert "".join((head.text + tail.text).split()) == "".join(text.split())
    assert 0.05 < len(tail.text) / len(text) < 0.3


def test_of_a_single_document_both_parts_keep_their_headings(tmp_path):
    text = "\n# One\n\n" + "word " * 300 + "\n\n# Two\n" + "word " * 40
    ((head,), (tail,)) = hold_out([read_document(tmp_path, "a.md", text)])
    assert [head.text[h.at :][:5] for h in head.headings] == ["# One"]
    assert [tail.text[h.at :][:5] for h in tail.headings] == ["# Two"]


@pytest.mark.parametrize("example", [asked("q", "a"), Text("word"), Text("two words")])
def test_what_cannot_be_divided_is_trained(example):
    assert hold_out([example]) == ([example], [])


def test_nothing_divides_into_nothing():
    assert hold_out([]) == ([], [])


def facts(count: int, wordings: int) -> list[Example]:
    return [
        asked(f"In wording {wording}, what is {n}?", f"It is {n}.")
        for n in range(count)
        for wording in range(wordings)
    ]


def answers(examples: list[Example]) -> list[str]:
    return [e.messages[-1].content for e in examples if isinstance(e, Conversation)]


def questions(examples: list[Example]) -> set[str]:
    return {e.messages[0].content for e in examples if isinstance(e, Conversation)}


@pytest.mark.parametrize(("count", "wordings"), [(300, 4), (12, 4), (60, 2), (2, 3), (1, 2)])
def test_of_facts_with_several_wordings_one_wording_is_held_out_and_no_fact_is_lost(
    count: int, wordings: int
) -> None:
    train, held, by = hold_out_records(facts(count, wordings))
    assert by == "wordings" and held
    assert set(answers(held)) <= set(answers(train))
    assert len(set(answers(train))) == count
    assert len(answers(held)) == len(set(answers(held)))  # one of each
    if count == 300:
        assert 0.2 < len(held) / count < 0.4


def test_few_records_of_one_wording_are_all_trained() -> None:
    few = facts(199, 1)
    assert hold_out_records(few) == (few, [], "nothing")
    by_chance = [*few[:50], *(asked(f"Is it {n}?", "Yes.") for n in range(9))]
    assert hold_out_records(by_chance) == (by_chance, [], "nothing")


def test_many_records_of_one_wording_are_held_out_whole() -> None:
    train, held, by = hold_out_records(facts(1000, 1))
    assert by == "facts" and 70 < len(held) < 130
    assert not set(answers(train)) & set(answers(held))


def test_records_with_the_same_answer_or_question_are_on_one_side() -> None:
    many = [*facts(1000, 1)]
    for n in range(0, 200, 2):
        many.append(asked(f"Another wording for {n}", f"it is {n}"))  # the answer of another
        many.append(asked(f"in wording 0, WHAT is {n}", f"Nobody knows {n}"))  # its question
        many.append(asked(f"What does nobody know of {n}?", f"Nobody knows {n}"))
    train, held, by = hold_out_records(many)
    assert by == "facts" and len(train) + len(held) == 1300
    for n in range(0, 200, 2):
        mine = {f"It is {n}.", f"it is {n}", f"Nobody knows {n}"}
        assert not mine & set(answers(train)) or not mine & set(answers(held))
    assert any(answer.startswith("Nobody") for answer in answers(held))


def test_a_question_with_two_answers_is_no_wording_to_hold_out() -> None:
    both = [*facts(50, 2), *(asked(f"In wording 0, what is {n}?", "Other.") for n in range(50))]
    train, held, by = hold_out_records(both)
    assert by == "wordings" and held
    assert not questions(train) & questions(held)


def test_the_label_of_a_class_is_no_fact() -> None:
    labelled = [asked(f"Is {n} good?", ("Yes.", "No.")[n % 2]) for n in range(1000)]
    _, held, by = hold_out_records(labelled)
    assert by == "facts" and 70 < len(held) < 130
    assert set(answers(held)) == {"Yes.", "No."}


@pytest.mark.parametrize("wordings", [1, 4])
def test_other_facts_that_are_added_move_no_record(wordings: int) -> None:
    train, held, _ = hold_out_records(facts(500, wordings))
    grown_train, grown_held, _ = hold_out_records(facts(700, wordings)[::-1])
    assert set(train) <= set(grown_train) and set(held) <= set(grown_held)


def test_a_long_chain_of_shared_questions_and_answers_is_one_fact() -> None:
    chain = [asked(f"q{n // 2}", f"a{(n + 1) // 2}") for n in range(40_000)]
    train, held, by = hold_out_records([*chain, *facts(300, 1)])
    assert by == "facts" and train and held
    assert len({e in train for e in chain[::5000]}) == 1


def test_few_documents_beside_records_are_trained_and_of_many_a_tenth_is_held_out() -> None:
    few = [*documents(9), *facts(20, 1)]
    assert hold_out_records(few) == (few, [], "nothing")
    _, held, by = hold_out_records([*documents(500), *facts(20, 1)])
    assert by == "nothing" and 25 < len(held) < 80
    assert all(isinstance(e, Text) for e in held)
    assert hold_out_records(documents(2))[2] == "documents"
