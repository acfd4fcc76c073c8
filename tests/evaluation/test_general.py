"""General language and general questions: read by any tokenizer, beside the data and not of it."""

import json
from typing import Any

import pytest
import torch
from support.loaded import built_in_model

from trainer.evaluation.compare import compare
from trainer.evaluation.general import SOURCE, general_blocks
from trainer.tokenization.record_tokenizer import question_ids


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return built_in_model(tmp_path_factory.mktemp("scratch"))


def test_of_text_every_token_counts_and_of_questions_the_answers(model: tuple[Any, Any]) -> None:
    _, tokenizer = model
    general = general_blocks(tokenizer)
    text, answers = (
        tokenizer.decode([n for b in blocks for n in b.labels[b.labels != -100].tolist()])
        for blocks in (general.text, general.answers)
    )
    found = json.loads(SOURCE.read_text())
    assert all(words in text for words in found["texts"])
    for pair in found["questions"]:
        assert pair["answer"] in answers
        assert pair["question"] not in answers


def test_the_loss_on_answers_is_that_of_transformers_alone(model: tuple[Any, Any]) -> None:
    from peft import LoraConfig, get_peft_model

    loaded, tokenizer = model
    total = tokens = 0.0
    for pair in json.loads(SOURCE.read_text())["questions"]:
        given = question_ids(tokenizer, pair["question"])
        answer = tokenizer(pair["answer"], add_special_tokens=False).input_ids
        ids = torch.tensor([[*given, *answer, tokenizer.eos_token_id]])
        labels = ids.clone()
        labels[:, : len(given)] = -100
        with torch.no_grad():
            total += float(loaded(input_ids=ids, labels=labels).loss) * (len(answer) + 1)
        tokens += len(answer) + 1
    tuned: Any = get_peft_model(loaded, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1)
    found = compare(tuned, tokenizer, [], [])
    assert found.base.general_answers == pytest.approx(total / tokens, rel=1e-4)
    assert found.tuned.general_answers != pytest.approx(total / tokens, rel=1e-2)
