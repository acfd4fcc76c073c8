"""Decisions about the device, each with its reason; the arithmetic of Llama-2-7B."""

from pathlib import Path

import pytest
from support.devices import A10, CPU, LLAMA_2_7B, T4

from trainer.errors import SettingsError
from trainer.models.base_model import Base, check_settings, trainable_parameters
from trainer.runtime.device import Device, choose_precision
from trainer.settings import Settings


@pytest.mark.parametrize(
    ("setting", "device", "name", "reason"),
    [
        ("auto", T4, "fp16", "no bf16; loss scaling on"),
        ("auto", A10, "bf16", "sm_86 has bf16"),
        ("auto", CPU, "fp32", "CPU"),
        ("fp16", A10, "fp16", "as set"),
    ],
)
def test_precision_follows_the_capability(
    setting: str, device: Device, name: str, reason: str
) -> None:
    precision = choose_precision(setting, device)
    assert precision.name == name
    assert reason in precision.reason


@pytest.mark.parametrize(("setting", "device"), [("bf16", T4), ("fp16", CPU)])
def test_a_precision_that_the_device_lacks_is_refused(setting: str, device: Device) -> None:
    with pytest.raises(SettingsError, match=f"QLORA_PRECISION={setting}"):
        choose_precision(setting, device)


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
