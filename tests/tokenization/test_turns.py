"""Turns are given to a template in the fields that it reads."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.corpus.examples import Conversation, Message, ToolCall, Unusable
from trainer.tokenization import turns
from trainer.tokenization.turns import (
    TurnStyle,
    as_turns,
    has_thoughts,
    split_thought,
    with_system_in_user,
)

OWN = Message("assistant", "Yes.", thought="Hm.")
INLINE = Message("assistant", "<think>\nHm.\n</think>\n\nYes.")


def turn(message: Message, **style) -> dict:
    ((found),) = as_turns((message,), TurnStyle(**style), lambda _at, text: text and f"[{text}]")
    return found


def test_a_thought_is_split_off_an_answer_and_off_nothing_else():
    assert split_thought(INLINE.content) == ("Hm.", "Yes.")
    assert split_thought("Yes, <think>") == ("", "Yes, <think>")
    assert has_thoughts(Conversation((OWN,))) and has_thoughts(Conversation((INLINE,)))
    assert not has_thoughts(Conversation((Message("user", INLINE.content),)))


@given(st.lists(st.sampled_from([" ", "\n", "<think>", "</think>", "a", "\u2003b"]), max_size=9))
def test_a_thought_is_where_the_first_one_ends(parts: list[str]) -> None:
    content = "".join(parts)
    pattern = r"(\s*<think>\s*)(.*?)(\s*</think>\s*)(.*)"  # which takes hours for a long one
    found = re.fullmatch(pattern, content, re.DOTALL)
    assert turns._parts(content) == (found and found.groups())


@pytest.mark.parametrize("end", ["x", "x</think>y"])
def test_white_space_in_a_thought_takes_no_time(end: str) -> None:
    content = "<think>a" + " " * 2_000_000 + end
    assert split_thought(content) == (("", content) if end == "x" else (content[7:-9], "y"))


@pytest.mark.parametrize("message", [OWN, INLINE])
def test_a_thought_goes_where_the_template_reads_it(message):
    field = {"reasoning_content": "[Hm.]", "content": "[Yes.]"}
    inline = {"content": "<think>\n[Hm.]\n</think>\n\n[Yes.]"}
    for way, expected in (("field", field), ("inline", inline)):
        found = turn(message, inline_thought=way, own_thought=way)
        assert found == {"role": "assistant"} | expected
    assert "</think>" not in turn(message, inline_thought="hidden", own_thought="hidden")["content"]


def test_calls_are_given_with_their_arguments_as_the_template_reads_them():
    call = Message("assistant", "", tool_calls=(ToolCall("rain", '{"at": "Brede", "n": 2}', "c1"),))
    found = turn(call, content_beside_calls=None)
    assert found["content"] is None
    assert found["tool_calls"][0]["function"] == {
        "name": "[rain]",
        "arguments": {"at": "[Brede]", "n": 2},
    }
    text = turn(call, arguments_are_text=True)["tool_calls"][0]["function"]["arguments"]
    assert text == '[{"at": "Brede", "n": 2}]'
    result = turn(Message("tool", "wet", call_id="c1", name="rain"))
    assert result == {"role": "tool", "content": "[wet]", "tool_call_id": "c1", "name": "rain"}


def test_calls_that_a_template_cannot_write_are_refused():
    with pytest.raises(Unusable, match="no place for tool calls"):
        turn(Message("tool", "wet"), has_calls=False)


def test_contents_are_parts_where_a_template_wants_parts():
    assert turn(Message("user", "a"), content_is_parts=True)["content"] == [
        {"type": "text", "text": "[a]"}
    ]


def test_a_system_turn_stands_in_the_question_behind_it():
    system, user = Message("system", "Be brief."), Message("user", "Why?")
    assert with_system_in_user((system, user)) == (Message("user", "Be brief.\n\nWhy?"),)
    assert with_system_in_user((user, system)) == (user, system)
    with pytest.raises(Unusable, match="no user turn follows"):
        with_system_in_user((system, OWN))
