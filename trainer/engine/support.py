"""Which models the engine can train, and which runs it does."""

from typing import Any

from trainer.runtime.device import Device, Precision
from trainer.settings import Settings

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
ROPE_TYPES = ("default", "linear", "llama3", "yarn")


def why_not(config: Any) -> str | None:
    """Why this engine cannot train a model of this config; None where it can."""
    if config.model_type not in FAMILIES:
        return f"{config.model_type} is not one of {', '.join(FAMILIES)}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        return f"its position embedding is of type {rope}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "it attends in a sliding window"
    return None


def why_stock(settings: Settings, config: Any, precision: Precision, device: Device) -> str | None:
    """Why a run takes the stock path; None where the engine trains."""
    if settings.engine == "stock":
        return "it was switched off"
    if device.kind == "cuda" and precision.name == "fp32":
        return "a GPU's attention kernels take 16 bits"
    return why_not(config)
