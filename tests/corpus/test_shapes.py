"""What programs export is read as the records that it holds."""

import json

import pytest
from support.corpora import read_files

from trainer.corpus.columns import Columns
from trainer.corpus.examples import Conversation, Message
from trainer.corpus.shapes import OTHER_MESSAGES
from trainer.errors import DataError


def qa(question, answer):
    return Conversation((Message("user", question), Message("assistant", answer)))


def read(folder, data, **given):
    return read_files(folder, {"a.json": json.dumps(data).encode()}, columns=Columns(**given))


@pytest.mark.parametrize(
    "data",
    [
        {"columns": ["question", "answer"], "index": [0, 1], "data": [["q", "a"], ["r", "b"]]},
        {"question": {"0": "q", "1": "r"}, "answer": {"0": "a", "1": "b"}},
        {"0": {"question": "q", "answer": "a"}, "1": {"question": "r", "answer": "b"}},
        {"one": {"question": "q", "answer": "a"}, "two": {"question": "r", "answer": "b", "n": 1}},
        {"question": ["q", "r"], "answer": ["a", "b"]},
        {
            "schema": {},
            "data": [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}],
        },
    ],
    ids=["split", "columns", "index", "names", "lists", "table"],
)
def test_a_table_is_its_rows_however_it_is_turned(tmp_path, data):
    assert read(tmp_path, data).examples == [qa("q", "a"), qa("r", "b")]


def message(role, words, parent, **more):
    content = {"content_type": "text", "parts": [words]}
    return {"message": {"author": {"role": role}, "content": content} | more, "parent": parent}


CHAT = {
    "title": "Birds",
    "current_node": "5",
    "mapping": {
        "0": {"message": None, "parent": None},
        "1": message("system", "", "0"),
        "2": message("user", "Which bird wades?", "1"),
        "3": message("assistant", "search()", "2", recipient="browser"),
        "4": message("assistant", "One answer.", "3"),
        "5": message("assistant", "Another answer.", "3"),
    },
}


def test_a_conversation_of_chatgpt_is_the_branch_that_was_shown(tmp_path):
    corpus = read(tmp_path, [CHAT])
    assert corpus.examples == [qa("Which bird wades?", "Another answer.")]
    assert corpus.notices == [f"a.json: {OTHER_MESSAGES}: 1"]


def test_a_branch_that_nothing_names_is_not_guessed(tmp_path):
    with pytest.raises(DataError, match="several ends"):
        read(tmp_path, [CHAT | {"current_node": None}])


def task(data, **results):
    said = [
        {"from_name": name, "type": "textarea", "value": {"text": [words]}}
        for name, words in results.items()
    ]
    gone = {"result": [], "was_cancelled": True}
    return {"id": 1, "data": data, "annotations": [gone, {"result": said}]}


def test_a_task_of_label_studio_is_its_data_and_its_results(tmp_path):
    assert read(tmp_path, [task({"question": "q"}, answer="a")]).examples == [qa("q", "a")]
    other = [task({"text": "q"}, reply="a")]
    named = read(tmp_path, other, question="text", answer="reply")
    assert named.examples == [qa("q", "a")]
    with pytest.raises(DataError, match="with the data text and the results reply; set QLORA_QUES"):
        read(tmp_path, other)
