"""A record becomes the most telling example that its columns allow, or says why not."""

import pytest
from support.corpora import read_files, read_named
from support.makers import jsonl

from trainer.corpus.examples import Completion, Conversation, Message, Text
from trainer.corpus.records import Columns


def test_an_empty_system_turn_is_left_out(tmp_path):
    turns = [{"role": "system", "content": ""}, {"role": "assistant", "content": "hi"}]
    corpus = read_named(tmp_path, a_jsonl=jsonl({"messages": turns}))
    assert corpus.examples == [Conversation((Message("assistant", "hi"),))]


GOOD = jsonl(*({"text": f"record {number}"} for number in range(30)))


def turns(*pairs: tuple[str, object]) -> bytes:
    return jsonl({"messages": [{"role": role, "content": content} for role, content in pairs]})


@pytest.mark.parametrize(
    "line, words",
    [
        (b'{"text": "a"', ["bad.jsonl line 31", "broken JSON"]),
        (b"[" * 20_000, ["nested too deep"]),
        (b'{"n": ' + b"9" * 5000 + b', "text": "a"}', ["number that is too long"]),
        (b'"text"', ["the line is text, not an object"]),
        (b'{"text": NaN}', ['"text" is a number, not text']),
        (b'{"text": 3}', ['"text" is a number, not text']),
        (b'{"text": true}', ['"text" is true or false, not text']),
        (b'{"question": "q", "answer": null}', ['"answer" is null, not text']),
        (b'{"question": "q", "reply": "r"}', ["question + answer", "it has question, reply"]),
        (b"{}", ["it has no columns"]),
        (b'{"text": " \\n"}', ['"text" is empty']),
        (b'{"text": "a\\u0000"}', ["NUL character"]),
        (b'{"text": "a\\ud800"}', ["half a surrogate pair at character 2"]),
        (b'{"messages": "hi"}', ['"messages" is text, not a list']),
        (b'{"messages": ["hi"]}', ['"messages[0]" is text, not an object']),
        (b'{"messages": [{"role": "user"}]}', ['"messages[0]" has no content']),
        (turns(("user", "a")), ["no assistant turn"]),
        (turns(("user", "a"), ("tool", "b")), ['"messages[1].role"', "system, user, assistant"]),
        (turns(("user", "a"), ("assistant", None)), ['"messages[1].content" is null']),
    ],
)
def test_an_unusable_line_is_skipped_with_its_number_and_reason(tmp_path, line, words):
    corpus = read_named(tmp_path, bad_jsonl=GOOD + line.strip() + b"\n")
    assert len(corpus.examples) == 30
    (skip,) = corpus.skipped
    for word in [*words, "bad.jsonl line 31"]:
        assert word in skip


def test_columns_with_names_of_their_own_are_read_when_named(tmp_path):
    files = {
        "a.csv": b"Frage,Antwort,id\nWarum?,Darum,7\n",
        "b.jsonl": jsonl({"Inhalt": "Prosa"}, {"prompt": "p", "completion": "c"}),
    }
    columns = Columns(question="frage", answer="Antwort", text="Inhalt")
    assert read_files(tmp_path, files, columns=columns).examples == [
        Conversation((Message("user", "Warum?"), Message("assistant", "Darum"))),
        Text("Prosa"),
        Completion("p", "c"),
    ]


@pytest.mark.parametrize(
    "record, question, answer",
    [
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, "Add.\n\n1 2", "3"),
        ({"instruction": "Add.", "input": "", "output": "3"}, "Add.", "3"),
        ({"instruction": "Add.", "context": None, "response": "3"}, "Add.", "3"),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            "q",
            "a",
        ),
    ],
)
def test_usual_names_of_published_data_are_guessed(tmp_path, record, question, answer):
    corpus = read_files(tmp_path, {"a.jsonl": jsonl(record)})
    assert corpus.examples == [
        Conversation((Message("user", question), Message("assistant", answer)))
    ]
