"""Which models and runs the engine takes; for others it says why not."""

from typing import Any

import pytest
from support.small_models import CONFIGS
from transformers import AutoConfig

from trainer.engine.support import why_not, why_stock
from trainer.runtime.device import Device, Precision
from trainer.settings import Settings

GEMMA_2 = "gemma2 is Gemma2ForCausalLM, not one of its families"
HALF_ROPE = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
SCALED = {
    "rope_type": "default",
    "rope_theta": 1e4,
    "llama_4_scaling_beta": 0.1,
    "original_max_position_embeddings": 64,
}
NF4 = {
    "quant_method": "bitsandbytes",
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "llm_int8_skip_modules": ["lm_head"],
}


def test_it_trains_in_16_bits_on_a_gpu_and_in_32_on_a_cpu() -> None:
    config = AutoConfig.for_model("llama")
    gpu, cpu = Device("cuda", "Tesla T4", (7, 5), 2**34), Device("cpu", "CPU", None, 0)
    settings = Settings.read({}, {}, trains=False)

    def reason(precision: str, device: Device) -> str | None:
        return why_stock(settings, config, Precision(precision, "as set"), device)

    assert reason("fp16", gpu) is reason("bf16", gpu) is reason("fp32", cpu) is None
    assert reason("fp32", gpu) == "a GPU's attention kernels take 16 bits"


def test_it_can_be_switched_off() -> None:
    settings = Settings.read({}, {"QLORA_ENGINE": "stock"}, trains=False)
    cpu = Device("cpu", "CPU", None, 0)
    config = AutoConfig.for_model("llama")
    assert why_stock(settings, config, Precision("fp32", "CPU"), cpu) == "it was switched off"


@pytest.mark.parametrize("family", CONFIGS)
def test_it_takes_models_of_each_family(family: str) -> None:
    config = AutoConfig.for_model(family, **{"num_hidden_layers": 3} | CONFIGS[family])
    assert why_not(config) is None


@pytest.mark.parametrize(
    ("family", "given", "reason"),
    [
        (
            "gpt2",
            {},
            "gpt2 is GPT2LMHeadModel, not one of its families",
        ),
        ("llama", {"hidden_act": "gelu"}, "its activation is gelu, not silu"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
            "its position embedding is of type dynamic",
        ),
        ("gemma2", {"attn_logit_softcapping": 50.0}, GEMMA_2),
        ("ministral3", {"rope_parameters": SCALED}, "it scales attention beyond 64 tokens"),
        ("mistral", {"sliding_window": 64}, "it attends in a window of 64 tokens"),
        ("llama", {"attention_dropout": 0.1}, "it has a dropout of 0.1 of its own"),
        (
            "llama",
            {"quantization_config": NF4 | {"llm_int8_skip_modules": ["lm_head", "model.layers.1"]}},
            "some of its layers are stored in 16 bits",
        ),
        (
            "llama",
            {"quantization_config": NF4 | {"bnb_4bit_quant_type": "fp4"}},
            "its weights are not stored as NF4 with double quantisation",
        ),
    ],
)
def test_what_it_cannot_compute_is_said(family: str, given: dict[str, Any], reason: str) -> None:
    assert why_not(AutoConfig.for_model(family, **given), longest=65) == reason


@pytest.mark.parametrize(
    ("family", "given"),
    [
        ("internlm3", {}),  # of another name, and of Llama's class
        ("mistral", {"sliding_window": 65}),  # no block is as long
        ("llama", {"quantization_config": NF4}),
        ("phi3", {"pad_token_id": 0, "rope_parameters": HALF_ROPE}),
    ],
)
def test_what_is_the_same_mathematics_is_taken(family: str, given: dict[str, Any]) -> None:
    assert why_not(AutoConfig.for_model(family, **given), longest=65) is None
