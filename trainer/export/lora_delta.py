"""What a LoRA adapter adds to each weight of its base, and the base's tensors with that added."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.errors import DataError, SettingsError
from trainer.models.adapter_config import halves_in, refuse_infinite
from trainer.models.adapters import Adapter
from trainer.models.checkpoint_names import CheckpointNames
from trainer.models.safetensors_files import FLOATS, StoredTensor
from trainer.models.trained_weights import NF4Matrix, TrainedWeights
from trainer.runtime.nf4 import BLOCK_VALUES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NF4, OWN = "nf4", "16bit"  # the base's weights that something starts from
VALUES_AT_ONCE = 2**22  # of a weight in float32, 16 MiB, while something is added to it

# What peft can write into an adapter's config and `deltas_of` does not compute.
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
class Delta:
    """What a LoRA pair adds to a weight: scale · B·A, in float32."""

    a_RI: "Tensor"
    b_OR: "Tensor"
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        return self.b_OR.shape[0], self.a_RI.shape[1]


@dataclass(frozen=True)
class Start:
    """The base's weights that a merged or exported model starts from: `weights` is NF4 or OWN."""

    adapter: Adapter
    weights: str

    def trained_weights(self) -> TrainedWeights | None:
        """None for the base's own. Raises SettingsError where NF4 values cannot be computed."""
        if self.weights == OWN:
            return None
        return TrainedWeights(self.adapter.base, self.adapter.compute_dtype())

    def to_json(self) -> dict[str, str]:
        """For the config of what is written."""
        base, own = self.adapter.base, self.weights == OWN
        dtype = {} if own else {"compute_dtype": _name(self.adapter.compute_dtype())}
        return {"base": base.name, "revision": base.revision, "base_weights": self.weights, **dtype}

    def sentence(self) -> str:
        """For people."""
        base = self.adapter.base
        if self.weights == OWN:
            return (
                f"It starts from the own weights of {base.name} ({base.revision}), not from the "
                "NF4 values that the adapter was trained on: answers can be others than those that "
                "were tested."
            )
        return (
            f"It starts from the NF4 values of {base.name} ({base.revision}) that the adapter was "
            f"trained on, dequantised in {_name(self.adapter.compute_dtype())}, so that it answers "
            "as it was tested: a run keeps its base in these four bits, whatever it computes in."
        )


class MergedReader:
    """Reads a base's tensors one by one with an adapter's deltas added, each into the same memory.

    Memory that is allocated anew for each tensor leaves holes in the heap: 84 to 150 MB of them
    behind a gigabyte in matrices of 8 to 131 MB.
    """

    def __init__(
        self,
        stored: Sequence[StoredTensor],
        deltas: Mapping[str, Delta],
        trained: TrainedWeights | None = None,
    ) -> None:
        """Without `trained`, what a run made of the base's weights, they are the base's own."""
        import torch

        self._deltas = deltas
        self._trained = trained
        self._bytes = torch.empty(max((t.size for t in stored), default=0), dtype=torch.uint8)
        widest = max((delta.shape[1] for delta in deltas.values()), default=0)
        # A block that may not be cut lies in 64 rows at most.
        most = max(VALUES_AT_ONCE, widest * (BLOCK_VALUES if trained else 1))
        self._float32 = torch.empty(2, most if deltas else 0)

    def read(self, tensor: StoredTensor) -> "Tensor":
        """One of the base's, merged; it is there until the next one is read. Raises DataError."""
        weight = tensor.read(self._bytes)
        if tensor.dtype not in FLOATS:
            return weight
        delta = self._deltas.get(tensor.name)
        if self._trained and (parts := self._trained.matrices(tensor.name, weight)) is not None:
            for matrix in parts:
                self._rewrite(matrix, self._trained.quantised(matrix), delta)
        elif delta is not None:
            self._rewrite(weight, None, delta)
        elif self._trained:
            for part in weight.view(-1).split(VALUES_AT_ONCE):
                part.copy_(self._trained.round(part))
        return weight

    def _rewrite(self, weight_OI: "Tensor", matrix: NF4Matrix | None, delta: Delta | None) -> None:
        """In place, some rows at a time; rounded once, from float32."""
        import torch

        rows = max(1, VALUES_AT_ONCE // weight_OI.shape[1])
        if matrix is not None:
            rows = max(1, rows // matrix.aligned_rows) * matrix.aligned_rows
        for start in range(0, len(weight_OI), rows):
            part = weight_OI[start : start + rows]
            held = part if matrix is None else matrix.rows(start, start + rows)
            if delta is None:
                part.copy_(held)
                continue
            product, total = (of[: part.numel()].view(part.shape) for of in self._float32)
            torch.mm(delta.b_OR[start : start + rows], delta.a_RI, out=product)
            part.copy_(total.copy_(held).add_(product.mul_(delta.scale)))


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def deltas_of(adapter: Adapter, stored: Sequence[StoredTensor]) -> Mapping[str, Delta]:
    """What the adapter adds to each weight of its base, by the weight's name.

    Raises DataError when the adapter does not belong on these weights, SettingsError when the
    weights are quantised already.
    """
    used = [name for name in _BEYOND_PLAIN_LORA if adapter.config.get(name)]
    if used:
        raise DataError(
            f"the adapter uses {', '.join(used)}; only plain LoRA can be merged here, "
            "peft's merge_and_unload() knows the rest"
        )
    found = _by_stored_name(_pairs(adapter), stored, adapter)
    _check(found, {tensor.name: tensor for tensor in stored}, adapter)
    return found


def _pairs(adapter: Adapter) -> dict[str, Delta]:
    halves = {tensor.name: tensor for tensor in halves_in(adapter.folder)}
    scale = adapter.config["lora_alpha"] / adapter.config["r"]
    found = {}
    for name, a in halves.items():
        layer, is_a, _ = name.partition(".lora_A.")
        if is_a and (b := halves.get(name.replace(".lora_A.", ".lora_B."))):
            weight = layer.removeprefix("base_model.model.") + ".weight"
            found[weight] = Delta(a.read().float(), b.read().float(), scale)
            refuse_infinite({a.name: found[weight].a_RI, b.name: found[weight].b_OR})
    if 2 * len(found) != len(halves):
        raise DataError(
            f"{adapter.weights.name}: {len(halves)} tensors, {2 * len(found)} of them in LoRA "
            "pairs; only plain LoRA can be merged"
        )
    return found


def _by_stored_name(
    deltas: Mapping[str, Delta], stored: Sequence[StoredTensor], adapter: Adapter
) -> dict[str, Delta]:
    """Files may name a weight otherwise than the loaded model, whose names an adapter has."""
    names = {tensor.name for tensor in stored}
    if deltas.keys() <= names:
        return dict(deltas)
    in_files = CheckpointNames(adapter.base).in_files(names)
    return {in_files.get(name, name): delta for name, delta in deltas.items()}


def _check(
    found: Mapping[str, Delta], stored: Mapping[str, StoredTensor], adapter: Adapter
) -> None:
    name = adapter.base.name
    if adapter.base.is_quantised:
        raise SettingsError(
            f"{name}: its weights are quantised already, so an adapter added to them would be "
            "rounded away; name the 16-bit model with --base-model"
        )
    for weight, delta in found.items():
        if weight in stored and stored[weight].dtype not in FLOATS:
            raise SettingsError(
                f"{name}: {weight} is {stored[weight].dtype}, to which nothing can be added; name "
                "the 16-bit model with --base-model"
            )
        wanted = f"it was trained on {adapter.config['base_model_name_or_path']}"
        if weight not in stored:
            raise DataError(f"the adapter is for {weight}, which {name} does not have; {wanted}")
        if stored[weight].shape != delta.shape:
            raise DataError(
                f"{weight}: the adapter is for {delta.shape}, {name} has {stored[weight].shape}; "
                f"{wanted}"
            )
