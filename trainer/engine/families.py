"""The families that the engine trains: in what the mathematics of each differs from Llama's.

Sizes, biases, scales and the norms of heads are found in the modules themselves.
"""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Family:
    """Names of a layer's norms in transformers: before attention and feed-forward network, and
    behind them, before they join the residual stream; None where there is none."""

    attention_norm: str | None = "input_layernorm"
    attention_post_norm: str | None = None
    mlp_norm: str | None = "post_attention_layernorm"
    mlp_post_norm: str | None = None
    norm_offset: float = 0.0
    """a norm multiplies by its weight and this"""
    activation: str = "silu"
    fused_attention: bool = False
    """one linear layer gives q, k and v"""
    fused_mlp: bool = False
    """one linear layer gives gate and up"""
    neighbours: bool = False
    """what is rotated of a head are pairs of neighbours, not its two halves"""
    gates_attention: bool = False
    """behind each head of q is a gate of what attention gives for it"""
    divides_logits: bool = False
    """by the config's `logits_scaling`"""


LLAMA = Family()
OLMO_2 = Family(
    attention_norm=None,
    attention_post_norm="post_attention_layernorm",
    mlp_norm=None,
    mlp_post_norm="post_feedforward_layernorm",
)
GLM = Family(fused_mlp=True, neighbours=True)
GLM_4 = replace(
    GLM, attention_post_norm="post_self_attn_layernorm", mlp_post_norm="post_mlp_layernorm"
)
GEMMA = Family(norm_offset=1.0, activation="gelu_pytorch_tanh")
GEMMA_3 = replace(
    GEMMA,
    attention_post_norm="post_attention_layernorm",
    mlp_norm="pre_feedforward_layernorm",
    mlp_post_norm="post_feedforward_layernorm",
)

# By the class that is loaded: configs of other names are loaded as one of these too.
FAMILIES = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": LLAMA,
    "Qwen3ForCausalLM": LLAMA,
    "Qwen3MoeForCausalLM": LLAMA,
    "Qwen3_5ForCausalLM": Family(norm_offset=1.0, gates_attention=True),
    "SmolLM3ForCausalLM": LLAMA,
    "SeedOssForCausalLM": LLAMA,
    "Ministral3ForCausalLM": LLAMA,
    "GraniteForCausalLM": replace(LLAMA, divides_logits=True),
    "Phi3ForCausalLM": replace(LLAMA, fused_attention=True, fused_mlp=True),
    "Olmo2ForCausalLM": OLMO_2,
    "Olmo3ForCausalLM": OLMO_2,
    "GlmForCausalLM": GLM,
    "Glm4ForCausalLM": GLM_4,
    "GemmaForCausalLM": GEMMA,
    "Gemma3ForCausalLM": GEMMA_3,
    "Gemma3ForConditionalGeneration": GEMMA_3,
}


def class_of(config: Any) -> str | None:
    """The class that a model of this config is loaded as; None where it continues no text."""
    from transformers import AutoModelForCausalLM

    known = type(config) in AutoModelForCausalLM._model_mapping
    return AutoModelForCausalLM._model_mapping[type(config)].__name__ if known else None
