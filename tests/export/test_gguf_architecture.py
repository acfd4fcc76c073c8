"""What llama.cpp calls a base's architecture, and the bases that it does not know."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.gguf_files import LLAMA_3, exported
from support.small_adapters import edit, tiny_as
from transformers import AutoConfig

from trainer.errors import SettingsError
from trainer.export.gguf_architecture import Architecture, architecture_of
from trainer.models.base_model import Base
from trainer.models.safetensors_files import StoredTensor


def of_family(name: str, folder: Path, **sizes: Any) -> Architecture:
    config = AutoConfig.for_model(
        name, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, **sizes
    )
    config.architectures = [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[name]]
    config.save_pretrained(folder)
    return architecture_of(Base(folder, name, "none"))


def test_tensors_have_llama_cpp_s_names_and_what_has_none_is_refused(tmp_path: Path) -> None:
    llama = of_family("llama", tmp_path)
    assert llama.tensor("model.layers.1.self_attn.q_proj.weight") == "blk.1.attn_q.weight"
    assert llama.tensor("model.embed_tokens.weight") == "token_embd.weight"
    with pytest.raises(SettingsError, match=r"llama: export cannot write its tensor model\.extra"):
        llama.tensor("model.extra.weight")


def test_query_and_key_of_a_llama_rotate_neighbours_instead_of_halves(tmp_path: Path) -> None:
    llama = of_family("llama", tmp_path / "llama")
    rows = torch.arange(64).unsqueeze(1)  # four heads of 16
    permuted = llama.arranged("model.layers.0.self_attn.q_proj.weight", rows).flatten()
    assert permuted[:6].tolist() == [0, 8, 1, 9, 2, 10]
    assert permuted[16:20].tolist() == [16, 24, 17, 25]
    assert llama.arranged("model.layers.0.self_attn.v_proj.weight", rows) is rows
    qwen = of_family("qwen2", tmp_path / "qwen2")
    assert qwen.arranged("model.layers.0.self_attn.q_proj.weight", rows) is rows


def test_llama_3_s_rotary_factors_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = AutoConfig.for_model(
        "llama", hidden_size=128, num_attention_heads=4, rope_parameters=LLAMA_3
    )
    config.architectures = ["LlamaForCausalLM"]
    base = Base(tmp_path, "llama-3", "none")
    base.__dict__["config"] = config
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = LLAMA_3["rope_theta"] ** -(torch.arange(0, 32, 2) / 32)
    factors = architecture_of(base).rope_factors()
    assert factors is not None
    assert len(set(factors.tolist())) > 2
    assert (factors.min(), factors.max()) == (1, 8)
    assert torch.allclose(plain / factors, expected)


def architecture(name: str, folder: Path, **changes: Any) -> Architecture:
    config = AutoConfig.for_model(name, **changes)
    config.architectures = [CLASSES[name]]
    base = Base(folder, name, "none")
    base.__dict__["config"] = config
    return architecture_of(base)


CLASSES = {
    "gemma3": "Gemma3ForConditionalGeneration",
    "gemma3_text": "Gemma3ForCausalLM",
    "mistral3": "Mistral3ForConditionalGeneration",
    "smollm3": "SmolLM3ForCausalLM",
    "granite": "GraniteForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmo3": "Olmo3ForCausalLM",
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 5e5,
    "factor": 8.0,
    "attention_factor": 1.5,
    "original_max_position_embeddings": 512,
}
SIZES = {"hidden_size": 64, "num_attention_heads": 4}


def test_of_a_vision_language_model_the_language_model_is_written(tmp_path: Path) -> None:
    gemma = architecture("gemma3", tmp_path, text_config=SIZES | {"query_pre_attn_scalar": 256})
    for prefix in ("language_model.model.", "model.language_model."):
        name = f"{prefix}layers.1.self_attn.q_norm.weight"
        assert gemma.tensor(name) == "blk.1.attn_q_norm.weight"
    assert gemma.tensor("language_model.lm_head.weight") == "output.weight"
    names = ["vision_tower.x", "model.vision_tower.x", "multi_modal_projector.y", "model.norm"]
    stored = [StoredTensor(tmp_path, name, "F32", (1,), 0, 4) for name in names]
    assert [tensor.name for tensor in gemma.of_text(stored)] == ["model.norm"]


def test_a_norm_of_gemma_has_its_one_in_the_file(tmp_path: Path) -> None:
    gemma = architecture("gemma3_text", tmp_path)
    weight = torch.tensor([0.25], dtype=torch.bfloat16)
    assert gemma.arranged("model.layers.0.input_layernorm.weight", weight).tolist() == [1.25]
    assert gemma.arranged("model.layers.0.mlp.up_proj.weight", weight) is weight


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("smollm3", {"num_hidden_layers": 3, "no_rope_layers": [1, 0, 1]}, "every fourth"),
        ("granite", SIZES | {"head_dim": 32}, "heads of 32 values"),
        ("phi3", {"pad_token_id": 0, "rope_parameters": {"rope_type": "default",
            "rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "a part of each head"),
        ("olmo2", {"tie_word_embeddings": True}, "head that is its embedding"),
        ("olmo3", {"rope_parameters": {"sliding_attention": YARN, "full_attention": YARN}},
            "of layers with a window and scaling of attention"),
        ("gemma3_text", {"query_pre_attn_scalar": 100}, "by the root of 100"),
        ("mistral3", {"text_config": {"model_type": "mistral"}}, "mistral;"),
    ],
)  # fmt: skip
def test_what_llama_cpp_has_in_its_code_otherwise_is_refused(
    name: str, changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=f"{name}: export cannot write its .*{sentence}"):
        architecture(name, tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["GPTNeoXForCausalLM"]}, "cannot write its GPTNeoXForCausalLM"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}},
            "cannot write its rotary embedding yarn",
        ),
    ],
)
def test_what_export_does_not_know_is_said(
    changes: dict[str, Any], sentence: str, run: Path, tmp_path: Path
) -> None:
    base = tiny_as(tmp_path / "base", "float16")
    edit(base / "config.json", **changes)
    with pytest.raises(SettingsError, match=f"{sentence}; use merge"):
        exported(tmp_path / "output", run, base)
    assert not list(tmp_path.glob("output*"))
