"""Experts of a mixture: one weight [experts, …] for all of a layer, and the matrices in it.

transformers keeps a layer's experts in one tensor, which bitsandbytes leaves in 16 bits. Here each
matrix in it is quantised as if it were a linear layer of its own, so that a checkpoint whose files
have a tensor for each becomes NF4 tensor by tensor, and is merged tensor by tensor.
"""

from dataclasses import dataclass
from typing import Any

from trainer.runtime.nf4 import BLOCK_SCALES, BLOCK_VALUES

EXPERTS_OF_A_TOKEN = ("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token")


@dataclass(frozen=True)
class ExpertLayout:
    """A weight [experts, parts * rows, columns]: `parts` matrices [rows, columns] for each expert,
    two where gate and up lie one behind the other."""

    experts: int
    parts: int
    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.experts, self.parts * self.rows, self.columns

    @property
    def matrix_shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def matrices(self) -> int:
        return self.experts * self.parts

    @property
    def values(self) -> int:
        """Of all experts."""
        return self.matrices * self.rows * self.columns

    def tensors(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """What NF4 makes of it: dtype and shape by name. The scales of a matrix fill whole blocks
        of scales, with zeros behind them."""
        values = self.rows * self.columns
        blocks = -(-values // (BLOCK_VALUES * BLOCK_SCALES))
        return {
            "packed": ("uint8", (self.matrices, values // 2)),
            "absmax": ("uint8", (self.matrices, blocks * BLOCK_SCALES)),
            "nested_absmax": ("float32", (self.matrices, blocks)),
            "offset": ("float32", (self.matrices,)),
        }


def expert_layouts(model: Any) -> dict[str, ExpertLayout]:
    """The weights of experts that NF4 is made of, by name: those of modules that transformers
    computes by an implementation that can be chosen. Where a block of NF4 would lie in two
    matrices, a weight stays as it is."""
    found = {}
    for name, module in model.named_modules():
        if not is_experts(module):
            continue
        for weight, values in module.named_parameters(recurse=False):
            if values.dim() == 3:
                layout = _layout(module, weight, values)
                if layout.rows * layout.columns % BLOCK_VALUES == 0:
                    found[f"{name}.{weight}"] = layout
    return found


def is_experts(module: Any) -> bool:
    """Whether transformers' `use_experts_implementation` made it."""
    return hasattr(module, "is_concatenated") and hasattr(module, "has_gate")


def _layout(module: Any, weight: str, values: Any) -> ExpertLayout:
    """Gate and up are stored apart by checkpoints with a tensor for each expert; where they are
    interleaved, or their rows are columns, they are one matrix."""
    is_pair = weight == "gate_up_proj" and module.is_concatenated and not module.is_transposed
    experts, rows, columns = values.shape
    parts = 2 if is_pair else 1
    return ExpertLayout(experts, parts, rows // parts, columns)


def experts_of_a_token(config: Any) -> int:
    """To how many experts a token is sent at most; 1 where the config of a language model does not
    say it."""
    asked = (getattr(config, name, None) for name in EXPERTS_OF_A_TOKEN)
    return next((max(n) if isinstance(n, list) else n for n in asked if n), 1)
