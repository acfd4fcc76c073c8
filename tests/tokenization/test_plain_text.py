"""Ordinary text gets the tokens of the tokenizer's own template, with no stray space."""

import json

import pytest
from support.records import CHATML, INST, one
from support.tokenizers import BUILD, make_tokenizer
from tokenizers import Tokenizer

from trainer.corpus.examples import Conversation, Message
from trainer.errors import SettingsError
from trainer.tokenization.chat_template import FALLBACK_TEMPLATE
from trainer.tokenization.plain_text import PlainTextTokenizer


@pytest.mark.parametrize("kind", BUILD)
@pytest.mark.parametrize("template", [FALLBACK_TEMPLATE, CHATML, INST])
def test_ordinary_words_get_the_ids_of_the_tokenizers_own_template(kind, template):
    tokenizer = make_tokenizer(kind, template)
    turns = [("user", "What is an answer?"), ("assistant", "12 hours"), ("user", "The fox")]
    messages = [*turns, ("assistant", "jumps over")]
    expected = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in messages],
        return_dict=False,
    )
    conversation = Conversation(tuple(Message(*turn) for turn in messages))
    input_ids = one(conversation, tokenizer).input_ids
    assert input_ids == expected[: len(input_ids)]
    assert tokenizer.decode(expected[len(input_ids) :]).strip() == ""


def test_no_stray_space_joins_a_text_that_follows_another(any_tokenizer):
    plain = PlainTextTokenizer(any_tokenizer)
    first, behind, special = plain.ids([("fox", "nothing"), ("fox", "text"), ("</s>", "nothing")])
    assert any_tokenizer.decode(first + behind).strip() == "foxfox"
    assert any_tokenizer.eos_token_id not in special
    assert plain.ids([]) == []


def test_a_pattern_that_tries_all_there_is_at_each_character_is_given_up(monkeypatch):
    """0.1 s of each character, just below the number of tries that the library allows."""
    made = json.loads(make_tokenizer("bytes").backend_tokenizer.to_str())
    slow = {"type": "Split", "pattern": {"Regex": "(?:[a-z ]|[a-z ]){1,20}[^\\w\\W]"}}
    slow |= {"behavior": "Isolated", "invert": False}
    made["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [slow, made["pre_tokenizer"]]}
    tokenizer = make_tokenizer("bytes")
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(made))
    plain = PlainTextTokenizer(tokenizer)
    assert plain.ids([("fox", "nothing")])
    monkeypatch.setattr("trainer.tokenization.plain_text.MOST_S", 0.3)
    with pytest.raises(SettingsError, match="did not end within 0 s for 60 characters"):
        plain.ids([("brown fox " * 6, "nothing")])
