"""Turns as chat APIs, ShareGPT and others write them are the same messages."""

import json
from collections import Counter

import pytest

from trainer.corpus.conversations import BEHIND, checked, joined_parts, turns_of, with_system
from trainer.corpus.examples import Message, ToolCall, Unusable


def read(*turns, unused=None):
    return turns_of(list(turns), '"messages"', {} if unused is None else unused)


@pytest.mark.parametrize(
    "name, role",
    [
        *(("human", "user"), ("gpt", "assistant"), ("chatgpt", "assistant"), ("bot", "assistant")),
        *(("model", "assistant"), ("developer", "system"), ("observation", "tool")),
    ],
)
def test_speakers_of_other_formats_have_our_roles(name, role):
    assert read({"from": name, "value": "w"}) == read({"role": name, "content": "w"})
    assert read({"from": name, "value": "w"})[0].role == role


@pytest.mark.parametrize("name", ["User", "ASSISTANT", "Human", " Gpt"])
def test_roles_are_known_in_any_case(name):
    assert read({"role": name, "content": "w"}) == read(
        {"role": name.strip().lower(), "content": "w"}
    )


def test_parts_of_a_turn_are_joined():
    parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "moo"}, "!"]
    assert read({"role": "user", "content": parts}) == [Message("user", "Say moo!")]


def test_a_part_that_is_no_text_is_named():
    parts = [{"type": "image_url", "image_url": {"url": "data:"}}]
    with pytest.raises(Unusable, match=r'"messages\[0\].content\[0\]" is image_url, not text'):
        read({"role": "user", "content": parts})


def test_an_answer_of_weight_0_is_given_and_not_trained():
    turns = [{"role": "assistant", "content": "a", "weight": w} for w in (0, 1, None)]
    assert [message.trained for message in read(*turns)] == [False, True, True]
    with pytest.raises(Unusable, match="no assistant turn that is to be trained"):
        checked(read(turns[0]), "it", Counter())
    with pytest.raises(
        Unusable, match=r'"messages\[0\].weight" is 0.5: a turn is trained \(1\) or'
    ):
        read(turns[0] | {"weight": 0.5})


def test_an_answer_that_says_train_false_is_given_and_not_trained():
    turns = [{"role": "assistant", "content": "a", "train": t} for t in (False, True, None)]
    assert [message.trained for message in read(*turns)] == [False, True, True]
    with pytest.raises(Unusable, match=r'"messages\[0\].train" is text, not true or false'):
        read({"role": "assistant", "content": "a", "train": "no"})


def test_tool_calls_and_what_the_tools_gave_are_kept():
    call = {"id": "c1", "type": "function", "function": {"name": "rain", "arguments": "{}"}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    gave = {"role": "tool", "tool_call_id": "c1", "content": {"rain": True}}
    tools = [{"type": "function", "function": {"name": "rain"}}]
    answer = {"role": "assistant", "content": "Yes."}
    found = checked(
        read({"role": "user", "content": "?"}, asked, gave, answer), "it", Counter(), tools
    )
    assert found.messages[1:3] == (
        Message("assistant", "", tool_calls=(ToolCall("rain", "{}", "c1"),)),
        Message("tool", '{"rain": true}', call_id="c1", name="rain"),
    )
    assert json.loads(found.tools) == tools


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "function_call": {"name": "f", "arguments": '{"a": 1}'}},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": '[{"name": "f", "arguments": {"a": 1}}]',
        },
    ],
)
def test_older_ways_to_write_a_call_are_the_same(turn):
    assert read(turn) == [Message("assistant", "", tool_calls=(ToolCall("f", '{"a": 1}'),))]


@pytest.mark.parametrize(
    "calls, words",
    [
        (["f"], "is text, not an object"),
        ([{"function": {}}], "names no function"),
        ([{"name": "f", "arguments": "once"}], "arguments that are no JSON object"),
        ("f", "is text, not a list"),
    ],
)
def test_a_call_that_is_none_refuses_the_record(calls, words):
    with pytest.raises(Unusable, match=words):
        read({"role": "assistant", "content": "a", "tool_calls": calls})


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_beside_the_answer_is_kept_apart(key):
    turn = {"role": "assistant", "content": "Four", key: "two and two"}
    assert read(turn) == [Message("assistant", "Four", thought="two and two")]


def test_an_answer_that_is_null_without_a_call_is_refused():
    with pytest.raises(Unusable, match="is null"):
        read({"role": "assistant", "content": None})


def test_keys_of_turns_that_are_not_used_are_named():
    unused = {}
    read({"role": "user", "content": "q", "mood": "glad", "refusal": None}, unused=unused)
    assert list(unused) == ["mood of a turn"]


def test_turns_that_a_table_keeps_as_text_are_read():
    assert turns_of('[{"role": "user", "content": "q"}]', "it", {}) == [Message("user", "q")]


def test_a_system_prompt_stands_first_where_there_is_none():
    assert with_system([Message("user", "q")], "s")[0] == Message("system", "s")
    assert with_system([Message("user", "q")], "") == [Message("user", "q")]


def test_turns_behind_the_last_answer_are_counted():
    turns = [Message("user", "q"), Message("assistant", "a"), Message("user", "r")]
    counts = Counter()
    checked([*turns, Message("user", "s")], "it", counts)
    assert counts == {BEHIND: 2}


@pytest.mark.parametrize(
    "turns",
    [
        [{"speaker": "Human", "text": "q"}, {"sender": "AI", "message": "a"}],
        [{"input": "q", "output": "a"}],
        "[{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': 'a'}]",
    ],
    ids=["speakers", "rounds", "as Python writes them"],
)
def test_turns_of_other_words_are_turns(turns):
    unused = {}
    assert turns_of(turns, "it", unused) == [Message("user", "q"), Message("assistant", "a")]
    assert not unused


def test_a_call_that_names_no_function_is_told_as_it_stands():
    with pytest.raises(Unusable, match=r'"messages\[0\]", a function_call, names no function'):
        read({"from": "function_call", "value": "{}"})


def test_a_speaker_that_is_none_is_named_with_its_key():
    with pytest.raises(Unusable, match=r'"messages\[0\].from" is ann and none of system, user'):
        read({"from": "Ann", "text": "Hi"})


@pytest.mark.parametrize(
    "kind, place",
    [("thinking", "reasoning_content"), ("tool_use", "tool_calls"), ("tool_result", "role tool")],
)
def test_a_part_that_has_a_place_of_its_own_is_refused_with_that(kind, place):
    with pytest.raises(Unusable, match=f"is {kind}, not text; write .*{place}"):
        joined_parts([{"type": kind}], "content")
