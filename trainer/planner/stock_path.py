"""What trl, peft and bitsandbytes take where our engine does not train: every layer recomputed.

Counted of what lives at once by torch's own fake tensors at real sizes, which was within 2 % of
what an H200 measured (docs/measurements/0024-models.md).
"""

from trainer.planner.gpus import Speed
from trainer.planner.memory_plan import (
    EXPERT_KERNELS,
    EXPERT_VALUES,
    FULL,
    HALF,
    WORKSPACE,
    MemoryPlan,
    tokens_per_s,
    weight_bytes,
)
from trainer.planner.model_shape import ModelShape

# Bytes for a token, of what a layer that is computed again holds when its backward pass begins: of
# each value of the hidden state, of q, of gate, and of each score where all are made.
HIDDEN, QUERY, GATE, SCORE = 32, 8, 14, 6
ROUTED, ROUTED_GATE = 4, 16  # the same of an expert
HEAD_TOKENS, HEAD_WORDS = 4096, 32768  # logits that trl makes at once

# A share of the lean engine's rate (docs/measurements/0011-engine.md); kernels in a step over a
# layer, beside those for norms of heads and behind branches, and for a delta rule
# (docs/measurements/0024-models.md).
STOCK_SHARE = 0.5
STOCK_KERNELS, NORM_KERNELS, DELTA_KERNELS = 220, 60, 470


def stock_peak_bytes(shape: ModelShape, *, trainable: int, tokens: int, block_tokens: int) -> int:
    """Bytes allocated at the highest point of a step with so many `tokens` at a time, in blocks.

    One hidden state is saved for each layer; beside that the highest of one layer and of the head,
    whose logits are never whole.
    """
    fixed = weight_bytes(shape) + trainable * (2 * FULL + 2) + WORKSPACE
    fixed += HALF * (2 * EXPERT_VALUES if shape.expert_parameters else shape.largest_matrix)
    saved = shape.layers * shape.hidden * shape.stream_bytes
    logits = HALF * min(tokens, HEAD_TOKENS) * HEAD_WORDS
    head = tokens * 2 * (FULL + HALF) * shape.hidden + logits
    layer = tokens * _layer_bytes(shape, block_tokens)
    return int(fixed + tokens * saved + max(head, layer))


def _layer_bytes(shape: ModelShape, block_tokens: int) -> float:
    """For a token, while a layer is computed again."""
    routed = shape.experts_of_a_token * shape.hidden
    gates = shape.active_parameters / (3 * shape.layers * shape.hidden)
    feed_forward = max(GATE * shape.intermediate, ROUTED * routed + ROUTED_GATE * gates)
    scores = SCORE * shape.heads * block_tokens if shape.whole_scores else 0
    # Where the stream is float32, all is that is no product.
    values = HIDDEN * shape.hidden + feed_forward + FULL * shape.mixing
    return values * shape.stream_bytes / HALF + QUERY * shape.q + scores


def stock_tokens_per_s(shape: ModelShape, blocks: int, block_tokens: int, speed: Speed) -> float:
    """The same mathematics by trl and bitsandbytes: STOCK_SHARE of the engine's rate, but no faster
    than a step's kernels are started."""
    layer = STOCK_KERNELS + NORM_KERNELS * (shape.normed_outputs + shape.normed_heads)
    layer += DELTA_KERNELS if shape.mixing else 0
    experts = 3 * EXPERT_KERNELS * shape.expert_parameters / EXPERT_VALUES
    starting = (shape.layers * layer + experts) * speed.launch_s
    rate = STOCK_SHARE * tokens_per_s(shape, MemoryPlan(0), blocks, block_tokens, speed)
    return blocks * block_tokens / max(blocks * block_tokens / rate, starting)
