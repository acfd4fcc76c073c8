"""Alike questions and answers are known by the same number."""

import pytest
from support.records import asked

from trainer.corpus.examples import Completion, Conversation, Message, Text
from trainer.corpus.fact_keys import fact_keys


@pytest.mark.parametrize("other", ["how heavy is it", "  How  heavy\nis it?! ", "HOW HEAVY IS IT"])
def test_case_punctuation_and_white_space_make_no_other_question(other: str) -> None:
    assert fact_keys(asked(other, "A.")) == fact_keys(asked("How heavy is it?", "a"))


def test_words_are_the_same_in_ascii_and_beside_other_letters() -> None:
    plain = "How_Heavy: is the B-12?"
    assert fact_keys(asked(f"{plain} “", "a")) == fact_keys(asked(plain, "a"))


@pytest.mark.parametrize(
    ("one", "other"), [("Part 12?", "Part 13?"), ("?", "!"), ("3.5 kg", "35 kg"), ("é", "e")]
)
def test_what_says_something_else_is_another_one(one: str, other: str) -> None:
    assert fact_keys(asked(one, one)) != fact_keys(asked(other, other))
    assert fact_keys(asked(one, "a"))[1] == fact_keys(asked(other, "a"))[1]


def test_of_several_turns_the_last_answer_counts_and_the_rest_is_the_question() -> None:
    turns = [("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b")]
    whole = Conversation(tuple(Message(*turn) for turn in turns))
    other = Conversation(tuple(Message(*turn) for turn in [("system", "t"), *turns[1:]]))
    assert fact_keys(whole)[1] == fact_keys(asked("q", "b"))[1]
    assert fact_keys(whole)[0] != fact_keys(other)[0]
    last = Conversation((*whole.messages, Message("user", "unanswered")))
    assert fact_keys(last) == fact_keys(whole)


def test_a_completion_has_a_prompt_and_a_document_asks_nothing() -> None:
    assert fact_keys(Completion("Once", "upon a time"))[0] == fact_keys(Completion("once ", "x"))[0]
    assert fact_keys(Text("Once upon a time")) == (0, 0)
