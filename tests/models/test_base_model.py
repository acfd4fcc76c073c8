"""What a base's config says: its shape, what is trained on it, and what settings it refuses."""

from pathlib import Path
from typing import Any

import pytest
from support.devices import LLAMA_2_7B
from support.small_adapters import edit
from support.tokenizers import make_tokenizer

from trainer.errors import SettingsError
from trainer.models.base_model import Base, check_settings, trainable_parameters
from trainer.settings import Settings


def llama_2_7b(tmp_path: Path) -> Base:
    from transformers import LlamaConfig

    LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=4096,
        architectures=["LlamaForCausalLM"],
        tie_word_embeddings=False,
    ).save_pretrained(tmp_path)
    return Base(tmp_path, "llama", "main")


@pytest.mark.parametrize(
    ("modules", "parameters"),
    [("q_proj,v_proj", 4_194_304), ("q_proj,k_proj,v_proj", 6_291_456), ("all-linear", 19_988_480)],
)
def test_trainable_parameters_of_llama_2_7b(modules: str, parameters: int, tmp_path: Path) -> None:
    settings = Settings.read({}, {"QLORA_TARGET_MODULES": modules}, trains=False)
    assert trainable_parameters(llama_2_7b(tmp_path), settings) == parameters


def test_the_shape_of_llama_2_7b(tmp_path: Path) -> None:
    assert llama_2_7b(tmp_path).shape() == LLAMA_2_7B


def test_every_fault_that_the_model_shows_is_named_at_once(tmp_path: Path) -> None:
    settings = Settings.read(
        {}, {"QLORA_TARGET_MODULES": "query", "QLORA_MAX_LENGTH": "8192"}, trains=False
    )
    with pytest.raises(SettingsError) as caught:
        check_settings(llama_2_7b(tmp_path), settings)
    for words in ("at most 4096", "query", "down_proj", "q_proj"):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"bnb_4bit_compute_dtype": "os.system"}, "no attribute 'os.system'"),
        ({"bnb_4bit_quant_type": ["nf4"]}, "bnb_4bit_quant_type must be a string"),
        ({"load_in_8bit": True}, "load_in_4bit and load_in_8bit are both True"),
        ({"llm_int8_threshold": "x"}, "llm_int8_threshold must be a float"),
        ({"quant_method": None, "load_in_4bit": False}, "quant"),
    ],
)
def test_figures_that_bitsandbytes_does_not_take_are_refused_early(
    change: dict[str, Any], fact: str, tmp_path: Path
) -> None:
    base = llama_2_7b(tmp_path)
    sound = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    edit(tmp_path / "config.json", quantization_config=sound)
    assert Base(tmp_path, "llama", "main").is_quantised
    edit(tmp_path / "config.json", quantization_config=sound | change)
    with pytest.raises(SettingsError, match=rf"config\.json describes no model .*{fact}"):
        _ = base.config


def test_a_base_without_linear_layers_is_refused_before_anything_is_counted(tmp_path: Path) -> None:
    """GPT-2's layers are of another class, which bitsandbytes leaves as they are."""
    from transformers import GPT2Config

    GPT2Config(n_layer=1, n_embd=32, n_head=2, architectures=["GPT2LMHeadModel"]).save_pretrained(
        tmp_path
    )
    for modules in ("q_proj", "all-linear"):
        settings = Settings.read({}, {"QLORA_TARGET_MODULES": modules}, trains=False)
        with pytest.raises(SettingsError, match=r"has no linear layers .* of another family"):
            check_settings(Base(tmp_path, "gpt2", "main"), settings)


def test_modules_that_a_recipe_named_are_not_said_to_be_the_users(tmp_path: Path) -> None:
    from transformers import PhiConfig

    PhiConfig(
        num_hidden_layers=1, hidden_size=32, num_attention_heads=2, architectures=["PhiForCausalLM"]
    ).save_pretrained(tmp_path)
    settings = Settings.read({}, {"QLORA_RECIPE": "facts"}, trains=False)
    with pytest.raises(
        SettingsError, match=r"gate_proj,up_proj,down_proj .of QLORA_RECIPE=facts.:"
    ):
        check_settings(Base(tmp_path, "phi", "main"), settings)


def configured(folder: Path, config: str) -> Base:
    (folder / "config.json").write_text(config)
    return Base(folder, "mine", "main")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ('{"auto_map": {"AutoConfig": "code.py"}}', "mine: needs code of its own, which is never"),
        ('{"model_type": "telepath"}', "mine: 'telepath' is no model that transformers knows"),
        ("{}", "mine: 'a model of no type' is no model that transformers knows"),
    ],
)
def test_a_config_that_transformers_does_not_know_is_named(
    config: str, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=f"{sentence}.*choose another QLORA_BASE_MODEL"):
        _ = configured(tmp_path, config).config


def test_weights_that_are_quantised_already_are_refused_but_bitsandbytes_s(tmp_path: Path) -> None:
    settings = Settings.read({}, {}, trains=False)
    base = llama_2_7b(tmp_path)
    assert not base.is_quantised
    base.config.quantization_config = {"quant_method": "gptq"}
    assert base.is_quantised
    with pytest.raises(SettingsError, match="quantised already, with gptq; name the 16-bit model"):
        check_settings(base, settings)
    base.config.quantization_config = {"quant_method": "bitsandbytes"}
    check_settings(base, settings)


def test_layers_that_can_carry_an_adapter_are_all_linear_ones_but_the_head(tmp_path: Path) -> None:
    layers = llama_2_7b(tmp_path).linear_layers
    assert len(layers) == 32 * 7
    assert layers["model.layers.31.mlp.down_proj"] == (11008, 4096)
    assert "lm_head" not in layers


def test_the_tokenizer_has_a_pad_token_even_where_the_base_s_has_none(tmp_path: Path) -> None:
    tokenizer = make_tokenizer("bytes")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    made = Base(tmp_path, "mine", "main").tokenizer()
    assert made.pad_token_id is not None
    assert made.pad_token == (made.unk_token or made.eos_token)


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    tokenizer = make_tokenizer("bytes")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match="mine: its tokenizer has no end token"):
        Base(tmp_path, "mine", "main").tokenizer()
