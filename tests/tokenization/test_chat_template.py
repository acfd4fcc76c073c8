"""A template's text around the contents: set once, of one day, and named where it cannot be had."""

import pytest
from support.corpora import encode
from support.records import OPEN, TEMPLATES, THINK
from support.tokenizers import make_tokenizer

from trainer.corpus.examples import Conversation, Message
from trainer.errors import DataError
from trainer.tokenization.chat_template import FALLBACK_TEMPLATE, ChatTemplate, ensure_chat_template
from trainer.tokenization.record_tokenizer import question_ids
from trainer.tokenization.special_tokens import SpecialTokens


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
        ("{{ raise_exception('no system turns') }}", r"refuses.*system, user.*no system turns"),
        ("{{ messages[-1].content }}", r"leaves out a turn of system, user, assistant"),
    ],
)
def test_a_template_that_cannot_word_the_turns_is_named(template, words):
    tokenizer = make_tokenizer("llama", template)
    turns = (Message("system", "s"), Message("user", "u"), Message("assistant", "a"))
    with pytest.raises(DataError, match=words):
        encode([Conversation(turns)], tokenizer, 64)


def test_a_frame_is_what_a_template_writes_around_contents_and_is_rendered_once(llama):
    template = ChatTemplate(llama, SpecialTokens(llama))
    roles = ("user", "assistant")
    assert template.frame(roles) == ("<s>### Question:\n", "\n\n### Answer:\n", "</s>\n")
    assert template.frame(roles) is template.frame(roles)
    assert template.frame(("user",), generation=True)[-1] == "\n\n### Answer:\n"


def test_an_answer_ends_with_the_templates_own_token_or_else_with_eos():
    ends = {}
    for name in ("chatml", "open"):
        tokenizer = make_tokenizer("llama", TEMPLATES[name])
        template = ChatTemplate(tokenizer, SpecialTokens(tokenizer))
        ends[name] = template.answer_end(("user", "assistant"))
    assert ends == {"chatml": "<|end|>", "open": "</s>"}


def test_what_is_given_at_inference_opens_the_answer_and_the_rest_is_trained():
    tokenizer = make_tokenizer("llama", THINK)
    template = ChatTemplate(tokenizer, SpecialTokens(tokenizer))
    before = template.frame(("user", "assistant"))[1]
    assert template.answer_header(("user",), before) == (
        "<|end|>\n<|assistant|>\n",
        "<think>\n\n</think>\n\n",
    )
