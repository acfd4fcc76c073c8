"""Rows of JSON, CSV and Arrow are what they were, and a table without any is told."""

import json

import pytest
from support import makers
from support.corpora import read_files, read_named

from trainer.corpus import tables
from trainer.corpus.examples import Conversation, Message, Text


def test_a_line_separator_inside_a_json_string_ends_no_line(tmp_path):
    content = '{"text": "one\u2028two\x85three"}\r\n\r\n{"text": "b"}'.encode()
    assert read_named(tmp_path, a_jsonl=content).examples == [
        Text("one\u2028two\x85three"),
        Text("b"),
    ]


def test_a_record_file_without_records_is_skipped(tmp_path):
    corpus = read_named(tmp_path, good_txt=b"good", bad_jsonl=b"\n\n")
    assert "bad.jsonl: it holds no records" in corpus.skipped[0]


def test_values_of_a_csv_stay_the_text_that_they_are(tmp_path):
    values = ["NA", "null", "None", "nan", "007", "1e5", "true", "#REF!"]
    rows = "".join(f"{value},{value}\n" for value in values)
    corpus = read_files(tmp_path, {"a.csv": f"question,answer\n{rows}".encode()})
    assert [example.messages[1].content for example in corpus.examples] == values


@pytest.mark.parametrize("name", ["conversations", "Messages"])
def test_a_json_file_of_one_record_is_that_record_and_not_the_list_it_holds(tmp_path, name):
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}]
    corpus = read_files(tmp_path, {"a.json": makers.jsonl({"id": 1, name: turns})})
    assert corpus.examples == [Conversation((Message("user", "u"), Message("assistant", "v")))]


def test_the_articles_of_squad_are_a_record_for_each_question(tmp_path):
    asked = [
        {"question": "Who?", "id": "1", "answers": [{"text": "Ann", "answer_start": 0}]},
        {"question": "When?", "id": "2", "answers": [], "is_impossible": True},
    ]
    article = {"title": "t", "paragraphs": [{"context": "Ann did.", "qas": asked}]}
    corpus = read_named(tmp_path, a_json=makers.jsonl({"version": "2", "data": [article]}))
    assert corpus.examples == [
        Conversation((Message("user", "Who?\n\nAnn did."), Message("assistant", "Ann")))
    ]
    assert corpus.skipped == []
    assert corpus.notices == [
        "a.json: questions that it says have no answer are left out: 1, first record 1",
        "a.json: not used: column id",
    ]


@pytest.mark.parametrize("is_stream", [True, False])
def test_arrow_is_read_as_a_stream_and_as_a_file(tmp_path, is_stream):
    content = makers.arrow([{"text": f"{n}"} for n in range(600)], is_stream=is_stream)
    corpus = read_files(tmp_path, {"a.arrow": content})
    assert [example.text for example in corpus.examples] == [f"{n}" for n in range(600)]


@pytest.mark.parametrize("name", ["a_jsonl", "a_json"])
def test_keys_that_stand_in_an_object_twice_are_told(tmp_path, name):
    twice = b'{"question": "q", "answer": "lost", "answer": "a"}'
    content = b'{"question": "p", "answer": "b"}\n' + twice if name == "a_jsonl" else twice
    corpus = read_named(tmp_path, **{name: content})
    assert corpus.examples[-1].messages[1].content == "a"
    (notice,) = corpus.notices
    assert "keys that stand in an object twice, the last is used: answer" in notice
    assert notice.endswith("first line 2") or name == "a_json"


def test_numbers_of_json_are_as_they_are_written(tmp_path):
    numbers = ["1.10", "1e3", "3.14159265358979323846", "-0.0", "7"]
    lines = (f'{{"question": "q{n}", "answer": {n}}}' for n in numbers)
    found = read_files(tmp_path, {"a.jsonl": "\n".join(lines).encode()}).examples
    assert [example.messages[1].content for example in found] == numbers


def test_numbers_of_32_bits_have_no_more_digits_than_they_were_given(tmp_path):
    import pyarrow as pa

    schema = pa.schema(
        {"answer": pa.float32(), "context": pa.list_(pa.struct({"x": pa.float16()}))}
    )
    batch = pa.RecordBatch.from_pylist(
        [{"answer": 0.1, "context": [{"x": 0.3}]}, {"answer": None, "context": None}], schema
    )
    assert [record for _, record in tables._arrow_rows([batch])] == [
        {"answer": 0.1, "context": [{"x": 0.3}]},
        {"answer": None, "context": None},
    ]


def test_a_table_of_turns_beside_a_table_of_questions_is_conversations(tmp_path):
    turns = [
        {"conversation_id": 1, "role": role, "content": words}
        for role, words in (("user", "a"), ("assistant", "b"))
    ]
    data = {"said": turns, "faq": [{"question": "c", "answer": "d"}]}
    assert read_files(tmp_path, {"a.json": json.dumps(data).encode()}).examples == [
        Conversation((Message("user", "a"), Message("assistant", "b"))),
        Conversation((Message("user", "c"), Message("assistant", "d"))),
    ]
