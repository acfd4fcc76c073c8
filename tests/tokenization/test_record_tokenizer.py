"""What is given at inference is the start of what was trained, for every tokenizer and template."""

import pytest
from support.corpora import encode
from support.records import CHATML, asked, one, trained_ids
from support.tokenizers import bytes_bpe
from transformers import PreTrainedTokenizerFast

from trainer.corpus.examples import Completion, Conversation, Message, Text
from trainer.errors import SettingsError
from trainer.tokenization.record_tokenizer import prompt_ids, question_ids, stop_ids


def test_the_question_at_inference_is_exactly_the_start_of_what_was_trained(templated_tokenizer):
    for question, answer in [("What is 2?", "Two"), ("</s><s>?", " <|end|>x"), ("é😀\n\n", "▁ ü")]:
        encoded = one(asked(question, answer), templated_tokenizer)
        prompt = question_ids(templated_tokenizer, question)
        first_trained = next(at for at, label in enumerate(encoded.labels) if label != -100)
        assert encoded.input_ids[:first_trained] == prompt
        assert encoded.labels[first_trained:] == encoded.input_ids[first_trained:]


def test_earlier_turns_are_given_exactly_as_they_were_trained(any_tokenizer):
    any_tokenizer.chat_template = CHATML
    turns = (
        Message("system", "Be short."),
        *asked("What is 2?", "Two").messages,
        Message("user", "And 3?"),
    )
    encoded = one(Conversation((*turns, Message("assistant", "Three"))), any_tokenizer)
    prompt = question_ids(any_tokenizer, turns)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.labels[len(prompt) :] == encoded.input_ids[len(prompt) :]
    assert encoded.labels[len(prompt) - 1] == -100


def test_the_last_trained_token_is_the_one_that_stops_generation(templated_tokenizer):
    encoded = one(asked("Why?", "Because."), templated_tokenizer)
    end = "<|end|>" if "<|end|>" in (templated_tokenizer.chat_template or "") else "</s>"
    assert encoded.labels[-1] == templated_tokenizer.convert_tokens_to_ids(end)
    assert encoded.labels[-1] in stop_ids(templated_tokenizer)
    assert templated_tokenizer.eos_token_id in stop_ids(templated_tokenizer)


def test_a_completion_is_trained_with_eos_and_its_prompt_is_not(any_tokenizer):
    example = Completion("The quick </s>", " brown fox")
    encoded = one(example, any_tokenizer)
    given = prompt_ids(any_tokenizer, example)
    assert encoded.input_ids[: len(given)] == given
    assert encoded.labels[: len(given)] == [-100] * len(given)
    assert any_tokenizer.decode(given, skip_special_tokens=True).strip() == "The quick </s>"
    assert any_tokenizer.decode(trained_ids(encoded)).strip() == "brown fox</s>"
    assert given[0] == any_tokenizer("The")["input_ids"][0]


def test_a_tokenizer_without_an_end_token_is_refused():
    with pytest.raises(SettingsError, match="no end token"):
        encode([Text("a")], PreTrainedTokenizerFast(tokenizer_object=bytes_bpe()), 64)
