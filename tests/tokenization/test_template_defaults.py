"""A published template asks as the run did, whatever loads it."""

import pytest
from support.chat_templates import NAMES, template, with_template
from support.records import CHATML, THINK

from trainer.corpus.examples import Message, Unusable
from trainer.errors import DataError
from trainer.tokenization.record_tokenizer import (
    answer_of,
    give_system_prompt,
    question_ids,
    settle_answers,
    thought_end,
    tokenizer_of_records,
)
from trainer.tokenization.template_defaults import thinks_by_default, with_thinking

SYSTEM = 'You are "the porter".\nSay {{ nothing }}, or \\n "" %} 😀'
ASKED = [{"role": "user", "content": "When is tea?"}]


def asked(tokenizer) -> str:
    return tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, tokenize=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("thinks", [False, True])
def test_transformers_asks_with_the_published_template_as_the_run_did(name, thinks):
    tokenizer = with_template(template(name))
    settle_answers(tokenizer, thinks=thinks)
    try:
        own = tokenizer.decode(question_ids(tokenizer, "When is tea?"))
        found = asked(tokenizer)
    except (DataError, Unusable):
        pytest.fail(f"{name} cannot be asked")
    except Exception:
        assert tokenizer_of_records(tokenizer).template.style.content_is_parts
        return
    if tokenizer_of_records(tokenizer).template.style.content_is_parts:
        return  # the question is given in parts, which `asked` does not do
    # that template writes the day, which is fixed while training
    day = [line for line in found.splitlines() if "date" in line.casefold()]
    assert own == found or day


@pytest.mark.parametrize("name", ["qwen3", "gemma", "deepseekv3"])
def test_a_question_without_a_system_turn_gets_the_prompt_that_was_given(name):
    tokenizer = with_template(template(name))
    give_system_prompt(tokenizer, SYSTEM)
    settle_answers(tokenizer, thinks=False)
    assert asked(tokenizer).count(SYSTEM) == 1
    assert tokenizer.decode(question_ids(tokenizer, "When is tea?")) == asked(tokenizer)
    own = (Message("system", "Be brief."), Message("user", "When is tea?"))
    text = tokenizer.decode(question_ids(tokenizer, own))
    assert "Be brief." in text and SYSTEM not in text


def test_what_was_settled_last_counts():
    settled = with_thinking(with_thinking(CHATML, True), False)
    assert not thinks_by_default(settled) and settled.count("enable_thinking is not") == 1


def test_a_caller_may_still_choose_to_think():
    tokenizer = with_template(template("qwen3"))
    settle_answers(tokenizer, thinks=False)
    assert asked(tokenizer).endswith("</think>\n\n")
    thinking = tokenizer.apply_chat_template(
        ASKED, add_generation_prompt=True, tokenize=False, enable_thinking=True
    )
    assert thinking.endswith("assistant\n")


def test_a_template_that_opens_answers_otherwise_than_it_words_them_is_mended():
    tokenizer = with_template(THINK)
    settle_answers(tokenizer, thinks=False)
    assert asked(tokenizer).endswith("<|assistant|>\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("name", ["qwen3", "gptoss", "gemma4_v5", "glm4moe"])
def test_the_thought_is_taken_off_an_answer(name):
    tokenizer = with_template(template(name))
    settle_answers(tokenizer, thinks=True)
    records = tokenizer_of_records(tokenizer)
    template_of = records.template
    turns = (Message("user", "Tea?"), Message("assistant", "At four.", thought="Hm, tea."))
    from trainer.corpus.examples import Conversation

    (whole,) = records.encode([Conversation(turns)])[0].sequences
    generated = [token for token in whole.labels if token >= 0]
    assert template_of.thinks
    assert answer_of(tokenizer, generated) == "At four."
    assert answer_of(tokenizer, generated[:4]) == ""
    if name in ("qwen3", "gptoss"):
        assert thought_end(tokenizer) in ("</think>", "assistantfinal")


def test_an_answer_without_a_thought_is_left_as_it_is():
    tokenizer = with_template(template("qwen3"))
    settle_answers(tokenizer, thinks=False)
    assert answer_of(tokenizer, tokenizer("At four.").input_ids) == "At four."
    assert thought_end(tokenizer) == ""
