"""One question at a time: its answer comes in pieces, and can be ended at any of them."""

import threading
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file
from support.small_adapters import TINY, edit, random_adapter, tiny_as
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trainer.corpus.examples import Message
from trainer.errors import DataError, SettingsError
from trainer.inference import chat_model
from trainer.inference.chat_model import CUT, ChatModel, load_chat_model
from trainer.settings import Settings

QUESTIONS = ["How heavy is the Curlew?", "What does the Plover cost?"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def model(run: Path) -> ChatModel:
    return load_chat_model(str(run), Settings.read({}, {}, trains=False), None)


def said(model: ChatModel, question: str, *, tuned: bool = True) -> str:
    return "".join(model.stream(question, tuned=tuned))


def test_an_answer_comes_in_pieces_and_can_be_ended(model: ChatModel) -> None:
    pieces = model.stream(QUESTIONS[1])
    first = next(pieces)
    pieces.close()
    assert said(model, QUESTIONS[1]).startswith(first)
    assert len(list(model.stream(QUESTIONS[1]))) > 1


def test_a_question_that_is_too_long_is_named(model: ChatModel) -> None:
    with pytest.raises(DataError, match="tokens, more than the model reads; shorten it"):
        said(model, "word " * 2000)


def test_a_conversation_that_is_too_long_is_named(model: ChatModel) -> None:
    turns = [("user", "word " * 2000), ("assistant", "So."), ("user", "Why?")]
    with pytest.raises(DataError, match=r"the conversation has .* /new begins another one"):
        list(model.stream([Message(*turn) for turn in turns]))


def test_an_answer_that_the_limit_cuts_ends_with_a_sign(
    model: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = said(model, QUESTIONS[1])
    assert not whole.endswith(CUT)
    monkeypatch.setattr(chat_model, "MAX_CHAT_ANSWER_TOKENS", 2)
    cut = said(model, QUESTIONS[1])
    assert cut.endswith(CUT) and whole.startswith(cut.removesuffix(CUT))


@pytest.mark.parametrize("changes", [{"intermediate_size": 96}, {"num_hidden_layers": 1}])
def test_a_base_of_other_layers_is_one_short_sentence(
    changes: dict[str, int], run: Path, tmp_path: Path
) -> None:
    base = tmp_path / "other"
    config = AutoConfig.from_pretrained(TINY, **changes)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(base)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(base)
    with pytest.raises(
        DataError, match=r"does not fit other \(.*was trained on builtin:tiny"
    ) as no:
        load_chat_model(str(run), Settings.read({}, {}, trains=False), str(base))
    assert len(str(no.value)) < 350


def test_an_answer_that_is_ended_from_elsewhere_ends_with_the_next_token(model: ChatModel) -> None:
    threads = threading.active_count()
    whole = said(model, QUESTIONS[1])
    ended = "".join(model.stream(QUESTIONS[1], is_ended=lambda: True))
    assert whole.startswith(ended) and len(ended) < len(whole)
    assert threading.active_count() == threads


def test_it_answers_on_the_16_bit_base_and_as_merged_too(run: Path, model: ChatModel) -> None:
    settings = Settings.read({}, {}, trains=False)
    own, merged = (load_chat_model(str(run), settings, None, form) for form in ("16bit", "merged"))
    assert not any(isinstance(module, Linear4bit) for module in own.model.modules())
    assert said(own, QUESTIONS[0], tuned=False) != ""
    assert said(merged, QUESTIONS[0]) == said(model, QUESTIONS[0])
    weight = own.model.get_base_model().model.layers[0].mlp.up_proj.base_layer.weight
    stored = load_file(TINY / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(weight, stored.to(weight.dtype))


def test_a_base_that_is_quantised_already_has_no_16_bit_form(run: Path, tmp_path: Path) -> None:
    base = tiny_as(tmp_path / "base", "bfloat16")
    edit(base / "config.json", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(SettingsError, match="no 16-bit base to judge by; leave --as out"):
        load_chat_model(str(run), Settings.read({}, {}, trains=False), str(base), "16bit")
