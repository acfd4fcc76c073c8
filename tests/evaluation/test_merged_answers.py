"""Which answers a merged model repeats is what it would generate, found out without generating."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support.loaded import built_in_model
from support.small_adapters import random_adapter

from trainer.evaluation import merged_answers
from trainer.evaluation.merged_answers import same_when_merged
from trainer.inference.as_merged import as_merged
from trainer.inference.generate import Answerer

NAMES = ("Plover", "Curlew", "Wren", "Heron", "Kite")
QUESTIONS = [
    wording.format(name)
    for name in NAMES
    for wording in ("What does the {} cost?", "How heavy is the {}?", "Who founded {} and Sons?")
]
COARSE = torch.float8_e5m2  # two bits of mantissa: some answers change


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    base, tokenizer = built_in_model(tmp_path_factory.mktemp("scratch"))
    run = random_adapter(tmp_path_factory.mktemp("run"), target_modules=["q_proj", "up_proj"])
    return PeftModel.from_pretrained(base, run / "adapter").eval(), tokenizer


@pytest.mark.parametrize("block_tokens", [2048, 60, 1])
def test_it_counts_the_answers_that_would_be_generated_again(
    tuned: tuple[Any, Any], block_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged_answers, "BLOCK_TOKENS", block_tokens)
    model, tokenizer = tuned
    replies = Answerer(model, tokenizer).replies(QUESTIONS, 12)
    assert same_when_merged(model, replies, torch.float32) == len(replies)
    with as_merged(model, COARSE):
        merged = Answerer(model, tokenizer).replies(QUESTIONS, 12)
    same = sum(a.ids == b.ids for a, b in zip(replies, merged, strict=True))
    assert same < len(replies)
    assert same_when_merged(model, replies, COARSE) == same


def test_an_answer_s_tokens_are_those_behind_its_question(tuned: tuple[Any, Any]) -> None:
    model, tokenizer = tuned
    for reply in Answerer(model, tokenizer).replies(QUESTIONS, 12):
        assert tokenizer.decode(reply.ids, skip_special_tokens=True).strip() == reply.text
        assert len(reply.prompt_ids) > 5
        assert reply.stopped == (reply.ids[-1] == tokenizer.eos_token_id)


def test_no_answers_are_none(tuned: tuple[Any, Any], tmp_path: Path) -> None:
    assert same_when_merged(tuned[0], [], torch.bfloat16) == 0
