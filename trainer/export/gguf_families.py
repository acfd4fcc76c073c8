"""The families that llama.cpp computes as transformers does: what each wants beside sizes.

What of a config llama.cpp has in its code and not in the file, such as which layers rotate nothing,
is compared with it: where the two differ the model is refused.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gguf

from trainer.planner.model_shape import head_size

GEMMA_27B_LAYERS = 62
PLAIN = ("default", "llama3")


def _nothing(_config: Any) -> Iterator[str]:
    yield from ()


def _no_keys(_writer: gguf.GGUFWriter, _config: Any) -> None:
    pass


@dataclass(frozen=True)
class Family:
    """One family in llama.cpp's words. `neighbours`: query and key rotate neighbours there, halves
    in transformers; `norm_offset` is added to the weights of norms; `ropes` are the types of rotary
    embedding that can be said; `faults` are what else cannot; `describe` writes keys of its own."""

    arch: gguf.MODEL_ARCH
    neighbours: bool = False
    activation: str = "silu"
    norm_offset: float = 0.0
    ropes: tuple[str, ...] = PLAIN
    faults: Callable[[Any], Iterator[str]] = _nothing
    describe: Callable[[gguf.GGUFWriter, Any], None] = _no_keys


def _smollm_3_faults(config: Any) -> Iterator[str]:
    rotated = [(layer + 1) % 4 != 0 for layer in range(config.num_hidden_layers)]
    if [bool(one) for one in config.no_rope_layers] != rotated:
        yield "layers without rotary embedding that are not every fourth"
    if config.use_sliding_window:
        yield "attention in a window"


def _narrow_faults(config: Any) -> Iterator[str]:
    if head_size(config) * config.num_attention_heads != config.hidden_size:
        yield f"heads of {head_size(config)} values"


def _phi_3_faults(config: Any) -> Iterator[str]:
    yield from _narrow_faults(config)
    if config.rope_parameters.get("partial_rotary_factor", 1) != 1:
        yield "rotary embedding of a part of each head"


def _olmo_2_faults(config: Any) -> Iterator[str]:
    yield from _narrow_faults(config)
    if config.tie_word_embeddings:
        yield "head that is its embedding"


def _olmo_3_faults(config: Any) -> Iterator[str]:
    yield from _olmo_2_faults(config)
    rope = config.rope_parameters["sliding_attention"]
    if rope["rope_type"] != "default":
        yield "rotary embedding of layers with a window"
    rope = config.rope_parameters["full_attention"]
    factor = 0.1 * math.log(rope.get("factor", 1)) + 1  # llama.cpp's own
    if not math.isclose(rope.get("attention_factor") or factor, factor):
        yield "scaling of attention"


def _gemma_3_faults(config: Any) -> Iterator[str]:
    is_27b = config.num_hidden_layers == GEMMA_27B_LAYERS
    scale = config.hidden_size // config.num_attention_heads if is_27b else head_size(config)
    if config.query_pre_attn_scalar != scale:
        yield f"attention scaled by the root of {config.query_pre_attn_scalar}"
    if config.rope_parameters["sliding_attention"]["rope_type"] != "default":
        yield "rotary embedding of layers with a window"
    if config.attn_logit_softcapping or config.final_logit_softcapping:
        yield "capped logits"


def _granite(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_attention_scale(config.attention_multiplier)
    writer.add_embedding_scale(config.embedding_multiplier)
    writer.add_residual_scale(config.residual_multiplier)
    writer.add_logit_scale(config.logits_scaling)


def _phi_3(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
    writer.add_sliding_window(config.sliding_window or 0)  # 0 is Phi-4


def _windows(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_sliding_window(config.sliding_window)
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config.layer_types])
    writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])


def _ministral_3(writer: gguf.GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    if rope.get("mscale_all_dim"):
        writer.add_rope_scaling_yarn_log_mul(rope["mscale_all_dim"])
    if rope.get("llama_4_scaling_beta"):
        writer.add_attn_temperature_scale(rope["llama_4_scaling_beta"])


def _ministral_3_faults(config: Any) -> Iterator[str]:
    if config.model_type != "ministral3":
        yield config.model_type
    rope = config.rope_parameters
    if rope.get("mscale", 1) != rope.get("mscale_all_dim", 1):
        yield "scaling of attention"


LLAMA = Family(gguf.MODEL_ARCH.LLAMA, neighbours=True)
GEMMA_3 = Family(
    gguf.MODEL_ARCH.GEMMA3,
    activation="gelu_pytorch_tanh",
    norm_offset=1.0,
    ropes=("default", "linear"),
    faults=_gemma_3_faults,
    describe=_windows,
)
MINISTRAL_3 = Family(
    gguf.MODEL_ARCH.MISTRAL3,
    neighbours=True,
    ropes=("default", "yarn"),
    faults=_ministral_3_faults,
    describe=_ministral_3,
)

# By the class that the config names.
FAMILIES = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": Family(gguf.MODEL_ARCH.QWEN2),
    "Qwen3ForCausalLM": Family(gguf.MODEL_ARCH.QWEN3),
    "SmolLM3ForCausalLM": Family(gguf.MODEL_ARCH.SMOLLM3, neighbours=True, faults=_smollm_3_faults),
    "GraniteForCausalLM": Family(
        gguf.MODEL_ARCH.GRANITE, neighbours=True, faults=_narrow_faults, describe=_granite
    ),
    "Phi3ForCausalLM": Family(
        gguf.MODEL_ARCH.PHI3, ropes=("default",), faults=_phi_3_faults, describe=_phi_3
    ),
    "Olmo2ForCausalLM": Family(gguf.MODEL_ARCH.OLMO2, ropes=("default",), faults=_olmo_2_faults),
    "Olmo3ForCausalLM": Family(
        gguf.MODEL_ARCH.OLMO2, ropes=("default", "yarn"), faults=_olmo_3_faults, describe=_windows
    ),
    "SeedOssForCausalLM": Family(gguf.MODEL_ARCH.SEED_OSS, ropes=("default",)),
    "Gemma3ForCausalLM": GEMMA_3,
    "Gemma3ForConditionalGeneration": GEMMA_3,
    "Ministral3ForCausalLM": MINISTRAL_3,
    "Mistral3ForConditionalGeneration": MINISTRAL_3,
}
