"""The residual stream of families whose values leave the range of fp16: float32 where they do.

In Gemma a norm behind attention and feed-forward network multiplies by large weights, and what the
layers hand on grows to 1e5, while what linear layers take and give stays below 1e3. So in fp16 only
the stream is float32, and products stay in 16 bits.
"""

from typing import Any

from trainer.errors import SettingsError
from trainer.runtime.device import Precision

WIDE = ("gemma2", "gemma3", "gemma3_text")
UNHELD = (
    "gemma4",
    "gemma4_text",
    "gemma4_unified",
)  # their gates read the stream itself, in 16 bits


def is_wide(config: Any, precision: str) -> bool:
    """Whether a model of this config has a stream in float32 where it computes in `precision`."""
    return precision == "fp16" and config.model_type in WIDE


def check_precision(config: Any, name: str, precision: Precision) -> None:
    """What the config alone shows: whether the model called `name` can be trained in `precision`.

    Raises SettingsError.
    """
    if precision.name == "fp16" and config.model_type in UNHELD:
        raise SettingsError(
            f"QLORA_BASE_MODEL={name}: the values of {config.model_type} leave the range of fp16: "
            "it would train to NaN; use a GPU with bf16 (compute capability 8.0 and newer), or "
            "QLORA_PRECISION=fp32"
        )


def widen(model: Any, precision: str) -> Any:
    """`model`, by which transformers computes so: what is embedded is float32, and so is all that
    is made of it; bitsandbytes' layers take 16 bits and give what they were given."""
    import torch

    if not is_wide(model.config, precision):
        return model
    head = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.register_forward_hook(_to_float32)
    head.register_forward_pre_hook(_to_own)
    return model


def _to_float32(_module: Any, _given: Any, made: Any) -> Any:
    return made.float()


def _to_own(module: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (given[0].to(module.weight.dtype), *given[1:])
