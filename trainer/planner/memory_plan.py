"""A plan, how the engine spends memory, and what it takes: bytes and tokens a second.

The accounting mirrors `engine/` buffer by buffer: whoever changes what a layer saves changes it
here.
"""

from dataclasses import dataclass
from typing import Any

from trainer.planner.gpus import Speed
from trainer.runtime.nf4 import NF4_BYTES

# Bytes of a value: 16-bit activations, float32 gradients and masters.
HALF, FULL = 2, 4
ADAPTER = 2 * FULL + HALF + 2 + 8  # value, gradient, 16-bit copy, 8-bit states, float64 sum
FLASH_SUM = 2  # flash attention sums the gradient of q in float32: two halves
WORKSPACE = 64 * 2**20  # cuBLAS
KERNELS, KERNEL_S = 30, 2e-6  # in one pass over a layer, and until each is up to speed


@dataclass(frozen=True)
class MemoryPlan:
    """How the engine spends memory.

    `kept_layers`, counted from the last, keep what their backward pass needs; the others save
    their input (and, with `keep_attention`, its output) and compute the rest again. `offload`
    moves what those save to host memory. `mlp_rows` and `logit_rows` are how many tokens go
    through a feed-forward network and through the head at a time. `host_ends` keeps the embedding,
    of which a micro-batch reads a few rows, and the head, needed for a moment, in pinned host
    memory. `unpacked_layers`, counted from the first, hold their NF4 weights in the compute dtype
    too: the same numbers, without dequantising them twice a micro-batch. `graph` captures both
    passes as CUDA graphs, so that starting kernels takes no time. `parts` is how many workers hold
    the base together, each its part and at most two whole layers.
    """

    kept_layers: int
    keep_attention: bool = False
    offload: bool = False
    mlp_rows: int = 16384
    logit_rows: int = 2048
    host_ends: bool = False
    unpacked_layers: int = 0
    graph: bool = False
    parts: int = 1


def host_bytes(shape: Any, plan: MemoryPlan, tokens: int) -> int:
    """Pinned host memory of a plan that offloads."""
    width = shape.hidden + (shape.q if plan.keep_attention else 0)
    ends = shape.ends_parameters if plan.host_ends else 0
    dropped = shape.layers - plan.kept_layers if plan.offload else 0
    return int(HALF * (dropped * tokens * width + ends))


def peak_bytes(shape: Any, plan: MemoryPlan, blocks: int, block_tokens: int, trainable: int) -> int:
    """Bytes allocated at the highest point of a step.

    Within 5 % of what an H200 measured for Llama-2-7B at 512 to 32,768 tokens, see the tests.
    """
    s, tokens = shape, blocks * block_tokens
    dropped = s.layers - plan.kept_layers
    in_layers = min(1, 1 / plan.parts + (2 / s.layers if plan.parts > 1 else 0))
    weights = s.linear_parameters * NF4_BYTES * in_layers + s.other_parameters * HALF
    weights += s.linear_parameters * HALF * plan.unpacked_layers / s.layers
    if plan.host_ends:
        weights -= s.ends_parameters * HALF
    fixed = weights + trainable * ADAPTER + s.widest * HALF + WORKSPACE

    # Saved from the forward to the backward pass: input, middle, q, out, k, v, gate, up.
    kept = tokens * (HALF * 2 * (s.hidden + s.q + s.kv + s.intermediate) + FULL * s.heads)
    width = s.hidden + (s.q if plan.keep_attention else 0)
    inputs = tokens * HALF * width
    below = 0 if plan.offload else dropped * inputs
    # On the way to the host or back at one time: three inputs, two outputs of attention.
    in_flight = 3 * s.hidden + (2 * s.q if plan.keep_attention else 0)
    moving = tokens * HALF * in_flight if plan.offload else 0

    rows = min(tokens, plan.mlp_rows)
    mlp = HALF * rows * (3 * s.intermediate + 2 * s.hidden)
    attention = HALF * tokens * ((3 + FLASH_SUM) * s.q + 4 * s.kv + 2 * s.hidden)
    again = HALF * tokens * (2 * s.q + 2 * s.kv + 4 * s.hidden) + mlp
    head = HALF * (tokens * 2 * s.hidden + min(tokens, plan.logit_rows) * s.vocabulary)
    if plan.host_ends:
        head += HALF * s.vocabulary * s.hidden
    last_kept = HALF * tokens * (s.intermediate + 4 * s.hidden)

    saved = plan.kept_layers * kept + below
    points = [saved + head]
    if plan.kept_layers:
        points.append(saved + last_kept)
    if dropped:
        points.append(below + moving + max(again, attention))
    return int(fixed + max(points))


def stock_peak_bytes(shape: Any, *, trainable: int, tokens: int) -> int:
    """The same for the stock path with every layer recomputed: one hidden state kept for each
    layer, one layer's working set, float32 logits."""
    weights = shape.linear_parameters * NF4_BYTES + shape.other_parameters * HALF
    kept = shape.layers * shape.hidden * HALF
    working = HALF * (16 * shape.hidden + 4 * shape.intermediate) + FULL * shape.vocabulary
    return int(weights + trainable * (2 * FULL + 2) + tokens * (kept + working))


def tokens_per_s(
    shape: Any, plan: MemoryPlan, blocks: int, block_tokens: int, speed: Speed
) -> float:
    """Products at the GPU's rate; dequantising and element-wise work at its bandwidth; filling and
    draining the GPU for each kernel."""
    s, tokens = shape, blocks * block_tokens
    dropped = (s.layers - plan.kept_layers) / s.layers
    down = s.layers * s.intermediate * s.hidden  # a recomputed layer leaves this product out
    flops = tokens * 4 * (s.linear_parameters + s.vocabulary * s.hidden)
    flops += dropped * tokens * 2 * (s.linear_parameters - down)
    # Causal attention looks at half of a block: 2 products forward, 5 backward, 2 again.
    again = 0 if plan.keep_attention else 2 * dropped
    flops += (7 + again) * 2 * tokens * block_tokens / 2 * s.layers * s.q
    packed = 1 - plan.unpacked_layers / s.layers
    unpacked = (2 + dropped) * packed * s.linear_parameters * (NF4_BYTES + HALF)
    moved = (2 + dropped) * tokens * s.layers * HALF * (14 * s.hidden + 3 * s.intermediate)
    kernels = (2 + dropped) * s.layers * KERNELS * KERNEL_S
    return float(tokens / (flops / speed.flops + (unpacked + moved) / speed.bytes_per_s + kernels))
