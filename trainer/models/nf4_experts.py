"""The experts of a mixture in NF4, and their products: a few are dequantised at a time.

transformers asks a registered function for the experts' forward pass; ours is its `grouped_mm` with
weights that exist in the compute dtype only while they are multiplied with, forward and backward.
"""

from collections.abc import Iterator, Mapping
from itertools import accumulate, pairwise
from typing import Any

import torch

from trainer.kernels._triton import triton
from trainer.kernels.dequantise import fused_matrices
from trainer.models.experts import ExpertLayout, is_experts
from trainer.planner.gpus import multiplies_unasked
from trainer.planner.memory_plan import EXPERT_VALUES
from trainer.runtime.nf4 import BLOCK_SCALES, BLOCK_VALUES

IMPLEMENTATION = "nf4"


class NF4Experts(torch.nn.Module):
    """A frozen weight of all experts of a layer, in the place of the parameter of that name."""

    packed: torch.Tensor
    absmax: torch.Tensor
    nested_absmax: torch.Tensor
    offset: torch.Tensor
    scale_values: torch.Tensor
    nf4_values: torch.Tensor

    def __init__(
        self, layout: ExpertLayout, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype
    ) -> None:
        """`tensors` as `layout.tensors()` describes them; dequantised to `dtype`."""
        from bitsandbytes.functional import create_dynamic_map, get_4bit_type

        super().__init__()
        self.layout, self.dtype = layout, dtype
        for name in layout.tensors():
            self.register_buffer(name, tensors[name])
        scale_values = create_dynamic_map().to(self.packed.device)
        self.register_buffer("scale_values", scale_values, persistent=False)
        nf4_values = get_4bit_type("nf4", device=self.packed.device)
        self.register_buffer("nf4_values", nf4_values, persistent=False)

    def scales(self) -> torch.Tensor:
        """Of each block of values, [matrices, blocks], float32; zeros may lie behind them."""
        scales: torch.Tensor = torch.ops.bitsandbytes.dequantize_blockwise.default(
            self.absmax.view(-1),
            self.nested_absmax.view(-1),
            self.scale_values,
            BLOCK_SCALES,
            torch.float32,
        )
        return scales.view(self.absmax.shape) + self.offset[:, None]

    def weights(self, first: int, experts: int, scales: torch.Tensor | None) -> torch.Tensor:
        """The weights of so many experts [experts, parts * rows, columns] in the compute dtype, by
        their `scales` or, without, by our own kernel."""
        layout = self.layout
        matrices = slice(first * layout.parts, (first + experts) * layout.parts)
        if scales is None:
            shape = experts * layout.parts, *layout.matrix_shape
            out = torch.empty(shape, dtype=self.dtype, device=self.packed.device)
            whole = fused_matrices(
                self.packed[matrices],
                self.absmax[matrices],
                self.scale_values,
                self.nested_absmax[matrices],
                self.offset[matrices],
                self.nf4_values,
                out,
            )
            return whole.view(experts, *layout.shape[1:])
        blocks = layout.rows * layout.columns // BLOCK_VALUES  # of a matrix
        made: torch.Tensor = torch.ops.bitsandbytes.dequantize_4bit.default(
            self.packed[matrices].view(-1, 1),
            scales[matrices, :blocks].reshape(-1),
            BLOCK_VALUES,
            "nf4",
            (1, 2 * self.packed[matrices].numel()),  # in one row: see NF4Matrix.rows
            self.dtype,
        )
        return made.view(experts, *layout.shape[1:])


class _Products(torch.autograd.Function):
    """Rows x_SI, sorted by expert, times the weight of their expert. Nothing is saved but how many
    rows each expert has: the weights are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x_SI: torch.Tensor, experts: NF4Experts, counts: list[int], is_transposed: bool
    ) -> torch.Tensor:
        ctx.given = experts, counts, is_transposed
        return multiplied(x_SI, experts, counts, by_columns=not is_transposed)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        experts, counts, is_transposed = ctx.given
        (gradient_SO,) = gradients
        made = multiplied(gradient_SO, experts, counts, by_columns=is_transposed)
        return made, None, None, None


def multiplied(
    x: torch.Tensor, experts: NF4Experts, counts: list[int] | torch.Tensor, *, by_columns: bool
) -> torch.Tensor:
    """Rows of x, so many for each expert, times its weight [R, C]: x @ W.T with `by_columns`, else
    x @ W. Where `counts` is a tensor, int32 of where the rows of each expert end, the CPU need not
    know them: all experts are dequantised at once."""
    _, rows, columns = experts.layout.shape
    has_kernel = x.device.type == "cuda" and triton is not None
    scales = None if has_kernel else experts.scales()
    if isinstance(counts, torch.Tensor):
        whole = experts.weights(0, experts.layout.experts, scales)
        right = whole.mT if by_columns else whole
        return torch.nn.functional.grouped_mm(x, right, offs=counts)
    out = x.new_empty(len(x), rows if by_columns else columns)
    ends = torch.tensor([*accumulate(counts, initial=0)], dtype=torch.int32, device=x.device)
    for first, parts in _together(counts, experts.layout):
        weights = experts.weights(first, len(parts), scales)
        right = weights.mT if by_columns else weights
        if _has_grouped(x):
            span = slice(parts[0].start, parts[-1].stop)
            behind = ends[first + 1 : first + 1 + len(parts)] - ends[first]
            out[span] = torch.nn.functional.grouped_mm(x[span], right, offs=behind)
            continue
        for weight, part in zip(right, parts, strict=True):
            if part.stop > part.start:
                torch.mm(x[part], weight, out=out[part])
    return out


def _has_grouped(x: torch.Tensor) -> bool:
    """One kernel for the products of many experts; where torch has none it loops, and waits."""
    if x.device.type != "cuda":
        return False
    precision = "bf16" if x.dtype == torch.bfloat16 else ""
    return multiplies_unasked(torch.cuda.get_device_capability(x.device), precision)


def _together(counts: list[int], layout: ExpertLayout) -> Iterator[tuple[int, list[slice]]]:
    """The first of some experts that are dequantised at once, and which rows are whose; of those
    before and behind that have any."""
    ends = list(accumulate(counts, initial=0))
    parts = [slice(*bounds) for bounds in pairwise(ends)]
    most = max(1, EXPERT_VALUES // (layout.values // layout.experts))
    for first in range(0, len(parts), most):
        some = parts[first : first + most]
        asked = [n for n, part in enumerate(some) if part.stop > part.start]
        if asked:
            yield first + asked[0], some[asked[0] : asked[-1] + 1]


def experts_forward(
    self: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """What the experts `top_k_index` [T, K] say of `hidden_states` [T, H], weighed and summed.

    `self` is a module of experts of transformers, whose signature this is.
    """
    first = "gate_up_proj" if self.has_gate else "up_proj"
    chosen, order = torch.sort(top_k_index.reshape(-1))
    counts = torch.bincount(chosen, minlength=self.num_experts).tolist()

    def product(x: torch.Tensor, name: str) -> torch.Tensor:
        weight = getattr(self, name)
        made: torch.Tensor = _Products.apply(  # type: ignore[no-untyped-call]
            x.to(weight.dtype), weight, counts, self.is_transposed
        )
        return made + getattr(self, f"{name}_bias")[chosen] if self.has_bias else made

    x = product(hidden_states[order // top_k_index.shape[1]], first)
    x = self._apply_gate(x) if self.has_gate else self.act_fn(x)
    x = product(x, "down_proj")
    if self.has_post_expert_norm:
        x = self.post_expert_norm(x)
    weighted = x * top_k_weights.reshape(-1)[order, None]
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    summed = weighted[back].view(*top_k_index.shape, -1).sum(dim=1)
    return summed.to(hidden_states.dtype)


def put_experts(
    model: Any,
    layouts: Mapping[str, ExpertLayout],
    tensors: Mapping[str, torch.Tensor],
    dtype: torch.dtype,
) -> None:
    """Let `model` compute with experts in NF4: `tensors` has what their layouts describe, each
    below the name of the weight that it stands for."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    if not layouts:
        return
    for name, layout in layouts.items():
        parent, _, weight = name.rpartition(".")
        module = model.get_submodule(parent)
        assert is_experts(module), name
        del module._parameters[weight]
        parts = {part: tensors[f"{name}.{part}"] for part in layout.tensors()}
        module.add_module(weight, NF4Experts(layout, parts, dtype))
    ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, experts_forward)
    model.set_experts_implementation(IMPLEMENTATION)
