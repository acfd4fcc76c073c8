"""Which tensors NF4 with double quantisation makes of weights: what a file of them has to hold.

bitsandbytes' kernels believe the shapes that they are given: of one scale too few they would read
what lies behind it in memory.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from trainer.models.experts import ExpertLayout
from trainer.models.safetensors_files import DTYPES, TensorEntry
from trainer.runtime.json_records import parse_json, well_formed
from trainer.runtime.nf4 import BLOCK_SCALES, BLOCK_VALUES

if TYPE_CHECKING:
    import torch

STATE = ".quant_state.bitsandbytes__nf4"
BLOCK_SIZES = {32 << power for power in range(8)}  # that bitsandbytes has kernels for
MOST_STATE_BYTES = 1000  # of its JSON
Shape = tuple[int, ...]


class NF4Layout:
    """`weights` are dtype and shape by name; those of `quantised`, and `experts`, become NF4."""

    def __init__(
        self,
        weights: Mapping[str, tuple["torch.dtype", Shape]],
        quantised: Iterable[str],
        experts: Mapping[str, ExpertLayout],
    ) -> None:
        self._weights = weights
        self._quantised = frozenset(quantised)
        self._tensors = {n: (_name(dtype), shape) for n, (dtype, shape) in weights.items()}
        for name in self._quantised:
            self._tensors |= _tensors_of(name, math.prod(weights[name][1]))
        for name, layout in experts.items():
            self._tensors |= {f"{name}.{part}": kind for part, kind in layout.tensors().items()}

    def fault(self, entries: Iterable[TensorEntry]) -> str:
        """What among `entries` is not as it is made; empty where all of it is."""
        for entry in entries:
            dtype, shape = DTYPES.get(entry.dtype), entry.shape
            if entry.name.endswith(STATE) and entry.name.removesuffix(STATE) in self._quantised:
                is_right = dtype == "uint8" and len(shape) == 1 and entry.size <= MOST_STATE_BYTES
            else:
                is_right = self._tensors.get(entry.name) == (dtype, shape)
            if not is_right:
                return f"{entry.name} is {dtype} {list(shape)}, which is not what is made of it"
        return ""

    def missing(self, names: Iterable[str]) -> str:
        """What of a quantised weight is not among `names`; empty where nothing is missing."""
        needed = {n for n in self._tensors if n not in self._weights or n in self._quantised}
        needed |= {f"{name}{STATE}" for name in self._quantised}
        left = needed - set(names)
        return f"its files have no {min(left)}" if left else ""

    def state_fault(self, name: str, state: "torch.Tensor") -> str:
        """What in the JSON of a quantisation's state is not as it is made; empty if nothing."""
        dtype, shape = self._weights[name.removesuffix(STATE)]
        try:
            with well_formed("a state"):
                found: dict[str, Any] = parse_json(state.cpu().numpy().tobytes())
                is_finite = math.isfinite(found.pop("nested_offset"))
        except ValueError:
            return f"{name} cannot be read"
        made = {
            "quant_type": "nf4",
            "blocksize": BLOCK_VALUES,
            "dtype": _name(dtype),
            "shape": list(shape),
            "nested_blocksize": BLOCK_SCALES,
            "nested_dtype": "float32",
        }
        return "" if is_finite and found == made else f"{name} is not what is made of it"


def loaded_fault(model: Any) -> str:
    """What of the 4-bit layers of a loaded model is not of their size; empty where all of it is.
    Weights that somebody else has quantised bring scales of their own."""
    from bitsandbytes.nn import Linear4bit

    for name, layer in model.named_modules():
        if isinstance(layer, Linear4bit) and (fault := _loaded_fault(layer)):
            return f"{name}.weight {fault}"
    return ""


def _loaded_fault(layer: Any) -> str:
    weight, state = layer.weight, getattr(layer.weight, "quant_state", None)
    shape = (layer.out_features, layer.in_features)
    if state is None:
        return "is in none of its files"
    if tuple(state.shape) != shape:
        return f"is {list(state.shape)} where the model has {list(shape)}"
    if state.blocksize not in BLOCK_SIZES:
        return f"has blocks of {state.blocksize}"
    values = math.prod(shape)
    scales = -(-values // state.blocksize)
    sizes = [
        (weight.numel() * weight.element_size(), -(-values // 2)),
        (state.absmax.numel(), scales),
        (state.code.numel(), 16),
    ]
    if state.nested:
        nested = state.state2
        if nested.blocksize not in BLOCK_SIZES:
            return f"has blocks of {nested.blocksize} scales"
        sizes += [
            (nested.absmax.numel(), -(-scales // nested.blocksize)),
            (nested.code.numel(), 256),
        ]
    wrong = [f"{found} in place of {made}" for found, made in sizes if found != made]
    return f"has {wrong[0]} bytes, scales or levels" if wrong else ""


def _tensors_of(name: str, values: int) -> dict[str, tuple[str, Shape]]:
    scales = -(-values // BLOCK_VALUES)
    return {
        name: ("uint8", (-(-values // 2), 1)),
        f"{name}.absmax": ("uint8", (scales,)),
        f"{name}.quant_map": ("float32", (16,)),
        f"{name}.nested_absmax": ("float32", (-(-scales // BLOCK_SCALES),)),
        f"{name}.nested_quant_map": ("float32", (256,)),
    }


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")
