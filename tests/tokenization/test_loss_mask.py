"""Answers and their ends are trained, and nothing else of a conversation is."""

import json
import sys

import pytest
from support.chat_templates import template, tokenizer_of, with_template
from support.records import THINK, asked, one, trained_ids
from support.tokenizers import make_tokenizer

from trainer.corpus.examples import Conversation, Message, ToolCall
from trainer.tokenization.record_tokenizer import tokenizer_of_records

USER, MORE = Message("user", "When is tea?"), Message("user", "And dinner?")
QWEN_OPEN = "<|im_start|>assistant\n"


def trained(name: str, *messages: Message, tools: str = "") -> list[list[str]]:
    """The trained stretches of each sequence, by the template of this name."""
    found = []
    for spans in tokenizer_of_records(tokenizer_of(name)).spans(Conversation(messages, tools)):
        stretches = [""]
        for span in spans:
            stretches[-1] += span.text if span.trained else ""
            if not span.trained and stretches[-1]:
                stretches.append("")
        found.append(stretches)
    return found


def test_every_answer_is_trained_with_its_end_and_nothing_else_is(llama):
    turns = ("system", "Be brief."), ("user", "One?"), ("assistant", "1"), ("user", "Two?")
    conversation = Conversation(
        tuple(Message(*turn) for turn in (*turns, ("assistant", "2"), ("user", "Bye")))
    )
    encoded = one(conversation, llama)
    assert llama.decode(trained_ids(encoded)) == "1</s>2</s>"
    assert llama.decode(encoded.input_ids) == (
        "<s>Be brief.\n\n### Question:\nOne?\n\n### Answer:\n1</s>\n"
        "### Question:\nTwo?\n\n### Answer:\n2</s>"
    )


def test_an_answer_keeps_its_indent_and_its_last_line_break():
    code = "    if x:\n        return 1\n    return 0\n"
    encoded = one(asked("Complete:\ndef f(x):", code), make_tokenizer("bytes"))
    assert make_tokenizer("bytes").decode(trained_ids(encoded)) == code + "</s>"


def test_the_empty_thought_of_a_template_is_given_and_not_trained():
    tokenizer = make_tokenizer("llama", THINK)
    encoded = one(asked("Why?", "So."), tokenizer)
    assert tokenizer.decode(trained_ids(encoded)) == "So.<|end|>"


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "glm4moe", "nemotron_3_nano"])
def test_an_answer_without_a_thought_is_trained_without_one(name):
    ((answer,),) = trained(name, USER, Message("assistant", "At four."))
    assert "think" not in answer and answer.lstrip().startswith("At four.")


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1_distill", "glm4moe", "nemotron_3_nano"])
@pytest.mark.parametrize(
    "answer",
    [
        Message("assistant", "<think>\nIt is Monday.\n</think>\n\nYes."),
        Message("assistant", "Yes.", thought="It is Monday."),
    ],
)
def test_a_thought_is_trained_once(name, answer):
    tokenizer = tokenizer_of(name)
    encoded = one(Conversation((USER, answer)), tokenizer)
    text, learnt = tokenizer.decode(encoded.input_ids), tokenizer.decode(trained_ids(encoded))
    assert text.count("<think>") == text.count("</think>") == 1
    assert learnt.count("It is Monday.") == learnt.count("</think>") == learnt.count("Yes.") == 1


def test_a_thought_that_the_template_leaves_out_of_history_is_trained_where_it_is_asked_for():
    first = Message("assistant", "At four.", thought="After three.")
    last = Message("assistant", "At seven.", thought="Soup is slow.")
    assert trained("qwen3", USER, first, MORE, last) == [
        ["<think>\nAfter three.\n</think>\n\nAt four.<|im_end|>"],
        ["<think>\nSoup is slow.\n</think>\n\nAt seven.<|im_end|>"],
    ]


def test_an_answer_of_weight_nothing_is_given():
    wrong = Message("assistant", "At nine.", trained=False)
    assert trained("qwen3", USER, wrong, MORE, Message("assistant", "At seven.")) == [
        ["At seven.<|im_end|>"]
    ]


def test_a_call_is_trained_with_its_frame_and_what_the_tool_gave_is_not():
    call = Message("assistant", "", tool_calls=(ToolCall("rain", '{"town": "Brede"}'),))
    result = Message("tool", "wet", name="rain")
    assert trained("qwen3", USER, call, result, Message("assistant", "Take a coat.")) == [
        [
            '<tool_call>\n{"name": "rain", "arguments": {"town": "Brede"}}\n</tool_call><|im_end|>',
            "Take a coat.<|im_end|>",
        ]
    ]


@pytest.mark.parametrize("name", ["qwen3", "deepseekv3"])
def test_a_call_is_trained_from_its_first_character_where_its_tag_is_several_tokens(name):
    """<think> and <tool_call> begin alike, and nothing says where one of them ends."""
    call = Message(
        "assistant", "", tool_calls=(ToolCall("rain", '{"town": "Brede"}', "call00001"),)
    )
    result = Message("tool", "wet", name="rain", call_id="call00001")
    conversation = Conversation((USER, call, result, Message("assistant", "Take a coat.")))
    text = template(name)
    found = []
    for tokenizer in (with_template(text), with_template(text, without="think|tool")):
        (spans,) = tokenizer_of_records(tokenizer).spans(conversation)
        found.append("".join(span.text for span in spans if span.trained))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "content", ["</think>", "<|im_end|>", "<tool_response>wet</tool_response>"]
)
def test_what_a_template_looks_for_is_text_in_a_question(content):
    tokenizer = tokenizer_of("qwen3")
    plain, hostile = one(asked("a", "b"), tokenizer), one(asked(f"a {content} a", "b"), tokenizer)
    added = set(tokenizer.get_added_vocab().values())

    def count(ids: list[int]) -> int:
        return sum(token in added for token in ids)

    assert count(hostile.input_ids) == count(plain.input_ids)
    assert f"a {content} a" in tokenizer.decode(hostile.input_ids)


@pytest.mark.parametrize(
    "marks",
    [
        "{{ '\ue000' ~ '9' * 5000 ~ '\ue001' }}",
        "{{ '\ue000777\ue001x\ue001777\ue000' }}",
        "{{ '\ue010' ~ '9' * 5000 ~ '\ue011' }}",
        "{{ '\ue010777\ue011' }}",
    ],
)
def test_a_template_that_writes_marks_itself_refuses_records_or_writes_them(marks: str) -> None:
    tokenizer = make_tokenizer(
        "bytes", marks + "{{ messages[0].content }}|{{ messages[1].content }}"
    )
    for question in ("Why?", "Why not?"):
        (found,) = tokenizer_of_records(tokenizer).encode([asked(question, "So.")])
        refused = "words its turns by what they say" in found.refused
        assert refused == ("\ue000777" in marks)
        if not refused:
            text = tokenizer.decode(found.sequences[0].input_ids)
            assert f"{question}|So." in text


@pytest.mark.parametrize(
    "word", ["\ue000" + "9" * 5000 + "\ue001", "\ue000777\ue001z\ue001777\ue000"]
)
def test_marks_in_a_call_or_a_tool_are_words(word: str) -> None:
    call = ToolCall("f", json.dumps({"x": word}, ensure_ascii=False))
    tools = json.dumps([{"type": "function", "function": {"name": word}}], ensure_ascii=False)
    asks = Conversation((USER, Message("assistant", "", tool_calls=(call,))), tools)
    (found,) = tokenizer_of_records(tokenizer_of("qwen3")).encode([asks])
    assert found.sequences, found.refused


def test_a_record_that_is_nested_too_deep_costs_itself_alone() -> None:
    call = ToolCall("a", '{"a":' * 900 + "1" + "}" * 900)
    deep = Conversation((USER, Message("assistant", "", tool_calls=(call,))))
    records = tokenizer_of_records(tokenizer_of("qwen3"))
    found = records.encode([asked("Why?", "So."), deep, asked("When?", "Now.")])
    assert [bool(one.sequences) for one in found] == [True, False, True]
    assert "nested too deep" in found[1].refused


def test_frames_that_are_kept_word_a_record_as_its_own_rendering_does():
    """Contents that the template looks for are rendered, others filled into a frame."""
    records = tokenizer_of_records(tokenizer_of("qwen3"))
    records.spans(asked("Why?", "So."))
    for question in ("Why {} not?", "ending </think> here", "  spaced\n", "\ue000x"):
        text = "".join(span.text for span in records.spans(asked(question, "So."))[0])
        expected = tokenizer_of("qwen3").apply_chat_template(
            [{"role": "user", "content": question}, {"role": "assistant", "content": "So."}],
            tokenize=False,
        )
        assert text == expected.removesuffix("\n")


def test_a_long_conversation_is_rendered_as_often_as_a_short_one(llama):
    """Not once for each of its turns."""
    records = tokenizer_of_records(llama)

    def renderings(turns: int) -> int:
        calls: list[str] = []
        turn = (Message("user", " Why?"), Message("assistant", "So."))
        sys.setprofile(lambda frame, event, _: calls.append(f"{event} {frame.f_code.co_name}"))
        try:
            records.spans(Conversation(turn * (turns // 2)))
        finally:
            sys.setprofile(None)
        return calls.count("call _asked")

    renderings(64)
    assert renderings(2048) == renderings(64) == 1
