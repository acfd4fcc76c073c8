"""Which examples are held out, and that adding data moves none."""

import pytest
from support.corpora import hold_out, read_document
from support.records import asked
from support.tokenizers import PROSE

from trainer.corpus.examples import Example, Text


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


@pytest.mark.parametrize("example", [asked("q", "a"), Text("word")])
def test_what_cannot_be_divided_is_trained(example):
    assert hold_out([example]) == ([example], [])


def test_nothing_divides_into_nothing():
    assert hold_out([]) == ([], [])
