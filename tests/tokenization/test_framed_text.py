"""Text that is framed already is read back into turns where the frame is the base's own."""

import pytest
from support.chat_templates import NAMES, tokenizer_of

from trainer.corpus.examples import Completion, Conversation, Message, Text, Unusable
from trainer.tokenization.framed_text import frame_in
from trainer.tokenization.record_tokenizer import tokenizer_of_records

CHATML = "<|im_start|>user\nWhen is tea?<|im_end|>\n<|im_start|>assistant\nAt four.<|im_end|>\n"
TURNS = Conversation((Message("user", "When is tea?"), Message("assistant", "At four.")))


def recognised(name: str, example: Text | Completion):
    return tokenizer_of_records(tokenizer_of(name)).recognised(example)


@pytest.mark.parametrize(
    "name, text",
    [
        ("qwen3", CHATML),
        ("qwen2_5", CHATML),
        (
            "gemma",
            "<s><start_of_turn>user\nWhen is tea?<end_of_turn>\n<start_of_turn>model\nAt four.",
        ),
        ("llava_next", "<s>[INST] When is tea? [/INST] At four. </s>"),
    ],
)
def test_a_text_in_the_bases_own_frame_is_the_conversation_it_frames(name, text):
    assert recognised(name, Text(text)) == TURNS


def test_several_rounds_and_a_system_turn_are_found():
    text = "<|im_start|>system\nBe brief.<|im_end|>\n" + CHATML + CHATML
    assert recognised("qwen2_5", Text(text)) == Conversation(
        (Message("system", "Be brief."), *TURNS.messages, *TURNS.messages)
    )


def test_a_framed_prompt_is_given_and_its_completion_trained():
    prompt = "<|im_start|>user\nWhen is tea?<|im_end|>\n<|im_start|>assistant\n"
    assert recognised("qwen3", Completion(prompt, "At four.<|im_end|>")) == TURNS
    whole = Completion(CHATML + prompt, "At four.")
    found = recognised("qwen3", whole)
    assert [m.trained for m in found.messages if m.role == "assistant"] == [False, True]


@pytest.mark.parametrize(
    "text",
    [
        "Hello. " + CHATML,
        CHATML + "Bye.",
        "<|im_start|>user\nWhen is tea?<|im_end|>",
        "<start_of_turn>user\nWhen?<end_of_turn>\n<start_of_turn>model\nAt four.<end_of_turn>",
    ],
)
def test_what_is_framed_in_part_or_otherwise_stays_text_and_is_counted(text):
    assert recognised("qwen3", Text(text)) == Text(text)
    assert frame_in(Text(text))


def test_text_without_a_frame_is_none():
    assert frame_in(Text("Tea is at four. a < b | c")) == ""
    assert frame_in(TURNS) == ""


@pytest.mark.parametrize("name", NAMES)
def test_what_a_template_writes_is_read_back(name):
    """Where it has a frame of tokens, and writes no call."""
    records = tokenizer_of_records(tokenizer_of(name))
    turns = Conversation((*TURNS.messages, Message("user", "Sure?"), Message("assistant", "Yes.")))
    try:
        text = records.template.render(turns).text
    except Unusable:
        return
    found = records.recognised(Text(text))
    assert isinstance(found, Text) or found.messages[-4:] == turns.messages
