"""Decisions about the device, each with its reason; the arithmetic of Llama-2-7B."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from trainer.device import GIB, Device, choose_micro_batch, choose_precision, estimate_bytes
from trainer.errors import DoesNotFitError, SettingsError
from trainer.model import Base, Shape, check, trainable_parameters
from trainer.settings import Settings

T4 = Device("cuda", "Tesla T4", (7, 5), int(14.7 * GIB))
A10 = Device("cuda", "NVIDIA A10G", (8, 6), 22 * GIB)
CPU = Device("cpu", "CPU", None, 0)
LLAMA_2_7B = Shape(
    layers=32,
    hidden=4096,
    intermediate=11008,
    vocabulary=32000,
    linear_parameters=6_476_005_376,
    other_parameters=262_410_240,
)


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


@pytest.mark.parametrize(("blocks", "measured_gib"), [(1, 4.01), (4, 4.95), (16, 8.74)])
def test_the_memory_estimate_is_near_what_a_gpu_measured(blocks: int, measured_gib: float) -> None:
    """Measured on one GPU: fp16, every layer recomputed, r=8 on q and v, 512 tokens."""
    estimate = estimate_bytes(LLAMA_2_7B, trainable=4_194_304, blocks=blocks, block_tokens=512)
    assert estimate / GIB == pytest.approx(measured_gib, rel=0.08)


def test_the_default_settings_fit_a_t4() -> None:
    chosen = choose_micro_batch(T4, LLAMA_2_7B, trainable=4_194_304, effective=16, block_tokens=512)
    assert chosen.blocks == 16
    assert "GiB" in chosen.reason


def test_a_model_that_does_not_fit_is_refused_with_the_size_it_needs() -> None:
    small = Device("cuda", "small", (7, 5), 3 * GIB)
    with pytest.raises(DoesNotFitError, match=r"3\.0 GiB free.*needs about \d\.\d GiB"):
        choose_micro_batch(small, LLAMA_2_7B, trainable=4_194_304, effective=16, block_tokens=512)


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
        check(llama_2_7b(tmp_path), settings)
    for words in ("at most 4096", "query", "down_proj", "q_proj"):
        assert words in str(caught.value)


def test_the_optimizer_step_is_always_whole_micro_batches() -> None:
    for effective in (1, 3, 5, 7, 12, 16):
        chosen = choose_micro_batch(
            CPU, SimpleNamespace(), trainable=1, effective=effective, block_tokens=64
        )
        assert effective % chosen.blocks == 0
