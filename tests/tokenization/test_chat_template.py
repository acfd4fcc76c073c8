"""A template's own rendering, with its contents found in it; of one day, and named where it cannot
be had."""

import pytest
from support.chat_templates import tokenizer_of, with_template
from support.records import INST, OPEN, TEMPLATES, THINK, asked
from support.tokenizers import make_tokenizer

from trainer.corpus.examples import Conversation, Message, Unusable
from trainer.errors import DataError
from trainer.tokenization.chat_template import (
    FALLBACK_TEMPLATE,
    MOST_TURNS,
    ChatTemplate,
    ensure_chat_template,
)
from trainer.tokenization.record_tokenizer import question_ids
from trainer.tokenization.special_tokens import SpecialTokens

USER, ANSWER = Message("user", "Why?"), Message("assistant", "So.")


def template_of(tokenizer) -> ChatTemplate:
    return ChatTemplate(tokenizer, SpecialTokens(tokenizer, tokenizer.chat_template or ""))


def test_the_fallback_template_is_set_once_and_says_why(llama):
    fresh = make_tokenizer("llama")
    assert "no chat template" in (ensure_chat_template(fresh) or "")
    assert fresh.chat_template == FALLBACK_TEMPLATE
    assert ensure_chat_template(fresh) is None
    assert question_ids(fresh, "Why?") == question_ids(llama, "Why?")


def test_a_template_that_writes_the_date_gives_the_same_tokens_every_day():
    tokenizer = make_tokenizer("llama", "{{ strftime_now('%d %b %Y') }}" + OPEN)
    assert tokenizer.decode(question_ids(tokenizer, "Why?")).startswith("26 Jul 2024")


@pytest.mark.parametrize(
    "template, words",
    [
        ("{{ raise_exception('no such turns') }}", "refuses it.*no such turns"),
        ("{{ messages[0].content + 1 }}", "refuses it"),
        ("{{ messages[-1].content }}", r"leaves out its turn 1 \(user\)"),
        ("{{ messages[0].content | upper }}", r"leaves out its turn 2 \(assistant\)"),
        ("{{ messages[0].content[:2] }}{{ messages[1].content }}", "by what they say"),
    ],
)
def test_a_template_that_cannot_word_the_turns_is_named(template, words):
    with pytest.raises(Unusable, match=words):
        template_of(make_tokenizer("llama", template)).render(Conversation((USER, ANSWER)))


def test_a_question_that_a_template_refuses_is_named():
    tokenizer = make_tokenizer("llama", "{{ raise_exception('no questions') }}")
    with pytest.raises(DataError, match=r"user cannot be asked.*no questions"):
        question_ids(tokenizer, "Why?")


def test_contents_are_found_where_the_template_writes_them(llama):
    rendering = template_of(llama).render(asked("Why?", "So."))
    assert rendering.text == "<s>### Question:\nWhy?\n\n### Answer:\nSo.</s>\n"
    found = [rendering.text[region.start : region.end] for region in rendering.regions]
    assert found == ["Why?", "So."]


def test_an_answer_ends_with_the_templates_own_token_or_else_with_none():
    ends = {n: template_of(make_tokenizer("llama", TEMPLATES[n])).ends for n in ("chatml", "open")}
    assert ends == {"chatml": ("<|end|>",), "open": ()}


@pytest.mark.parametrize(
    "template, thinking, whole, own",
    [
        (THINK, False, "<|end|>\n<|assistant|>\n", "<|assistant|>\n"),
        (INST, False, " [/INST]", ""),
    ],
)
def test_what_asks_for_an_answer_is_known(template, thinking, whole, own):
    assert template_of(make_tokenizer("llama", template)).opening(thinking) == (whole, own)


def test_a_thinking_model_is_asked_in_both_ways():
    template = template_of(tokenizer_of("qwen3"))
    assert template.opening(True)[1] == "<|im_start|>assistant\n"
    assert template.opening(False)[1] == "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert template.thought_end == "\n</think>\n\n"


def test_a_conversation_of_too_many_turns_is_refused(llama):
    turns = (USER, ANSWER) * (MOST_TURNS // 2 + 1)
    with pytest.raises(Unusable, match="2,050 turns; at most 2,048"):
        template_of(llama).render(Conversation(turns))


def test_a_template_without_a_system_turn_gets_it_in_the_first_question():
    system = Message("system", "Be brief.")
    rendering = template_of(tokenizer_of("gemma")).render(Conversation((system, USER, ANSWER)))
    assert "user\nBrief".replace("Brief", "Be brief.\n\nWhy?") in rendering.text
    with pytest.raises(Unusable, match="no user turn follows"):
        template_of(tokenizer_of("gemma")).render(Conversation((system, ANSWER)))


def test_a_system_prompt_that_is_written_into_the_last_question_is_left_there():
    """As Mistral's templates do it."""
    template = (
        "{%- if messages[0].role == 'system' %}{%- set sys = messages[0].content %}"
        "{%- set turns = messages[1:] %}{%- else %}{%- set turns = messages %}{%- endif %}"
        "{{ bos_token }}{%- for m in turns %}{%- if m.role == 'user' %}"
        "{%- if sys is defined and loop.index0 >= turns | length - 2 %}"
        "{{ '[INST] ' + sys + '\n\n' + m.content + '[/INST]' }}"
        "{%- else %}{{ '[INST] ' + m.content + '[/INST]' }}{%- endif %}"
        "{%- else %}{{ ' ' + m.content + eos_token }}{%- endif %}{%- endfor %}"
    )
    turns = (Message("system", "Be nice"), USER, ANSWER, Message("user", "And?"), ANSWER)
    rendering = template_of(with_template(template)).render(Conversation(turns))
    assert rendering.text == ("<s>[INST] Why?[/INST] So.</s>[INST] Be nice\n\nAnd?[/INST] So.</s>")
