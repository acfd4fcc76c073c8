"""What programs export is read as the records that it holds."""

import json

import pytest
from support.corpora import read_files

from trainer.corpus.columns import Columns
from trainer.corpus.examples import Conversation, Message


def qa(question, answer):
    return Conversation((Message("user", question), Message("assistant", answer)))


def read(folder, data, **given):
    return read_files(folder, {"a.json": json.dumps(data).encode()}, columns=Columns(**given))


TURNS = [
    [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    for q, a in (("q", "a"), ("r", "b"))
]


@pytest.mark.parametrize(
    "data",
    [
        {"columns": ["question", "answer"], "index": [0, 1], "data": [["q", "a"], ["r", "b"]]},
        {"question": {"0": "q", "1": "r"}, "answer": {"0": "a", "1": "b"}},
        {"0": {"question": "q", "answer": "a"}, "1": {"question": "r", "answer": "b"}},
        {"one": {"question": "q", "answer": "a"}, "two": {"question": "r", "answer": "b", "n": 1}},
        {"question": ["q", "r"], "answer": ["a", "b"]},
        {
            "schema": {"fields": [{"name": "question"}]},
            "data": [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}],
        },
        [["q it?", "a"], ["r it?", "b"]],
        {"range": "A1:B3", "values": [["question", "answer"], ["q?", "a"], ["r?", "b"]]},
        {"q?": "a", "r?": "b"},
        {"conversations": [{"id": 1, "messages": TURNS[0]}, {"messages": TURNS[1]}], "user": "u"},
        {"faqs": {"one": [{"q": "q?", "a": "a"}], "two": {"all": [{"q": "r?", "a": "b"}]}}},
    ],
    ids=[
        *("split", "columns", "index", "names", "lists", "table"),
        *("values", "sheet", "questions", "conversations", "nested"),
    ],
)
def test_a_table_is_its_rows_however_it_is_turned(tmp_path, data):
    found = [[m.content for m in e.messages] for e in read(tmp_path, data).examples]
    assert [[q[0], a] for q, a in found] == [["q", "a"], ["r", "b"]]


@pytest.mark.parametrize("name", ["conversations", "Messages"])
def test_one_record_that_holds_a_list_of_turns_is_that_record(tmp_path, name):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert read(tmp_path, {"id": 1, name: turns}).examples == [qa("q", "a")]


def test_of_several_lists_those_of_records_are_taken_and_named(tmp_path):
    row = {"question": "q", "answer": "a"}
    data = {"train": [row], "more": [row | {"answer": "b"}], "test": [row], "by": [{"name": "n"}]}
    corpus = read(tmp_path, data)
    assert corpus.examples == [qa("q", "a"), qa("q", "b")]
    assert corpus.notices == [
        "a.json: records are taken of its lists train, more",
        "a.json: not used: its list test, which its name keeps for judging; give it in a file of "
        "its own, as QLORA_EVAL_URI",
        "a.json: not used: its lists by",
    ]


def test_a_list_of_lists_of_turns_is_a_list_of_conversations(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert read(tmp_path, [turns]).examples == [qa("q", "a")]
