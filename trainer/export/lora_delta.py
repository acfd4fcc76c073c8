"""Safetensors files read one tensor at a time, with a LoRA adapter added on the way."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import DataError, SettingsError
from trainer.models.adapters import Adapter

if TYPE_CHECKING:
    from torch import Tensor

VALUES_AT_ONCE = 2**22  # of a weight in float32, 16 MiB, while something is added to it
FLOATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}

# What peft can write into an adapter's config and `deltas` does not compute.
_BEYOND_PLAIN_LORA = (
    "alora_invocation_tokens",
    "alpha_pattern",
    "arrow_config",
    "fan_in_fan_out",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "target_parameters",
    "trainable_token_indices",
    "use_dora",
    "use_rslora",
)


@dataclass(frozen=True)
class Stored:
    """A tensor where it lies in a file; `start` and `size` are bytes."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def read(self, delta: "Delta | None" = None) -> "Tensor":
        """The tensor, in memory of its own: a mapped file would be counted as this process's.

        One of another type than float comes as its bytes.
        """
        import torch

        buffer = bytearray(self.size)
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            stream.readinto(buffer)
        if self.dtype not in FLOATS:
            return torch.frombuffer(buffer, dtype=torch.uint8)
        tensor = torch.frombuffer(buffer, dtype=getattr(torch, FLOATS[self.dtype]))
        tensor = tensor.reshape(self.shape)
        if delta is not None:
            delta.add_to(tensor)
        return tensor


@dataclass(frozen=True)
class Delta:
    """What a LoRA pair adds to a weight: scale · B·A."""

    a_RI: "Tensor"
    b_OR: "Tensor"
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.b_OR.shape[0], self.a_RI.shape[1]

    def add_to(self, weight_OI: "Tensor") -> None:
        """In place, some rows at a time; rounded once, from float32."""
        rows = max(1, VALUES_AT_ONCE // weight_OI.shape[1])
        for weight, b in zip(weight_OI.split(rows), self.b_OR.split(rows), strict=True):
            weight.copy_(weight.float() + self.scale * (b @ self.a_RI))


def tensors_of(file: Path) -> tuple[bytes, list[Stored]]:
    """What a file has before its data, and its tensors in the order of their data.

    Raises DataError for a file that is damaged or cut short.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        text = stream.read(min(length, size))
    start = len(prefix) + len(text)
    try:
        entries = {k: v for k, v in json.loads(text).items() if k != "__metadata__"}
        tensors = [
            Stored(file, name, e["dtype"], tuple(e["shape"]), start + first, last - first)
            for name, e in entries.items()
            for first, last in [e["data_offsets"]]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file.name}: not a safetensors file; fetch it again") from error
    if max((t.start + t.size for t in tensors), default=start) != size:
        raise DataError(f"{file.name}: {size} bytes are not what its header says; fetch it again")
    return prefix + text, sorted(tensors, key=lambda tensor: tensor.start)


def deltas(adapter: Adapter, stored: Sequence[Stored]) -> Mapping[str, Delta]:
    """What the adapter adds to each weight of its base, by the weight's name, in float32.

    Raises DataError when the adapter does not belong on these weights, SettingsError when the
    weights are quantised already.
    """
    used = [name for name in _BEYOND_PLAIN_LORA if adapter.config.get(name)]
    if used:
        raise DataError(
            f"the adapter uses {', '.join(used)}; only plain LoRA can be merged here, "
            "peft's merge_and_unload() knows the rest"
        )
    found = _pairs(adapter)
    _check(found, {tensor.name: tensor for tensor in stored}, adapter)
    return found


def _pairs(adapter: Adapter) -> dict[str, Delta]:
    _, stored = tensors_of(adapter.weights)
    halves = {tensor.name: tensor for tensor in stored}
    scale = adapter.config["lora_alpha"] / adapter.config["r"]
    found = {}
    for name, a in halves.items():
        layer, is_a, _ = name.partition(".lora_A.")
        if is_a and (b := halves.get(name.replace(".lora_A.", ".lora_B."))):
            weight = layer.removeprefix("base_model.model.") + ".weight"
            found[weight] = Delta(a.read().float(), b.read().float(), scale)
    if 2 * len(found) != len(halves):
        raise DataError(
            f"{adapter.weights.name}: {len(halves)} tensors, {2 * len(found)} of them in LoRA "
            "pairs; only plain LoRA can be merged"
        )
    return found


def _check(found: Mapping[str, Delta], stored: Mapping[str, Stored], adapter: Adapter) -> None:
    name = adapter.base.name
    if adapter.base.is_quantised:
        raise SettingsError(
            f"{name}: its weights are quantised already, so an adapter added to them would be "
            "rounded away; name the 16-bit model with --base-model"
        )
    for weight, delta in found.items():
        wanted = f"it was trained on {adapter.config['base_model_name_or_path']}"
        if weight not in stored:
            raise DataError(f"the adapter is for {weight}, which {name} does not have; {wanted}")
        if stored[weight].shape != delta.shape:
            raise DataError(
                f"{weight}: the adapter is for {delta.shape}, {name} has {stored[weight].shape}; "
                f"{wanted}"
            )
