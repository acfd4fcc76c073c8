"""How the engine spends memory, and what that takes: bytes at the peak, tokens a second.

What a layer saves is counted here and made in `engine/`: tests/planner/test_memory_plan.py compares
the two, so that whoever changes what a layer saves is told to change it here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from trainer.planner.gpus import Speed
from trainer.planner.model_shape import ModelShape
from trainer.runtime.nf4 import NF4_BYTES

# Bytes of a value: 16-bit activations, float32 gradients and masters.
HALF, FULL = 2, 4
ADAPTER = FULL + HALF + 2  # value, 16-bit copy, 8-bit states
SUM = 8  # of a parameter's gradients over micro-batches, in float64
FLASH_SUM = 2  # flash attention sums the gradient of q in float32: two halves
WORKSPACE = 64 * 2**20  # cuBLAS
KERNELS, KERNEL_S = 30, 2e-6  # in one pass over a layer, and until each is up to speed
EXPERT_VALUES = 2**26  # of the experts that are dequantised at once: 128 MiB in 16 bits
MLP_KERNELS = 15  # of them in a slice of its feed-forward network
EXPERT_KERNELS = 6  # for those
MIXING_KERNELS = 50  # more of them where a layer keeps a state
MIXING_PASSES = 2, 6  # forward and backward over what is made where a layer keeps a state
EXPERT_PASSES = 12  # over what a token's experts are given and give, in one pass over a layer
ADAPTER_PASSES = 1.4  # over input and output of an adapted matrix, in one pass over a layer
HOLES = 0.8  # of one gate or up of all tokens: see `fragment_bytes`
CODE = 2**28  # of kernels, which CUDA loads when they are first started, past torch's allocator
SLOTS = 2  # for layers that come from host memory: one computes, one is on its way

# Checkpoints and run.json hold plans under these keys; the other fields' keys are their names.
KEYS = {"stored_layers": "kept_layers", "offload_embeddings": "host_ends", "base_shards": "parts"}


@dataclass(frozen=True)
class MemoryPlan:
    """How the engine spends memory.

    `stored_layers`, counted from the last, store what their backward pass needs; the others save
    their input (and, with `keep_attention`, its output) and compute the rest again. `offload`
    moves what those save to host memory. `mlp_rows` and `logit_rows` are how many tokens go
    through a feed-forward network and through the head at a time. `offload_embeddings` holds the
    embedding, of which a micro-batch reads a few rows, and the head, needed for a moment, in pinned
    host memory. `unpacked_layers`, counted from the first, hold their NF4 weights in the compute
    dtype too: the same numbers, without dequantising them twice a micro-batch. `graph` captures
    both passes as CUDA graphs, so that starting kernels takes no time; all experts of a layer are
    dequantised at once then, else a few. `base_shards` is how many
    workers hold the base together, each its shard and at most two whole layers. `hosted_layers`,
    evenly among all, lie in host memory and come when they are used, to SLOTS on the GPU; `on_disk`
    they lie in a file, of which host memory holds what nothing else needs.
    """

    stored_layers: int
    keep_attention: bool = False
    offload: bool = False
    mlp_rows: int = 16384
    logit_rows: int = 2048
    offload_embeddings: bool = False
    unpacked_layers: int = 0
    graph: bool = False
    base_shards: int = 1
    hosted_layers: int = 0
    on_disk: bool = False

    @property
    def base_is_resident(self) -> bool:
        """Whether this worker's GPU holds all of the base, all the time."""
        return self.base_shards == 1 and not self.hosted_layers

    def to_json(self) -> dict[str, Any]:
        return {KEYS.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "MemoryPlan":
        """What `to_json` gave, now or in an earlier release. TypeError for an unknown key."""
        names = {key: name for name, key in KEYS.items()}
        return cls(**{names.get(key, key): value for key, value in stored.items()})


def leaner_plan(plan: MemoryPlan) -> MemoryPlan | None:
    """The next plan to try when memory ran out at run time; None below the leanest, and where
    workers hold the base together: what one of them does again the others do not."""
    if plan.base_shards > 1:
        return None
    if plan.unpacked_layers:
        return replace(plan, unpacked_layers=0, graph=False)
    if plan.stored_layers:
        return replace(plan, stored_layers=plan.stored_layers // 2, graph=False)
    leanest = replace(plan, offload=True, offload_embeddings=True, mlp_rows=1024, logit_rows=256)
    return None if plan == leanest else leanest


def stored_layer_bytes(shape: ModelShape, tokens: int) -> int:
    """What a layer that computes nothing again leaves to its backward pass.

    Its input, the middle of its residual stream, q and the attention's output, k and v, gate and
    up; what a norm behind attention and feed-forward network is given, and one of heads; the
    log-sum-exp of the attention in float32.
    """
    mixed = shape.mixed or 2 * (shape.q + shape.kv)
    values = mixed + 2 * shape.intermediate + shape.normed_outputs * shape.hidden
    values += shape.normed_heads * (shape.q + shape.kv)
    stream = shape.stream_bytes * 2 * shape.hidden
    return tokens * (stream + HALF * values + FULL * shape.heads)


def recomputed_layer_bytes(shape: ModelShape, plan: MemoryPlan, tokens: int) -> int:
    """The same of a layer that is computed again: its input and, with `keep_attention`, the
    attention's output. In host memory where the plan offloads."""
    attended = HALF * shape.q if plan.keep_attention else 0
    return tokens * (shape.stream_bytes * shape.hidden + attended)


def host_bytes(shape: ModelShape, plan: MemoryPlan, tokens: int) -> int:
    """Pinned host memory of a plan that offloads, or whose base does not lie on the GPU. But for
    the base torch's allocator gives it out, in powers of two."""
    tables = shape.embedding_parameters // (shape.vocabulary * shape.hidden)
    table = _power_of_2(HALF * shape.vocabulary * shape.hidden) if plan.offload_embeddings else 0
    widths = [shape.stream_bytes * shape.hidden, *([HALF * shape.q] if plan.keep_attention else [])]
    activations = sum(_power_of_2(tokens * width) for width in widths)
    recomputed = shape.layers - plan.stored_layers if plan.offload else 0
    hosted = int(plan.hosted_layers * layer_bytes(shape))
    if plan.on_disk:  # what the file is read into
        hosted = min(SLOTS, plan.hosted_layers) * _power_of_2(int(layer_bytes(shape)))
    return recomputed * activations + tables * table + hosted


def disk_bytes(shape: ModelShape, plan: MemoryPlan) -> int:
    """Of the scratch disk, for layers that lie there."""
    return int(plan.hosted_layers * layer_bytes(shape)) if plan.on_disk else 0


def _power_of_2(size: int) -> int:
    return 1 << (size - 1).bit_length()


def layer_bytes(shape: ModelShape) -> float:
    """The NF4 weights of one layer."""
    return shape.linear_parameters * NF4_BYTES / shape.layers


def peak_bytes(
    shape: ModelShape,
    plan: MemoryPlan,
    blocks: int,
    block_tokens: int,
    trainable: int,
    *,
    summed: bool = True,
) -> int:
    """Bytes allocated at the highest point of a step; gradients are `summed` where it is no single
    micro-batch.

    Within 5 % of what an H200 measured for models of 7B to 70B, see the tests.
    """
    adapter = trainable * (ADAPTER + (SUM if summed else 0))
    fixed = _weight_bytes(shape, plan) + adapter + shape.largest_matrix * HALF + WORKSPACE
    at_the_end = 2 * FULL * trainable  # gradients, one by one and joined
    return int(fixed + max(at_the_end, *_activation_peaks(shape, plan, blocks * block_tokens)))


def fragment_bytes(shape: ModelShape, plan: MemoryPlan, tokens: int) -> int:
    """Bytes that torch's allocator has taken beside those at the peak and cannot give out.

    What a feed-forward network has freed is filled with what the layers save that are computed
    again; where they do not fill it, the rest is lost. What was seen of that stands in
    docs/measurements/0029-larger-than-the-gpu.md.
    """
    freed = HALF * min(tokens, plan.mlp_rows) * shape.intermediate
    saved = recomputed_layer_bytes(shape, plan, tokens)
    recomputed = 0 if plan.offload else shape.layers - plan.stored_layers
    filled = freed // saved * saved
    lost = recomputed * saved / filled * (freed - filled) if filled else 0
    return int(lost + HOLES * freed)


def loading_bytes(shape: ModelShape, plan: MemoryPlan) -> int:
    """Bytes allocated while the base is loaded: embedding and head come to the GPU first, the last
    of them in two dtypes for a moment."""
    placed = _weight_bytes(shape, replace(plan, offload_embeddings=False, unpacked_layers=0))
    arriving = max(shape.largest_matrix, shape.vocabulary * shape.hidden)
    return int(placed + HALF * arriving)


def _weight_bytes(shape: ModelShape, plan: MemoryPlan) -> float:
    """The base on this worker, and what it holds unpacked."""
    shards, layers = plan.base_shards, shape.layers
    share = min(1, 1 / shards + (2 / layers if shards > 1 else 0))
    if plan.hosted_layers:
        share = 1 - (plan.hosted_layers - SLOTS) / layers
    weights = shape.linear_parameters * NF4_BYTES * share + shape.other_parameters * HALF
    weights += shape.expert_parameters * NF4_BYTES
    weights += shape.linear_parameters * HALF * plan.unpacked_layers / layers
    if plan.offload_embeddings:
        weights -= shape.embedding_parameters * HALF
    return weights


def _activation_peaks(shape: ModelShape, plan: MemoryPlan, tokens: int) -> Iterator[int]:
    """Bytes of activations and gradients where they may be highest: at the head, in the last
    stored layer, in the last one that is computed again."""
    recomputed = shape.layers - plan.stored_layers
    saved_below = 0 if plan.offload else recomputed * recomputed_layer_bytes(shape, plan, tokens)
    saved = plan.stored_layers * stored_layer_bytes(shape, tokens) + saved_below

    wide = shape.stream_bytes + HALF  # of a value of the stream, and one beside it
    head = tokens * wide * shape.hidden
    head += HALF * min(tokens, plan.logit_rows) * shape.vocabulary
    if plan.offload_embeddings:
        head += HALF * shape.vocabulary * shape.hidden
    yield saved + head
    if plan.stored_layers:
        working = HALF * shape.intermediate + 2 * wide * shape.hidden
        yield saved + tokens * (working + FULL * shape.mixing) + _routed_bytes(shape, plan, tokens)
    if recomputed:
        yield saved_below + _recomputing_bytes(shape, plan, tokens)


def _recomputing_bytes(shape: ModelShape, plan: MemoryPlan, tokens: int) -> int:
    """While one layer is computed again, what it and the transfers beside it take."""
    stream, q, kv = shape.stream_bytes * shape.hidden, shape.q, shape.kv
    # On the way to the host or back at one time: three inputs, two outputs of attention.
    in_flight = 3 * stream + (HALF * 2 * q if plan.keep_attention else 0)
    moving = tokens * in_flight if plan.offload else 0
    beside = HALF * shape.hidden
    rows = min(tokens, plan.mlp_rows)
    mlp = rows * (HALF * 3 * shape.intermediate + stream + beside) + _routed_bytes(
        shape, plan, rows
    )
    forward = tokens * (HALF * (2 * q + 2 * kv) + 2 * (stream + beside)) + mlp
    forward += tokens * FULL * shape.mixing
    attention_backward = tokens * (HALF * ((3 + FLASH_SUM) * q + 4 * kv) + stream + beside)
    return moving + max(forward, attention_backward)


def _routed_bytes(shape: ModelShape, plan: MemoryPlan, tokens: int) -> int:
    """Beside that, in a mixture: what its experts are given, give, and give sorted by token; gate
    and up once more; the experts that are dequantised at once."""
    if not shape.expert_parameters:
        return 0
    rows = 3 * shape.experts_of_a_token * shape.hidden + 2 * shape.intermediate
    gate_up = 2 * shape.expert_parameters // (3 * shape.layers)  # of all experts of a layer
    return HALF * (tokens * rows + (gate_up if plan.graph else EXPERT_VALUES))


def weight_bytes(shape: ModelShape) -> float:
    """The base, held whole and packed."""
    return shape.quantised_parameters * NF4_BYTES + shape.other_parameters * HALF


def tokens_per_s(
    shape: ModelShape,
    plan: MemoryPlan,
    blocks: int,
    block_tokens: int,
    speed: Speed,
    adapter_width: int = 0,
) -> float:
    """Products at the GPU's rate; dequantising and element-wise work at its bandwidth; filling and
    draining the GPU for each kernel. Beside that, in each of the two passes, layers that come from
    host memory and, without a graph, the starting of each kernel. A token is multiplied with its
    experts; all of them are dequantised, for some token of a micro-batch, and read as 16 bits,
    for each has a few tokens. `adapter_width` is the
    sum of inputs and outputs of all matrices that have an adapter."""
    tokens, layers = blocks * block_tokens, shape.layers
    recomputed = (layers - plan.stored_layers) / layers
    down = layers * shape.intermediate * shape.hidden  # a recomputed layer leaves this product out
    down = 0 if shape.normed_outputs else down  # unless a norm follows
    linear = shape.linear_parameters + shape.active_parameters
    once = tokens * 2 * (linear + shape.vocabulary * shape.hidden)
    # Causal attention looks at half of a block: 2 products forward, 5 backward, 2 again.
    attention = 2 * tokens * block_tokens / 2 * layers * shape.q
    again = 0 if plan.keep_attention else 2 * recomputed
    flops = (
        once + 2 * attention,
        once + recomputed * tokens * 2 * (linear - down) + (5 + again) * attention,
    )
    mlp = 3 * layers * shape.hidden * shape.intermediate
    slices = recomputed * (-(-tokens // plan.mlp_rows) - 1)  # more than one
    seconds = 0.0
    for number, passes in enumerate((1, 1 + recomputed)):
        sliced = slices * (1 + number)
        unpacked = passes * shape.linear_parameters + sliced * mlp
        unpacked *= (1 - plan.unpacked_layers / layers) * (NF4_BYTES + HALF)
        unpacked += passes * shape.expert_parameters * (NF4_BYTES + 1.5 * HALF)
        sent = EXPERT_PASSES * shape.experts_of_a_token * shape.hidden
        moved = layers * (14 * shape.hidden + 3 * shape.intermediate + sent)
        moved_bytes = passes * tokens * HALF * (moved + ADAPTER_PASSES * adapter_width)
        moved_bytes += layers * tokens * FULL * MIXING_PASSES[number] * shape.mixing
        of_a_layer = KERNELS + 4 * shape.normed_heads + (MIXING_KERNELS if shape.mixing else 0)
        kernels = layers * (passes * of_a_layer + sliced * MLP_KERNELS)
        if not plan.graph:
            kernels += passes * EXPERT_KERNELS * shape.expert_parameters / EXPERT_VALUES
        work = flops[number] / speed.flops + (unpacked + moved_bytes) / speed.bytes_per_s
        starting = 0 if plan.graph else kernels * speed.launch_s
        transfer = _transferred(shape, plan, tokens)[number] / speed.bus_bytes_per_s
        reading = disk_bytes(shape, plan) / speed.disk_bytes_per_s
        seconds += max(work + kernels * KERNEL_S, starting, transfer, reading)
    return tokens / seconds


def _transferred(shape: ModelShape, plan: MemoryPlan, tokens: int) -> tuple[float, float]:
    """Bytes from or to the host in a forward and in a backward pass of a micro-batch: each hosted
    layer, and the activations of an offloading plan, which go the other way first."""
    recomputed = shape.layers - plan.stored_layers if plan.offload else 0
    activations = recomputed * recomputed_layer_bytes(shape, plan, tokens)
    layers = plan.hosted_layers * layer_bytes(shape)
    return max(layers, activations), layers + activations
