"""How many answers are made together, and how many layers hold their weights unpacked for it."""

import math
from dataclasses import dataclass

from trainer.planner.choose import SPARE
from trainer.planner.gpus import Speed
from trainer.planner.memory_plan import (
    HALF,
    KERNEL_S,
    SLOTS,
    WORKSPACE,
    layer_bytes,
    weight_bytes,
)
from trainer.planner.model_shape import ModelShape
from trainer.runtime.device import GIB, Device
from trainer.runtime.nf4 import NF4_BYTES

MOST_ROWS = 256  # from there on a step of an H200 takes longer for each row more
CPU_TOKENS = 4096  # in all rows of a CPU, which gains little from more
CPU_ROWS = 8  # but so many rows, however long, where memory holds them: most stay short of it
PROMPT_TOKENS = 4096  # read together, unless one prompt alone has more
MLP_ROWS = 2048  # of them that go through a feed-forward network together
ROOM_TO_ANSWER = GIB  # beside weights: some rows of cache, and prompts while they are read
STEP_KERNELS = 13  # in a layer
WIDE_MEMORY = ((8, 0), (9, 0), (10, 0), (10, 3))  # HBM: reads unpacked weights fast enough


@dataclass(frozen=True)
class DecodingNeeds:
    """What answering takes, in bytes: a `row` of the cache, a `layer` whose weights are unpacked,
    and what prompts take while they are read."""

    row: int
    layer: int
    layers: int
    prompts: int

    @classmethod
    def of(
        cls,
        *,
        layers: int,
        hidden: int,
        intermediate: int,
        vocabulary: int,
        kv: int,
        layer_parameters: int,
        row_tokens: int,
        value_bytes: int,
    ) -> "DecodingNeeds":
        """Of a decoder of these sizes whose values have `value_bytes`."""
        tokens = max(PROMPT_TOKENS, row_tokens)
        prompts = tokens * 8 * hidden + min(tokens, MLP_ROWS) * 3 * intermediate
        return cls(
            row=2 * layers * kv * row_tokens * value_bytes,
            layer=layer_parameters * value_bytes,
            layers=layers,
            prompts=value_bytes * (prompts + MOST_ROWS * vocabulary),
        )


@dataclass(frozen=True)
class DecodingPlan:
    """`rows` answers together. `unpacked_layers`, counted from the first, hold their NF4 weights in
    the compute dtype too; products of the others with at most `fused_rows` rows read them as they
    are."""

    rows: int
    unpacked_layers: int
    fused_rows: int


def choose_decoding(
    needs: DecodingNeeds,
    *,
    questions: int,
    row_tokens: int,
    free_bytes: int,
    capability: tuple[int, int] | None,
    resident: bool = True,
) -> DecodingPlan:
    """For so many questions whose rows have `row_tokens`. Rows take at most half of what is free;
    what they leave is for weights, where those are faster unpacked. `capability` is None on a CPU.
    A base that is not `resident` comes anew for each token, however many rows have one.
    """
    fused = fused_rows(capability)
    spare = max(0, int(free_bytes / (1 + SPARE)) - WORKSPACE - needs.prompts)
    most = spare // 2 // needs.row
    if capability is None:
        most = max(CPU_TOKENS // row_tokens, min(most, CPU_ROWS))
    # A T4's fused product ends where it would have to unpack everything in each step.
    most = min(most, fused if capability == (7, 5) and resident else MOST_ROWS, questions)
    rows = max(1, most)
    if not resident or (rows <= fused and capability not in WIDE_MEMORY):
        return DecodingPlan(rows, 0, fused)
    unpacked = (spare - rows * needs.row) // needs.layer
    return DecodingPlan(rows, min(max(unpacked, 0), needs.layers), fused)


def hosted_to_answer(shape: ModelShape, device: Device) -> int:
    """Layers of the base that have to lie in host memory for anything to be answered at all."""
    beside = shape.largest_matrix * HALF + ROOM_TO_ANSWER
    too_many = math.ceil((weight_bytes(shape) + beside - device.free_bytes) / layer_bytes(shape))
    return min(too_many + SLOTS, shape.layers) if too_many > 0 else 0


def fused_rows(capability: tuple[int, int] | None) -> int:
    """Up to how many rows bitsandbytes' 4-bit product beats unpacking, cautiously, from its own
    table: GPUs with little bandwidth gain most. None on a CPU, where it unpacks itself."""
    if capability is None:
        return 0
    if capability == (7, 5):
        return 64
    return 4 if capability in WIDE_MEMORY else 16


def answered_tokens_per_s(
    shape: ModelShape, plan: DecodingPlan, row_tokens: float, speed: Speed, hosted_layers: int = 0
) -> float:
    """Tokens/s of steps whose rows have `row_tokens` on average: everything that a step reads, at
    the GPU's bandwidth, or its products at its rate; and the start of each kernel. Beside that,
    `hosted_layers` come from host memory.

    Predicted, from the same figures as training's speed.
    """
    layers, packed = shape.layers, 1 - plan.unpacked_layers / shape.layers
    linear = shape.linear_parameters
    moved = linear * (1 - packed) * HALF + linear * packed * NF4_BYTES
    if plan.rows > plan.fused_rows:  # what is packed is written and read again
        moved += linear * packed * 2 * HALF
    moved += shape.vocabulary * shape.hidden * HALF
    moved += plan.rows * row_tokens * 2 * shape.kv * layers * HALF
    moved += plan.rows * layers * HALF * (14 * shape.hidden + 3 * shape.intermediate)
    flops = 2 * plan.rows * (linear + shape.vocabulary * shape.hidden)
    seconds = max(moved / speed.bytes_per_s, flops / speed.flops) + layers * STEP_KERNELS * KERNEL_S
    transfer_s = hosted_layers * layer_bytes(shape) / speed.bus_bytes_per_s
    return plan.rows / max(seconds, transfer_s)
