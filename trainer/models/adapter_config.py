"""What an adapter's `adapter_config.json` says, taken from a list of what is allowed.

It may come from anybody, and peft would search the modules by a pattern in it, make matrices of
any rank, or ask the hub for another adapter. What is used here are figures; which modules there
are is read from the names of the weights.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import DataError
from trainer.models.safetensors_files import FLOATS, StoredTensor, read_header
from trainer.runtime.json_records import read_object

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
LARGEST_RANK = 1024
LARGEST_ALPHA = 1e6
_LARGEST_BYTES = 1 << 20
_HALF = re.compile(r"base_model\.model\.([A-Za-z0-9_.]{1,200})\.lora_(A|B|magnitude_vector)\b.*")

BEYOND_LORA_PAIRS = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "fan_in_fan_out",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
"""What peft can write there and nothing here computes"""


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The config, whose figures are sound, of an adapter whose weights lie beside it.

    Raises DataError for one that cannot be read, of another kind than LoRA, or that needs what is
    in BEYOND_LORA_PAIRS.
    """
    if not (folder / WEIGHTS).is_file():
        raise DataError(
            f"{folder}: no {WEIGHTS} there, and pickled weights are never read; save the adapter "
            "as safetensors"
        )
    try:
        config = read_object(folder / CONFIG)
    except (OSError, ValueError) as error:
        fact = f"{folder / CONFIG} cannot be read ({str(error)[:80]})"
        raise DataError(f"{fact}; bring the adapter there again") from None
    if faults := list(_faults(config)):
        raise DataError(f"{folder / CONFIG}: {'; '.join(faults)}; use another adapter")
    return config


def halves_in(folder: Path) -> list[StoredTensor]:
    """The adapter's tensors as its file lists them. Raises DataError for one that is no matrix of
    numbers that something can be computed with."""
    _, stored = read_header(folder / WEIGHTS)
    if odd := [tensor for tensor in stored if tensor.dtype not in FLOATS]:
        raise DataError(
            f"{folder / WEIGHTS}: {odd[0].name[:200]} is {odd[0].dtype[:40]}, and an adapter is of "
            f"{', '.join(FLOATS)}; use another adapter"
        )
    return stored


def refuse_infinite(tensors: "Mapping[str, Tensor]") -> None:
    """Raises DataError for NaN or infinity: every answer would be of the tokens that NaN gives."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise DataError(
                f"the adapter's {name[:200]} holds NaN or infinity; its training has diverged or "
                "its file is damaged: use another adapter"
            )


def lora_config(folder: Path, config: Mapping[str, Any]) -> "LoraConfig":
    """As peft wants it, of what was read from `folder`: on the modules that have weights.

    Raises DataError where the weights have other names than LoRA's.
    """
    from peft import LoraConfig

    stored = halves_in(folder)
    found = [_HALF.fullmatch(tensor.name) for tensor in stored]
    modules = {match[1] for match in found if match is not None}
    if None in found or not modules:
        raise DataError(f"{folder / WEIGHTS}: holds no LoRA weights, or others too")
    return LoraConfig(
        r=config["r"],
        lora_alpha=config["lora_alpha"],
        target_modules=sorted(modules),
        use_dora=config.get("use_dora") is True,
        use_rslora=config.get("use_rslora") is True,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )


def _faults(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("peft_type") != "LORA":
        yield f"is for {str(config.get('peft_type'))[:40]!r}, and only 'LORA' is known here"
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not 1 <= rank <= LARGEST_RANK:
        yield f"r={str(rank)[:40]} is no rank from 1 to {LARGEST_RANK}"
    is_number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not is_number or not -LARGEST_ALPHA <= float(alpha or 0) <= LARGEST_ALPHA:
        yield f"lora_alpha={str(alpha)[:40]} is no number up to {LARGEST_ALPHA:.0f}"
    if config.get("bias", "none") != "none":
        yield "it has biases"
    if used := [name for name in BEYOND_LORA_PAIRS if config.get(name)]:
        yield f"the adapter uses {', '.join(used)}, which only peft itself knows"
    for name in ("base_model_name_or_path", "revision"):
        if not isinstance(config.get(name), str) and (config.get(name), name) != (None, "revision"):
            yield f"{name} is no text"
