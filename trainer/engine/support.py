"""Which models the engine can train, and which runs it does."""

import sys
from typing import Any

from trainer.engine.families import FAMILIES, class_of
from trainer.runtime.device import Device, Precision
from trainer.settings import Settings

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
# Shares of values that transformers drops in training, by their names in configs.
DROPOUTS = ("attention_dropout", "residual_dropout", "resid_pdrop", "embd_pdrop")
CAPS = ("attn_logit_softcapping", "final_logit_softcapping")


def why_not(config: Any, longest: int = 0) -> str | None:
    """Why this engine cannot train a model of this config on blocks of `longest` tokens; None where
    it can."""
    made = class_of(config)
    if made not in FAMILIES:
        return f"{config.model_type} is {made or 'of another kind'}, not one of its families"
    text = config.get_text_config()
    activation = getattr(text, "hidden_activation", None) or text.hidden_act
    if activation != FAMILIES[made].activation:
        return f"its activation is {activation}, not {FAMILIES[made].activation}"
    dropout = next((getattr(text, name) for name in DROPOUTS if getattr(text, name, 0)), 0)
    if dropout:
        return f"it has a dropout of {dropout} of its own"
    if any(getattr(text, name, None) for name in CAPS):
        return "it caps its logits"
    if getattr(text, "use_bidirectional_attention", False):
        return "its attention looks ahead"
    return _why_not_positions(text, longest) or _why_not_quantised(config)


def keeps_state(config: Any) -> bool:
    """Whether some layers of a model of this config hand on a state from token to token: then
    documents of a block see each other in transformers, and not here."""
    return bool(getattr(config.get_text_config(), "linear_num_value_heads", None))


def reach(config: Any) -> int:
    """Up to how many tokens in a document the engine sees what a model of this config sees."""
    text = config.get_text_config()
    scaled: list[int] = [
        rope["original_max_position_embeddings"]
        for rope in _ropes(text)
        if rope.get("llama_4_scaling_beta")
    ]
    window = getattr(text, "sliding_window", None)
    if window and getattr(text, "use_sliding_window", True):
        scaled.append(window)
    return min(scaled, default=sys.maxsize)


def why_stock(settings: Settings, config: Any, precision: Precision, device: Device) -> str | None:
    """Why a run takes the stock path; None where the engine trains."""
    if settings.engine == "stock":
        return "it was switched off"
    if device.kind == "cuda" and precision.name == "fp32":
        return "a GPU's attention kernels take 16 bits"
    if settings.neftune_alpha and getattr(config, "embedding_multiplier", 1) != 1:
        return "it multiplies its embeddings, and NEFTune's noise with them"
    return why_not(config, settings.max_length)


def _why_not_positions(text: Any, longest: int) -> str | None:
    kinds = {rope.get("rope_type", "default") for rope in _ropes(text)}
    if odd := kinds - {*ROPE_TYPES}:
        return f"its position embedding is of type {min(odd)}"
    if longest <= (most := reach(text)):
        return None
    if most == getattr(text, "sliding_window", None):
        return f"it attends in a window of {most} tokens"
    return f"it scales attention beyond {most} tokens"


def _ropes(text: Any) -> list[dict[str, Any]]:
    """One for all layers, or for each kind of them."""
    ropes = getattr(text, "rope_parameters", None) or {}
    return [*ropes.values()] if all(isinstance(r, dict) for r in ropes.values()) else [ropes]


def _why_not_quantised(config: Any) -> str | None:
    """Of weights that came in 4 bits: whether they are as ours would be."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    found = stored if isinstance(stored, dict) else stored.to_dict()
    kind = found.get("bnb_4bit_quant_type"), found.get("bnb_4bit_use_double_quant")
    if kind != ("nf4", True):
        return "its weights are not stored as NF4 with double quantisation"
    if getattr(config, "num_experts", 0):
        return "its experts are stored in 16 bits"
    if set(found.get("llm_int8_skip_modules") or ()) - {"lm_head"}:
        return "some of its layers are stored in 16 bits"
    return None
