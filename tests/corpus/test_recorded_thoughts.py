"""An answer that thinks is one thought and then words; anything else is told or refused."""

import pytest
from support.corpora import read_files, read_named
from support.makers import jsonl

from trainer.corpus.examples import Completion, Message
from trainer.corpus.recorded_thoughts import OTHER_TAGS, STARTED_BEFORE


def answer_of(folder, words):
    (example,) = (
        corpus := read_files(folder, {"a.jsonl": jsonl({"question": "q", "answer": words})})
    ).examples
    return example.messages[-1], corpus.notices


@pytest.mark.parametrize(
    "words, thought, answer",
    [
        ("two and two\n</think>\n\nFour", "two and two", "Four"),
        ("hm</think>Four", "hm", "Four"),
        ("\n</think>\n\nFour", "", "Four"),
    ],
)
def test_a_thought_that_the_template_opened_is_a_thought(tmp_path, words, thought, answer):
    found, notices = answer_of(tmp_path, words)
    assert found == Message("assistant", answer, thought=thought)
    assert notices == [f"a.jsonl: {STARTED_BEFORE}: 1"]


@pytest.mark.parametrize(
    "words",
    [
        "<think>\nhm\n</think>\n\nFour",
        "The tag <think> opens a thought and </think> ends it.",
        "It ends with `</think>`, always.",
    ],
)
def test_an_answer_about_thoughts_is_words(tmp_path, words):
    assert answer_of(tmp_path, words) == (Message("assistant", words), [])


def test_a_thought_in_other_tags_is_told(tmp_path):
    found, notices = answer_of(tmp_path, "<thinking>hm</thinking>Four")
    assert found.content == "<thinking>hm</thinking>Four"
    assert notices == [f"a.jsonl: {OTHER_TAGS}: 1"]


@pytest.mark.parametrize(
    "words, reason",
    [
        ("<think>hm", "holds a thought that never ends"),
        ("<think>hm</think>", "holds a thought and no answer behind it"),
        ("hm</think>\n", "holds a thought and no answer behind it"),
        ("<think>a</think>\n<think>b</think>c", "holds two thoughts before an answer"),
        ("a</think>b</think>c", "holds </think> twice and no <think>"),
    ],
)
def test_an_answer_that_is_none_is_skipped_with_the_reason(tmp_path, words, reason):
    rows = jsonl({"question": "q", "answer": words}, {"prompt": "p", "completion": words})
    skipped = read_named(tmp_path, a_jsonl=rows, good_txt=b"good").skipped
    assert reason in skipped[0]
    assert len(skipped) == 1 + words.startswith("<think>")


def test_a_completion_may_end_the_thought_of_its_prompt(tmp_path):
    record = {"prompt": "q <think>", "completion": "hm</think>a"}
    assert read_files(tmp_path, {"a.jsonl": jsonl(record)}).examples == [
        Completion("q <think>", "hm</think>a")
    ]
