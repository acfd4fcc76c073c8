"""A base's weights on their way from a file or a bucket to NF4, one tensor after the other.

What comes out has the names and the layout in which bitsandbytes stores NF4 weights, so that
transformers takes it for a checkpoint that was quantised before.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from trainer.errors import SettingsError
from trainer.models.checkpoint_names import Place
from trainer.models.experts import ExpertLayout
from trainer.models.nf4_layout import STATE, NF4Layout
from trainer.models.safetensors_files import DTYPES, FLOATS, TensorEntry
from trainer.models.safetensors_stream import Shard, stream_tensors
from trainer.runtime.nf4 import BLOCK_VALUES
from trainer.storage import retry_if_damaged

if TYPE_CHECKING:
    import torch

# What this worker keeps of some tensors, called as soon as they are there.
KeepShard = Callable[[dict[str, "torch.Tensor"]], dict[str, "torch.Tensor"]]


class UnknownLayoutError(Exception):
    """The weights are not what this way of loading understands; the text says why."""


@dataclass(frozen=True)
class WeightLayout:
    """What a model expects: dtype and shape by name, and which of them become NF4.

    `tied` ones may be absent; names that match `ignored` are left in their file. `experts`, which
    are not among the `expected`, become NF4 matrix by matrix, and dequantised have `dtype`. `place`
    says of a name in the files what it is.
    """

    expected: Mapping[str, tuple["torch.dtype", tuple[int, ...]]]
    quantised: frozenset[str]
    tied: frozenset[str]
    ignored: tuple[str, ...]
    experts: Mapping[str, ExpertLayout] = field(default_factory=dict)
    dtype: "torch.dtype | None" = None
    place: Callable[[str], Place | None] = Place

    def shape_at(self, place: Place | None) -> tuple[int, ...] | None:
        """Of what belongs there; None where nothing does."""
        if place is None or place.name not in self.experts:
            known = self.expected.get(place.name) if place else None
            return known and known[1]
        layout = self.experts[place.name]
        if place.matrix is None:
            return layout.shape
        return layout.matrix_shape if place.matrix < layout.matrices else None

    def is_float(self, stored: str) -> bool:
        """Whether what has this name in the files is a weight and no number of something."""
        place = self.place(stored)
        of_model = self.expected.get(place.name) if place else None
        return of_model is None or of_model[0].is_floating_point

    def expert_tensors(self) -> list[str]:
        """The names of what NF4 makes of the experts."""
        return [f"{name}.{part}" for name, one in self.experts.items() for part in one.tensors()]


def quantise(
    shards: list[Shard], layout: WeightLayout, device: "torch.device", keep: KeepShard
) -> dict[str, "torch.Tensor"]:
    """What `keep` leaves of the weights of `shards` on `device`, those of `layout.quantised` and
    `layout.experts` as NF4.

    Raises UnknownLayoutError, DataError for a file that is damaged, and what reading raises.
    """
    experts = _Experts(layout, device)

    def of_shard(shard: Shard) -> dict[str, "torch.Tensor"]:
        found: dict[str, torch.Tensor] = {}
        check = partial(_refuse_misfits, layout=layout)
        for stored, tensor in stream_tensors(shard, device, check):
            place = layout.place(stored)
            if place is not None and place.name in layout.experts:
                experts.quantise(place, tensor)
            elif place is not None and place.name in layout.expected:
                found |= keep(converted(place.name, tensor, layout))
        return found

    tensors = _of_all(shards, of_shard, layout)
    for made in experts.all():
        tensors |= keep(made)
    return tensors


def load_quantised(
    shards: list[Shard], layout: WeightLayout, device: "torch.device", keep: KeepShard
) -> dict[str, "torch.Tensor"]:
    """What `keep` leaves of weights quantised before, on `device`. Raises as `quantise`."""

    made = NF4Layout(layout.expected, layout.quantised, layout.experts)
    seen: set[str] = set()

    def refuse_misfits(entries: list[TensorEntry]) -> None:
        _refuse(made.fault(entries))
        seen.update(entry.name for entry in entries)

    def of_shard(shard: Shard) -> dict[str, "torch.Tensor"]:
        found: dict[str, torch.Tensor] = {}
        for name, tensor in stream_tensors(shard, device, refuse_misfits):
            if name.endswith(STATE):
                _refuse(made.state_fault(name, tensor))
            found |= keep({name: tensor})
        return found

    tensors = _of_all(shards, of_shard, layout)
    _refuse(made.missing(seen))
    return tensors


def _of_all(
    shards: list[Shard],
    of_shard: Callable[[Shard], dict[str, "torch.Tensor"]],
    layout: WeightLayout,
) -> dict[str, "torch.Tensor"]:
    """What `of_shard` makes of each file, all that the model needs."""
    found: dict[str, torch.Tensor] = {}
    for shard in shards:
        found |= retry_if_damaged(partial(of_shard, shard))
    missing = layout.expected.keys() - layout.tied - found.keys()
    if missing:
        raise UnknownLayoutError(f"its files have no {min(missing)}")
    return found


def _refuse(fault: str) -> None:
    if fault:
        raise UnknownLayoutError(fault)


def _refuse_misfits(entries: list[TensorEntry], layout: WeightLayout) -> None:
    for entry in entries:
        known = layout.shape_at(layout.place(entry.name))
        if known is None and not any(re.search(pattern, entry.name) for pattern in layout.ignored):
            raise UnknownLayoutError(f"the model has no {entry.name}")
        if entry.dtype not in DTYPES:
            raise UnknownLayoutError(f"{entry.name} is {entry.dtype}")
        if known is not None and layout.is_float(entry.name) and entry.dtype not in FLOATS:
            raise SettingsError(
                f"{entry.name[:200]} is {entry.dtype} in its file, and a weight is of "
                f"{', '.join(FLOATS)}; bring the model there again"
            )
        if known is not None and entry.shape != known:
            shape = list(entry.shape)
            raise UnknownLayoutError(f"{entry.name} is {shape} where the model has {known}")


class _Experts:
    """The experts' weights, filled matrix by matrix in whatever order the files have them."""

    def __init__(self, layout: WeightLayout, device: "torch.device") -> None:
        self._layout, self._device = layout, device
        self._made: dict[str, dict[str, torch.Tensor]] = {}
        self._left = {
            (name, n) for name, one in layout.experts.items() for n in range(one.matrices)
        }

    def quantise(self, place: Place, values: "torch.Tensor") -> None:
        layout, dtype = self._layout.experts[place.name], self._layout.dtype
        assert dtype is not None
        if place.name not in self._made:
            self._made[place.name] = empty_experts(layout, self._device)
        first = place.matrix or 0
        for n, matrix in enumerate(values.reshape(-1, *layout.matrix_shape), first):
            quantise_matrix(matrix, n, self._made[place.name], dtype)
            self._left.discard((place.name, n))

    def all(self) -> Iterator[dict[str, "torch.Tensor"]]:
        """What NF4 has made of each weight."""
        if self._left:
            name, number = min(self._left)
            raise UnknownLayoutError(f"its files have no matrix {number} of {name}")
        for name, made in self._made.items():
            yield {f"{name}.{part}": tensor for part, tensor in made.items()}


def empty_experts(layout: ExpertLayout, device: "torch.device") -> dict[str, "torch.Tensor"]:
    """Room for what NF4 makes of a weight of experts."""
    import torch

    return {
        name: torch.zeros(shape, dtype=getattr(torch, dtype), device=device)
        for name, (dtype, shape) in layout.tensors().items()
    }


def quantise_matrix(
    values: "torch.Tensor", n: int, made: Mapping[str, "torch.Tensor"], dtype: "torch.dtype"
) -> None:
    """The `n`-th matrix of a weight of experts, quantised into `made`."""
    packed, state = nf4_of(values, dtype)
    made["packed"][n] = packed.view(-1)
    made["absmax"][n, : len(state.absmax)] = state.absmax
    made["nested_absmax"][n] = state.state2.absmax
    made["offset"][n] = state.offset


def converted(name: str, tensor: "torch.Tensor", layout: WeightLayout) -> dict[str, "torch.Tensor"]:
    """As transformers does it, in the compute dtype and then NF4; all of it on the device."""
    dtype, _ = layout.expected[name]
    if name not in layout.quantised:
        return {name: tensor.to(dtype)}
    packed, state = nf4_of(tensor, dtype)
    parts = state.as_dict(packed=True)
    on = tensor.device
    return {name: packed} | {f"{name}.{part}": value.to(on) for part, value in parts.items()}


def nf4_of(values: "torch.Tensor", dtype: "torch.dtype") -> tuple["torch.Tensor", Any]:
    """Values in NF4 and bitsandbytes' state of it, on their device."""
    if values.device.type != "cpu":
        return to_nf4(values, dtype)
    from trainer.models.nf4_cpu import to_nf4_in_slices

    return to_nf4_in_slices(values, dtype)


def to_nf4(values: "torch.Tensor", dtype: "torch.dtype") -> tuple["torch.Tensor", Any]:
    import torch
    from bitsandbytes.functional import quantize_4bit

    made: tuple[torch.Tensor, Any] = quantize_4bit(
        values.to(dtype),
        blocksize=BLOCK_VALUES,
        compress_statistics=True,
        quant_type="nf4",
        quant_storage=torch.uint8,
    )
    return made
