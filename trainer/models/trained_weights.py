"""A base's weights as a training run held them: NF4 values, dequantised, and the rest in its dtype.

An adapter is trained against these and not against the base's own, from which they differ by 9 %
of a weight. They are read by the quantiser of the run itself.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.errors import SettingsError
from trainer.models.load import weight_layout
from trainer.models.nf4_stream import UnknownLayoutError
from trainer.runtime.nf4 import BLOCK_VALUES

if TYPE_CHECKING:
    import torch

    from trainer.models.base_model import Base


@dataclass(frozen=True)
class NF4Matrix:
    """A quantised matrix [O, I], some rows of which can be dequantised."""

    packed: "torch.Tensor"  # uint8 [O * I / 2, 1]
    scales: "torch.Tensor"  # float32 [O * I / 64], out of their own eight bits already
    shape: tuple[int, int]
    dtype: "torch.dtype"

    @classmethod
    def of(cls, weight_OI: "torch.Tensor", dtype: "torch.dtype") -> "NF4Matrix":
        """`weight_OI` quantised as for a run that computes in `dtype`."""
        from bitsandbytes.functional import dequantize_blockwise

        from trainer.models.nf4_cpu import to_nf4_in_slices

        packed, state = to_nf4_in_slices(weight_OI, dtype)
        scales = dequantize_blockwise(state.absmax, state.state2) + state.offset
        rows, columns = weight_OI.shape
        return cls(packed, scales, (rows, columns), dtype)

    @property
    def aligned_rows(self) -> int:
        """Of how many rows `start` of `rows` has to be a multiple: no block is cut."""
        return BLOCK_VALUES // math.gcd(BLOCK_VALUES, self.shape[1])

    def rows(self, start: int, stop: int) -> "torch.Tensor":
        """The rows from `start` on, up to `stop` or the last, in the compute dtype."""
        import torch

        stop = min(stop, self.shape[0])
        first, last = start * self.shape[1], stop * self.shape[1]
        values: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(
            self.packed[first // 2 : -(-last // 2)],
            self.scales[first // BLOCK_VALUES : -(-last // BLOCK_VALUES)],
            BLOCK_VALUES,
            "nf4",
            # In one row: bitsandbytes' own kernel for a CPU takes the wrong scales where a row ends
            # within a block.
            (1, last - first),
            self.dtype,
        )
        return values.view(-1, self.shape[1])


class TrainedWeights:
    """What became of each tensor of a base in a run that computed in `dtype`."""

    def __init__(self, base: "Base", dtype: "torch.dtype") -> None:
        """Raises SettingsError for a base that transformers' own loader quantises."""
        try:
            self._layout = weight_layout(base, dtype)
        except UnknownLayoutError as error:
            raise SettingsError(
                f"{base.name}: the NF4 values it was trained with cannot be computed from its "
                f"files ({error}); add --base-weights 16bit for its own, and try the answers"
            ) from error
        self.place = self._layout.place
        self._dtype = dtype

    def matrices(self, name: str, weight: "torch.Tensor") -> "torch.Tensor | None":
        """The matrices [N, O, I] that the tensor `name` of the files, whose values are `weight`,
        was quantised as: one, or those of all experts; None where it was not quantised."""
        place = self._layout.place(name)
        if place is None:
            return None
        if place.name in self._layout.experts:
            return weight.view(-1, *self._layout.experts[place.name].matrix_shape)
        return weight[None] if place.name in self._layout.quantised else None

    def quantised(self, weight_OI: "torch.Tensor") -> NF4Matrix:
        """One of these matrices, as it was trained on."""
        return NF4Matrix.of(weight_OI, self._dtype)

    def round(self, values: "torch.Tensor") -> "torch.Tensor":
        """`values` of a tensor that was not quantised, in the compute dtype."""
        return values.to(self._dtype)
