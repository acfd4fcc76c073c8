"""Text that is framed already is read back into turns where the frame is the base's own."""

import pytest
from support.chat_templates import NAMES, tokenizer_of, with_template

from trainer.corpus.examples import Completion, Conversation, Message, Text, Unusable
from trainer.tokenization.framed_text import frame_in
from trainer.tokenization.record_tokenizer import tokenizer_of_records

CHATML = "<|im_start|>user\nWhen is tea?<|im_end|>\n<|im_start|>assistant\nAt four.<|im_end|>\n"


def asked(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)))


TURNS = asked("When is tea?", "At four.")


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


@pytest.mark.parametrize("end", ["", "b", "b [/INST] "])
def test_white_space_in_a_frame_takes_no_time(end):
    text = "<s>[INST] a" + " " * 500_000 + end
    assert recognised("llava_next", Text(text)) == Text(text)
    assert frame_in(asked(" " * 500_000 + "a", "b")) == ""


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


@pytest.mark.parametrize(
    "example",
    [
        Text("Tea is at four. a < b | c"),
        Text("# Guide\n\n### Instruction: how to read one\n\nSlowly."),
        TURNS,
        asked("What does <|im_start|> do?", "It begins a turn, as `<|im_end|>` ends it."),
    ],
)
def test_what_has_no_frame_is_none(example):
    assert frame_in(example) == ""


@pytest.mark.parametrize(
    "example",
    [
        asked("[INST] When is tea? [/INST]", "At four."),
        asked("When is tea?", "At four. </s>"),
        asked("<|im_start|>user\nWhen is tea?<|im_end|>", "At four.<|im_end|>\n"),
        asked("<s> [INST] When is tea?", "At four."),
        Conversation((Message("system", "<|im_start|>system\nBe brief."), *TURNS.messages)),
        asked("### Human: When is tea?", "At four."),
        Text("### Instruction:\nWhen is tea?\n\n### Response:\nAt four."),
        Text("### Human: When is tea?\n### Assistant: At four."),
        Text("Below is an instruction that describes a task. Write a response. When is tea?"),
        Completion("### Instruction:\nWhen is tea?\n\n### Response:\n", "At four."),
    ],
)
def test_a_frame_inside_of_a_turn_and_a_frame_of_words_stay_and_are_counted(example):
    assert recognised("qwen3", example) == example
    assert frame_in(example)


# As SmolLM2 has it: a default system turn, and what opens a turn is the tokenizer's bos.
DEFAULT_SYSTEM = """{% for message in messages %}\
{% if loop.first and message['role'] != 'system' %}<|im_start|>system
You are helpful<|im_end|>
{% endif %}{{ '<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SYSTEM = Message("system", "You are helpful")
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + "
    "'[/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


def chatml_tokenizer(template: str = DEFAULT_SYSTEM):
    """`<|im_start|>` is its bos, and `[INST]` no token."""
    tokenizer = with_template(DEFAULT_SYSTEM)
    tokenizer.bos_token, tokenizer.eos_token = "<|im_start|>", "<|im_end|>"
    tokenizer.chat_template = template
    return tokenizer


def test_what_apply_chat_template_returns_is_the_bases_own_where_bos_opens_each_turn():
    tokenizer = chatml_tokenizer()
    records = tokenizer_of_records(tokenizer)
    turns = [{"role": m.role, "content": m.content} for m in TURNS.messages]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    whole = Conversation((SYSTEM, *TURNS.messages))
    assert text.startswith("<|im_start|>system\nYou are") and text.endswith("<|im_end|>\n")
    assert records.recognised(Text(text)) == whole
    assert records.recognised(Text(text.rstrip())) == whole
    asking = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert records.recognised(Completion(asking, "At four.<|im_end|>\n")) == whole
    assert records.recognised(Text(CHATML)) == TURNS
    assert records.template.render(whole).text == text
    assert records.template.render(TURNS).text == text


def test_a_frame_whose_marks_are_no_tokens_is_known_by_them():
    records = tokenizer_of_records(chatml_tokenizer(MISTRAL))
    asked_so = "[INST] When is tea?[/INST]"
    assert records.recognised(Text(f"<|im_start|>{asked_so} At four.<|im_end|>")) == TURNS
    assert records.recognised(Completion(asked_so, " At four.")) == TURNS
    for other in (
        f"<s>{asked_so} At four.</s>",
        f"{asked_so} At four. {asked_so} At five.<|im_end|>",
    ):
        assert records.recognised(Text(other)) == Text(other)


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
