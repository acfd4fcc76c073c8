"""One question at a time: its answer comes in pieces, and can be ended at any of them."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file
from support.small_adapters import TINY, edit, random_adapter, tiny_as
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from trainer.corpus.examples import Message
from trainer.dataset.domain import DOMAIN, Domain, Vocabulary
from trainer.errors import DataError, SettingsError
from trainer.inference.chat_model import (
    CUT,
    ChatModel,
    Manner,
    load_chat_model,
    load_chat_models,
)
from trainer.settings import Settings

QUANTISED = {"quant_method": "bitsandbytes", "load_in_4bit": True}

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


def test_an_answer_that_the_limit_cuts_ends_with_a_sign(model: ChatModel) -> None:
    whole = said(model, QUESTIONS[1])
    assert not whole.endswith(CUT)
    cut = "".join(model.stream(QUESTIONS[1], Manner(most=2)))
    assert cut.endswith(CUT) and whole.startswith(cut.removesuffix(CUT))


def test_one_that_is_drawn_is_another_each_time(model: ChatModel) -> None:
    """By transformers as by our own loop; two of five draws may be alike."""
    hot = Manner(temperature=2.0)
    for engine in (True, False):
        loud = replace(model, engine=engine)
        torch.manual_seed(0)
        assert len({"".join(loud.stream(QUESTIONS[1], hot)) for _ in range(5)}) > 2


def test_what_its_documents_do_not_speak_of_is_refused_and_the_base_is_asked_as_ever(
    model: ChatModel, run: Path
) -> None:
    told = Vocabulary()
    told.add("The Curlew weighs 3 kg.")
    folder = run / "adapter" if (run / "adapter").is_dir() else run
    (folder / DOMAIN).write_text(Domain(told, "It is not in the manual.").as_json())
    try:
        found = load_chat_model(str(run), Settings.read({}, {}, trains=False), None)
        never = Settings.read({}, {"QLORA_REFUSAL": "never"}, trains=False)
        assert load_chat_model(str(run), never, None).domain is None
    finally:
        (folder / DOMAIN).unlink()
    assert said(found, QUESTIONS[1]) == "It is not in the manual."
    assert said(found, QUESTIONS[0]) == said(model, QUESTIONS[0])
    assert said(found, QUESTIONS[1], tuned=False) == said(model, QUESTIONS[1], tuned=False)
    answer = found.answer(QUESTIONS[1], Manner(most=2))
    assert "It is not in the manual.".startswith("".join(answer.pieces())) and answer.was_cut
    assert answer.answer_tokens == 2


def test_adapters_on_one_base_answer_by_name_as_alone(
    run: Path, model: ChatModel, tmp_path: Path
) -> None:
    """With modules of their own, in our loop and in transformers'."""
    torch.manual_seed(1)
    other = random_adapter(tmp_path / "other", r=4, target_modules=["o_proj", "down_proj"])
    settings = Settings.read({}, {}, trains=False)
    alone = {"one": model, "two": load_chat_model(str(other), settings, None)}
    for engine in ("auto", "stock"):
        by_engine = Settings.read({}, {"QLORA_ENGINE": engine}, trains=False)
        models = load_chat_models({"one": str(run), "two": str(other)}, by_engine, None)
        for name in ("two", "one", "two"):
            assert said(models[name], QUESTIONS[1]) == said(alone[name], QUESTIONS[1])
            base = said(models[name], QUESTIONS[1], tuned=False)
            assert base == said(model, QUESTIONS[1], tuned=False)
        models["one"].together.finish()  # type: ignore[union-attr]
    assert said(alone["one"], QUESTIONS[1]) != said(alone["two"], QUESTIONS[1])


def test_adapters_of_two_bases_are_not_served_together(run: Path, tmp_path: Path) -> None:
    base = tiny_as(tmp_path / "base", "float32")
    other = random_adapter(tmp_path / "other", base)
    settings = Settings.read({}, {}, trains=False)
    edit(other / "adapter/adapter_config.json", base_model_name_or_path=str(base), revision=None)
    with pytest.raises(
        SettingsError, match=r"two was trained on .*, one on builtin:tiny; adapters"
    ):
        load_chat_models({"one": str(run), "two": str(other)}, settings, None)


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
    edit(base / "config.json", quantization_config=QUANTISED)
    with pytest.raises(SettingsError, match="no 16-bit base to judge by; leave --as out"):
        load_chat_model(str(run), Settings.read({}, {}, trains=False), str(base), "16bit")
