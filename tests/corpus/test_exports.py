"""What other programs export of conversations and tasks is read as the records that it holds."""

import json
from collections import Counter

import pytest
from support.corpora import read_files, read_named
from support.makers import jsonl

from trainer.corpus.answers import FURTHER_ANSWERS
from trainer.corpus.columns import Columns
from trainer.corpus.examples import Conversation, Message
from trainer.corpus.exports import OTHER_PARTS, OTHER_TOOLS, reshaped
from trainer.corpus.message_trees import OTHER_MESSAGES
from trainer.errors import DataError


def qa(question, answer):
    return Conversation((Message("user", question), Message("assistant", answer)))


def read(folder, data, **given):
    return read_files(folder, {"a.json": json.dumps(data).encode()}, columns=Columns(**given))


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


def said(sender, *blocks, **more):
    return {"sender": sender, "text": "all of it", "content": list(blocks), **more}


def text(words):
    return {"type": "text", "text": words}


def test_a_conversation_of_claude_is_its_words(tmp_path):
    answer = said("assistant", {"type": "thinking", "thinking": "hm"}, text("A plover."))
    asked = said("human", text("Which?"), files=[{"file_name": "a.png"}])
    for data in (
        [{"uuid": "1", "chat_messages": [asked, answer]}],
        {"chat_messages": [asked, answer]},
    ):
        corpus = read(tmp_path, data)
        assert corpus.examples == [qa("Which?", "A plover.")]
        assert corpus.notices == [f"a.json: {OTHER_PARTS}: 2"]


def test_contents_of_gemini_are_turns(tmp_path):
    contents = [
        {"role": "user", "parts": [{"text": "Which "}, {"text": "bird?"}]},
        {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "A plover."}]},
    ]
    record = {"systemInstruction": {"parts": [{"text": "Be brief."}]}, "contents": contents}
    corpus = read_files(tmp_path, {"a.jsonl": jsonl(record | {"tools": [{}]})})
    assert corpus.examples == [
        Conversation(
            (
                Message("system", "Be brief."),
                Message("user", "Which bird?"),
                Message("assistant", "A plover.", thought="hm"),
            )
        )
    ]
    assert corpus.notices == [f"a.jsonl: {OTHER_TOOLS}: 1"]
    call = [contents[0], {"role": "model", "parts": [{"functionCall": {"name": "f"}}]}]
    skipped = read_named(tmp_path, a_jsonl=jsonl({"contents": call}), b_txt=b"good").skipped
    assert skipped == ['a.jsonl line 1: "contents[1].parts[0]" is functionCall, not text']


ASKED = {"messages": [{"role": "user", "content": "Which?"}]}
ANSWERED = {"choices": [{"message": {"role": "assistant", "content": "A plover."}}]}


@pytest.mark.parametrize(
    "record",
    [
        {"custom_id": "1", "body": ASKED, "response": {"status_code": 200, "body": ANSWERED}},
        {"request": ASKED, "response": ANSWERED},
        {"inputs": ASKED, "outputs": {"message": ANSWERED["choices"][0]["message"]}},
        {"body": {"messages": [*ASKED["messages"], ANSWERED["choices"][0]["message"]]}},
    ],
)
def test_a_request_with_its_answer_is_a_conversation(tmp_path, record):
    assert read_files(tmp_path, {"a.jsonl": jsonl(record)}).examples == [qa("Which?", "A plover.")]


@pytest.mark.parametrize("names", [("inputs", "outputs"), ("input", "expectedOutput")])
def test_what_is_given_and_expected_side_by_side_is_one_record(tmp_path, names):
    record = dict(zip(names, ({"question": "q"}, {"answer": "a"}), strict=True))
    assert read_files(tmp_path, {"a.jsonl": jsonl(record)}).examples == [qa("q", "a")]


@pytest.mark.parametrize(
    "record, reason",
    [
        ({"custom_id": "1", "response": {"body": ANSWERED}}, "without its question"),
        ({"custom_id": "1", "body": ASKED}, "is a request without its answer"),
        (
            {"input": ASKED, "preferred_output": [], "non_preferred_output": []},
            "is preference data",
        ),
    ],
)
def test_half_of_a_conversation_is_refused_with_what_is_missing(tmp_path, record, reason):
    with pytest.raises(DataError, match=reason):
        read_files(tmp_path, {"a.jsonl": jsonl(record)})


def test_a_question_of_arc_holds_its_choices(tmp_path):
    choices = [{"text": "swift", "label": "A"}, {"text": "plover", "label": "B"}]
    record = {"question": {"stem": "Which wades?", "choices": choices}, "answerKey": "B"}
    assert read_files(tmp_path, {"a.jsonl": jsonl(record)}).examples == [
        qa("Which wades?\n\nA. swift\nB. plover", "B. plover")
    ]


def test_of_several_answers_that_were_asked_for_at_once_the_first_is_taken_and_told(tmp_path):
    other = {"message": {"role": "assistant", "content": "A gull."}}
    answered = {"choices": [*ANSWERED["choices"], other, other]}
    corpus = read_files(tmp_path, {"a.jsonl": jsonl({"request": ASKED, "response": answered})})
    assert corpus.examples == [qa("Which?", "A plover.")]
    assert corpus.notices == [f"a.jsonl: {FURTHER_ANSWERS}: 1"]


def test_a_chat_of_open_webui_is_its_turns(tmp_path):
    turns = [
        {"id": "1", "role": "user", "content": "Which?", "models": ["x"]},
        {"id": "3", "role": "assistant", "content": "A plover.", "done": True},
    ]
    chat = {"title": "t", "system": "Be brief.", "messages": turns, "history": {"currentId": "3"}}
    (found,) = read_files(tmp_path, {"a.jsonl": jsonl({"id": "q", "chat": chat})}).examples
    assert found.messages == (
        Message("system", "Be brief."),
        Message("user", "Which?"),
        Message("assistant", "A plover."),
    )


def test_many_results_of_one_name_are_joined_once() -> None:
    """A copy of all before for each would take hours."""
    regions = [{"from_name": "answer", "value": {"text": ["x" * 100]}}] * 400_000
    record = {"data": {"question": "q"}, "annotations": [{"result": regions}]}
    found = reshaped(record, Columns(), Counter())
    assert found is not None and len(found["answer"]) == 400_000 * 101 - 1
