"""Which models the engine can train, and which runs it does."""

from typing import Any

from trainer.runtime.device import Device, Precision
from trainer.settings import Settings

# By class, for configs of other names are loaded as one of these too.
FAMILIES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def why_not(config: Any, longest: int = 0) -> str | None:
    """Why this engine cannot train a model of this config on blocks of `longest` tokens; None where
    it can."""
    made = _class_of(config)
    if made not in FAMILIES:
        return f"{config.model_type} is {made or 'of another kind'}, none of {', '.join(FAMILIES)}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    if getattr(config, "attention_dropout", 0):
        return f"its attention has a dropout of {config.attention_dropout}"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        return f"its position embedding is of type {rope}"
    window = getattr(config, "sliding_window", None)
    if window and window < longest and getattr(config, "use_sliding_window", True):
        return f"it attends in a window of {window} tokens"
    return _why_not_quantised(config)


def why_stock(settings: Settings, config: Any, precision: Precision, device: Device) -> str | None:
    """Why a run takes the stock path; None where the engine trains."""
    if settings.engine == "stock":
        return "it was switched off"
    if device.kind == "cuda" and precision.name == "fp32":
        return "a GPU's attention kernels take 16 bits"
    return why_not(config, settings.max_length)


def _class_of(config: Any) -> str | None:
    from transformers import AutoModelForCausalLM

    known = type(config) in AutoModelForCausalLM._model_mapping
    return AutoModelForCausalLM._model_mapping[type(config)].__name__ if known else None


def _why_not_quantised(config: Any) -> str | None:
    """Of weights that came in 4 bits: whether they are as ours would be."""
    stored = getattr(config, "quantization_config", None)
    if stored is None:
        return None
    as_dict = stored if isinstance(stored, dict) else stored.to_dict()
    if (as_dict.get("bnb_4bit_quant_type"), as_dict.get("bnb_4bit_use_double_quant")) != (
        "nf4",
        True,
    ):
        return "its weights are not stored as NF4 with double quantisation"
    if set(as_dict.get("llm_int8_skip_modules") or ()) - {"lm_head"}:
        return "some of its layers are stored in 16 bits"
    return None
