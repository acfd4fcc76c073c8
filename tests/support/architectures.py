"""Small random checkpoints of the architectures that people fine-tune, as their classes save them.

`CASES` has one for each: the model type and what of its config differs from `TEXT`. Inputs of linear
layers are multiples of 64: bitsandbytes takes other scales for them on a CPU.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TEXT: dict[str, Any] = {
    "vocab_size": 3072,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}

VISION: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}


@dataclass(frozen=True)
class Case:
    """One architecture: its model type, its config, and what the job does with it."""

    kind: str
    config: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] | None = None
    """of a vision-language model: its language model's config"""
    vision: dict[str, Any] | None = None
    stored: dict[str, Any] | None = None
    """how bitsandbytes has quantised it already, beside NF4"""
    refused: str = ""
    """a piece of the sentence that turns it down; empty where it has to train"""
    no_qv: bool = False
    """it has no q_proj and v_proj: the default is refused and names its layers"""
    merge: bool = True
    """whether merge writes it; False where it is refused in a sentence"""


def _moe(**more: Any) -> dict[str, Any]:
    return {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64} | more


LINEAR = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 32,
}
MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 32,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_chunk_size": 32,
}
MLA = {
    "q_lora_rank": 64,
    "kv_lora_rank": 64,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 32,
    "num_key_value_heads": 4,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
LONGROPE = {
    "rope_type": "longrope",
    "factor": 2.0,
    "original_max_position_embeddings": 256,
    "short_factor": [1.0] * 16,
    "long_factor": [1.5] * 16,
}


def _rope(**values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_theta": 10000.0, **values}}


CASES: dict[str, Case] = {
    "llama": Case("llama"),
    "llama-tied": Case("llama", {"tie_word_embeddings": True}),
    "llama-mha": Case("llama", {"num_key_value_heads": 4}),
    "llama-head-dim": Case("llama", {"head_dim": 64}),
    "llama-attention-bias": Case("llama", {"attention_bias": True}),
    "llama-mlp-bias": Case("llama", {"mlp_bias": True}),
    "llama-llama3-rope": Case("llama", _rope(**LLAMA3)),
    "llama-yarn": Case("llama", _rope(**YARN)),
    "llama-linear-rope": Case("llama", _rope(rope_type="linear", factor=2.0)),
    "llama-dynamic-rope": Case("llama", _rope(rope_type="dynamic", factor=2.0)),
    "llama-longrope": Case("llama", _rope(**LONGROPE)),
    "llama-gelu": Case("llama", {"hidden_act": "gelu"}),
    "llama-bnb4": Case("llama", stored={}, merge=False),
    "llama-bnb4-dynamic": Case("llama", merge=False,
        stored={"llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp"]}),
    "llama-fp8": Case("llama", {"quantization_config": {"quant_method": "fp8"}},
        refused="quantised already, with fp8"),
    "mistral": Case("mistral", {"sliding_window": None}),
    "mistral-window": Case("mistral", {"sliding_window": 16}),
    "mistral-long-window": Case("mistral", {"sliding_window": 4096}),
    "ministral": Case("ministral", {"head_dim": 32}),
    "ministral3": Case("ministral3", {"head_dim": 32}),
    "mixtral": Case("mixtral", {"num_local_experts": 4}),
    "qwen2": Case("qwen2"),
    "qwen2-window": Case(
        "qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}
    ),
    "qwen3": Case("qwen3", {"head_dim": 32}),
    "qwen3-tied": Case("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen2_moe": Case("qwen2_moe", _moe(shared_expert_intermediate_size=64)),
    "qwen3_moe": Case("qwen3_moe", _moe(head_dim=32)),
    "olmoe": Case("olmoe", _moe()),
    "mellum": Case("mellum", _moe(head_dim=32)),
    "ernie4_5_moe": Case(
        "ernie4_5_moe", {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 64}
    ),
    "minimax_m2": Case("minimax_m2", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32}),
    "qwen3_5_text": Case("qwen3_5_text", LINEAR),
    "qwen3_5": Case(
        "qwen3_5", text=LINEAR, vision={"depth": 2, "num_heads": 4, "out_hidden_size": 128}
    ),
    "qwen3_5_moe_text": Case(
        "qwen3_5_moe_text", LINEAR | _moe(shared_expert_intermediate_size=64)
    ),
    "qwen3_5_moe": Case(
        "qwen3_5_moe",
        text=LINEAR | _moe(shared_expert_intermediate_size=64),
        vision={"depth": 2, "num_heads": 4, "out_hidden_size": 128},
    ),
    "qwen3_next": Case(
        "qwen3_next", LINEAR | _moe(shared_expert_intermediate_size=64, decoder_sparse_step=1)
    ),
    "qwen2_vl": Case(
        "qwen2_vl",
        text=_rope(rope_type="default", mrope_section=[4, 6, 6]),
        vision={"depth": 2, "embed_dim": 64, "hidden_size": 128, "num_heads": 4},
    ),
    "qwen2_5_vl": Case(
        "qwen2_5_vl",
        text=_rope(rope_type="default", mrope_section=[4, 6, 6]),
        vision={"depth": 2, "out_hidden_size": 128, "num_heads": 4},
    ),
    "qwen3_vl": Case(
        "qwen3_vl",
        text={"head_dim": 32, **_rope(rope_type="default", mrope_section=[6, 5, 5])},
        vision={
            "depth": 2, "out_hidden_size": 128, "num_heads": 4, "deepstack_visual_indexes": [0],
        },
    ),
    "llava": Case("llava", text={"model_type": "llama"}, vision={"model_type": "clip_vision_model"}),
    "mistral3": Case("mistral3", text={"model_type": "mistral", "head_dim": 32, "sliding_window": None},
        vision={"model_type": "pixtral", "head_dim": 16}),
    "ministral3-vl": Case("mistral3", text={"model_type": "ministral3", "head_dim": 32},
        vision={"model_type": "pixtral", "head_dim": 16}),
    "mistral4": Case("mistral4", MLA | {"n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}, no_qv=True),
    "gemma": Case("gemma", {"head_dim": 32}),
    "gemma2": Case("gemma2", {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32}),
    "gemma3_text": Case(
        "gemma3_text",
        {"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32,
         "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "gemma3_text-long-window": Case("gemma3_text", {"head_dim": 32, "query_pre_attn_scalar": 32}),
    "gemma3": Case(
        "gemma3",
        {"mm_tokens_per_image": 4},
        text={"head_dim": 32, "sliding_window": 16, "query_pre_attn_scalar": 32,
              "layer_types": ["sliding_attention", "full_attention"]},
        vision={"model_type": "siglip_vision_model", "vision_use_head": False},
    ),
    "gemma3n": Case("gemma3n_text", {"head_dim": 32, "num_kv_shared_layers": 0, "laurel_rank": 8,
        "hidden_size_per_layer_input": 64, "vocab_size_per_layer_input": 3072,
        "activation_sparsity_pattern": [0.0, 0.0],
        "layer_types": ["sliding_attention", "full_attention"]}, refused="AltUp"),
    "gemma4_text": Case("gemma4_text", {"head_dim": 32, "global_head_dim": 64,
        "sliding_window": 16, "hidden_size_per_layer_input": 64, "vocab_size_per_layer_input": 3072,
        "num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"]}),
    "gemma4": Case("gemma4", text={"head_dim": 32, "global_head_dim": 64,
        "sliding_window": 16, "hidden_size_per_layer_input": 64, "vocab_size_per_layer_input": 3072,
        "num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"]},
        vision={"head_dim": 16, "num_key_value_heads": 4}),
    "phi": Case("phi"),
    "phi3": Case("phi3", no_qv=True),
    "phi3-longrope": Case("phi3", {"original_max_position_embeddings": 256, **_rope(**LONGROPE)}, no_qv=True),
    "phi3-partial": Case("phi3", {"partial_rotary_factor": 0.5,
        **_rope(rope_type="default", partial_rotary_factor=0.5)}, no_qv=True),
    "phimoe": Case("phimoe", {"num_local_experts": 4, "router_jitter_noise": 0.0}),
    "gpt_oss": Case("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32,
        "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}),
    "gpt2": Case("gpt2", refused="no linear layers"),
    "gpt_neox": Case("gpt_neox", no_qv=True),
    "persimmon": Case("persimmon", no_qv=True),
    "codegen": Case("codegen", {"rotary_dim": 16}, no_qv=True),
    "gpt_bigcode": Case("gpt_bigcode", {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
        no_qv=True),
    "gptj": Case("gptj", {"rotary_dim": 16}),
    "gpt_neo": Case("gpt_neo", {"attention_types": [[["global", "local"], 1]], "num_layers": 2,
        "window_size": 16}),
    "opt": Case("opt", {"ffn_dim": 256, "word_embed_proj_dim": 128, "dropout": 0.0}),
    "xglm": Case("xglm", {"d_model": 128, "ffn_dim": 256, "num_layers": 2, "attention_heads": 4,
        "dropout": 0.0, "attention_dropout": 0.0}),
    "biogpt": Case("biogpt", {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}),
    "bloom": Case("bloom", {"n_layer": 2, "n_head": 4}, no_qv=True),
    "mpt": Case("mpt", {"d_model": 128, "n_heads": 4, "n_layers": 2, "max_seq_len": 512,
        "expansion_ratio": 2}, no_qv=True),
    "falcon": Case("falcon", {"multi_query": True, "new_decoder_architecture": False}, refused="no linear layers"),
    "falcon-new": Case("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, refused="no linear layers"),
    "stablelm": Case("stablelm"),
    "starcoder2": Case("starcoder2", {"residual_dropout": 0.0, "embedding_dropout": 0.0,
        "attention_dropout": 0.0}),
    "olmo": Case("olmo"),
    "olmo2": Case("olmo2"),
    "olmo3": Case("olmo3", {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}),
    "olmo3-long-window": Case("olmo3"),
    "granite": Case("granite", {"embedding_multiplier": 6.0, "residual_multiplier": 0.5,
        "attention_multiplier": 0.1, "logits_scaling": 4.0}),
    "granitemoe": Case("granitemoe", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "granitemoehybrid": Case("granitemoehybrid", MAMBA | {"num_local_experts": 4,
        "num_experts_per_tok": 2, "shared_intermediate_size": 64,
        "layer_types": ["mamba", "attention"]}),
    "granitemoehybrid-dense": Case("granitemoehybrid", MAMBA | {"num_local_experts": 0,
        "num_experts_per_tok": 0, "shared_intermediate_size": 256,
        "layer_types": ["attention", "attention"]}),
    "helium": Case("helium", {"head_dim": 32}),
    "arcee": Case("arcee"),
    "apertus": Case("apertus"),
    "nemotron": Case("nemotron"),
    "cohere": Case("cohere"),
    "cohere2": Case("cohere2", {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}),
    "glm": Case("glm", {"head_dim": 32}),
    "glm4": Case("glm4", {"head_dim": 32}),
    "exaone4": Case("exaone4", {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}),
    "smollm3": Case("smollm3", {"num_hidden_layers": 4}),
    "seed_oss": Case("seed_oss", {"head_dim": 32, "attention_dropout": 0.0, "residual_dropout": 0.0}),
    "ernie4_5": Case("ernie4_5", {"head_dim": 32}),
    "hunyuan_v1_dense": Case("hunyuan_v1_dense", {"head_dim": 32}),
    "cwm": Case("cwm", {"head_dim": 32, "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"], **_rope(**LLAMA3)}),
    "internlm3": Case("internlm3", {"head_dim": 32}),
    "iquestcoder": Case("iquestcoder", {"head_dim": 32}),
    "minicpm3": Case("minicpm3", MLA, no_qv=True),
    "youtu": Case("youtu", MLA, no_qv=True),
    "deepseek_v2": Case("deepseek_v2", MLA | {"n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1, "topk_method": "greedy"}, no_qv=True),
    "deepseek_v3": Case("deepseek_v3", MLA | {"n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1}, no_qv=True),
    "glm4_moe": Case("glm4_moe", {"head_dim": 32, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1}),
    "hunyuan_v1_moe": Case("hunyuan_v1_moe", {"head_dim": 32, "num_experts": 4, "moe_topk": [2, 2]}),
    "hy_v3": Case("hy_v3", _moe(head_dim=32, num_shared_experts=1, first_k_dense_replace=1)),
    "lfm2": Case("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "lfm2_moe": Case("lfm2_moe", _moe(layer_types=["conv", "full_attention"], num_dense_layers=1)),
    "lfm3": Case("lfm3", {"layer_types": ["conv", "full_attention"]}),
    "kimi_linear": Case("kimi_linear", MLA | {"num_local_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 64, "linear_head_dim": 64, "linear_num_heads": 4,
        "layer_types": ["linear_attention", "full_attention"]}),
    "bamba": Case("bamba", MAMBA | {"attn_layer_indices": [1]}),
    "olmo_hybrid": Case("olmo_hybrid", LINEAR),
    "recurrent_gemma": Case("recurrent_gemma", {"num_hidden_layers": 3, "lru_width": 128,
        "attention_window_size": 64, "head_dim": 32}, refused="caps its logits"),
    "falcon_h1": Case("falcon_h1", MAMBA | {"mamba_d_ssm": 256, "head_dim": 32}),
    "nemotron_h": Case("nemotron_h", {"layers_block_type": ["mamba", "attention", "mlp"],
        "mamba_num_heads": 8, "mamba_head_dim": 32, "ssm_state_size": 16, "n_groups": 1,
        "head_dim": 32, "chunk_size": 32}),
    "jamba": Case("jamba", {"num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "expert_layer_offset": 1, "mamba_d_state": 16, "mamba_dt_rank": 64,
        "use_mamba_kernels": False}),
    "minimax": Case("minimax", {"num_local_experts": 4, "head_dim": 32, "block_size": 16,
        "layer_types": ["linear_attention", "full_attention"]}),
    "mamba": Case("mamba", {"state_size": 16}, refused="Mamba"),
    "mamba2": Case("mamba2", {"num_heads": 8, "head_dim": 32, "state_size": 16, "n_groups": 1}, refused="Mamba"),
    "falcon_mamba": Case("falcon_mamba", {"state_size": 16}, refused="Mamba"),
    "rwkv": Case("rwkv", {"attention_hidden_size": 128, "context_length": 512}, refused="RWKV"),
    "llama4_text": Case("llama4_text", {"head_dim": 32, "num_local_experts": 4,
        "intermediate_size_mlp": 256, "attention_chunk_size": 128}, refused="llama4"),
    "llama4": Case("llama4", text={"head_dim": 32, "num_local_experts": 4,
        "intermediate_size_mlp": 256, "attention_chunk_size": 128},
        vision={"vision_output_dim": 64, "projector_input_dim": 64, "projector_output_dim": 64},
        refused="llama4"),
    "mllama": Case("mllama", text={"cross_attention_layers": [1],
        **_rope(rope_type="default")}, vision={"attention_heads": 4, "num_global_layers": 1,
        "vision_output_dim": 192, "intermediate_layers_indices": [0, 1],
        "supported_aspect_ratios": [[1, 1]], "max_num_tiles": 1}, refused="mllama"),
    "nanochat": Case("nanochat"),
    "bitnet": Case("bitnet"),
    "t5": Case("t5", {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_heads": 4},
        refused="no model that continues text"),
}  # fmt: skip


def config_of(case: Case) -> Any:
    """The transformers config of a case."""
    from transformers import AutoConfig

    if case.text is None:
        return AutoConfig.for_model(case.kind, **(TEXT | case.config))
    return AutoConfig.for_model(
        case.kind,
        **case.config,
        text_config=TEXT | case.text,
        vision_config=VISION | (case.vision or {}),
    )


def write_checkpoint(name: str, folder: Path, tokenizer: Path) -> Path:
    """The checkpoint of `CASES[name]` in `folder`, float32, with the tokenizer of another."""
    import shutil

    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoModelForSeq2SeqLM,
    )

    config = config_of(CASES[name])
    kinds = AutoModelForImageTextToText, AutoModelForCausalLM, AutoModelForSeq2SeqLM
    kind = next(k for k in kinds if type(config) in k._model_mapping)
    torch.manual_seed(0)
    made = kind.from_config(config, dtype=torch.float32)
    _as_if_trained(made)
    if CASES[name].stored is not None:
        made = _quantised(made, folder, CASES[name].stored)
    made.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer / file, folder)
    return folder


def _as_if_trained(model: Any) -> None:
    """Weights of a variance that lets every layer count, and norms that are not all one."""
    import torch

    for name, weight in model.named_parameters():
        if any(part in name for part in ("A_log", "conv", "dt_", "time_", "lru")):
            continue
        if weight.dim() == 1:
            weight.data += 0.05 * torch.randn_like(weight)
        elif float(weight.detach().std()) > 0:
            columns = weight.shape[-1] if weight.dim() == 2 else weight.shape[-2]
            weight.data *= columns**-0.5 / weight.data.std()


def _quantised(model: Any, folder: Path, options: dict[str, Any]) -> Any:
    """As bitsandbytes stores it, for a compute dtype of bf16, which is what most are made for."""
    import torch
    from transformers import BitsAndBytesConfig

    model.save_pretrained(folder / "16 bits")
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        **options,
    )
    return type(model).from_pretrained(
        folder / "16 bits", quantization_config=nf4, dtype=torch.bfloat16, device_map={"": "cpu"}
    )
