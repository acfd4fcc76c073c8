"""Turns that stand in a column for one text are turns, and only the last answer is trained."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.corpora import read_files
from support.makers import jsonl

from trainer.corpus.embedded_turns import REASONING
from trainer.corpus.examples import Completion, Conversation, Message, Text

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}]
SAID = {"role": "assistant", "content": "A plover."}
WHOLE = Conversation(
    (Message("system", "Be brief."), Message("user", "Which?"), Message("assistant", "A plover."))
)


@pytest.mark.parametrize(
    "record",
    [
        {"input": json.dumps(ASKED), "output": json.dumps(SAID)},
        {"input": json.dumps({"messages": ASKED}), "output": "A plover."},
        {"input": {"messages": ASKED}, "output": SAID},
        {"input": ASKED, "output": [SAID]},
        {"input": str(ASKED), "output": str(SAID)},
        {"prompt": json.dumps(ASKED), "completion": "A plover."},
        {"prompt": ASKED, "response": "A plover."},
        {"text": json.dumps([*ASKED, SAID])},
    ],
)
def test_turns_are_read_wherever_a_log_keeps_them(tmp_path: Path, record: dict[str, Any]) -> None:
    assert read_files(tmp_path, {"a.jsonl": jsonl(record)}).examples == [WHOLE]


def test_earlier_answers_of_a_request_are_given(tmp_path: Path) -> None:
    asked = [ASKED[1], SAID, {"role": "user", "content": "And now?"}]
    record = {"input": json.dumps(asked), "output": "A gull."}
    (found,) = read_files(tmp_path, {"a.jsonl": jsonl(record)}).examples
    assert isinstance(found, Conversation)
    assert [(turn.content, turn.trained) for turn in found.messages] == [
        ("Which?", True),
        ("A plover.", False),
        ("And now?", True),
        ("A gull.", True),
    ]


def test_an_answer_of_openai_that_was_stored_is_its_words(tmp_path: Path) -> None:
    words = {"type": "output_text", "text": "A plover."}
    output = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "role": "assistant", "content": [words]},
    ]
    corpus = read_files(tmp_path, {"a.jsonl": jsonl({"input": ASKED, "output": output})})
    assert corpus.examples == [WHOLE]
    assert corpus.notices == [f"a.jsonl: {REASONING}: 1"]


@pytest.mark.parametrize(
    "record, example",
    [
        (
            {"question": '{"role": 1}', "answer": '["one"]'},
            Conversation((Message("user", '{"role": 1}'), Message("assistant", '["one"]'))),
        ),
        ({"prompt": "[role] a", "completion": "b"}, Completion("[role] a", "b")),
        ({"text": '[{"from": "Kim", "text": "hi"}]'}, Text('[{"from": "Kim", "text": "hi"}]')),
    ],
)
def test_other_json_stays_the_text_that_it_is(
    tmp_path: Path, record: dict[str, Any], example: Conversation | Completion | Text
) -> None:
    assert read_files(tmp_path, {"a.jsonl": jsonl(record)}).examples == [example]
