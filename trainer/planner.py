"""How to spend the memory of a device: micro-batch, layers that keep activations, chunks.

Everything follows from the model's sizes and the bytes that are free; nothing is tried out. The
accounting mirrors `engine/` buffer by buffer: whoever changes what a layer saves changes it here.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from trainer.device import GIB, NF4_BYTES, Device
from trainer.errors import DoesNotFitError
from trainer.log import figures

log = logging.getLogger(__name__)

# Bytes of a value: 16-bit activations, float32 gradients and masters.
HALF, FULL = 2, 4
ADAPTER = 2 * FULL + HALF + 2 + 8  # value, gradient, 16-bit copy, 8-bit states, float64 sum
FLASH_SUM = 2  # flash attention sums the gradient of q in float32: two halves
WORKSPACE = 64 * 2**20  # cuBLAS
SLACK = 0.03  # what the allocator's fragments take beside what is counted
SPARE = 0.08  # the same and a reserve, where memory is spent on speed alone
GRAPHS = 0.15  # the same where CUDA graphs have memory of their own
KERNELS, KERNEL_S = 30, 2e-6  # in one pass over a layer, and until each is up to speed
LONG = 2048  # tokens from which attention costs more than moving its output to the host and back
CPU_MICRO_BATCH = 8  # blocks: enough to share one dequantisation among many tokens
CPU_UNPACKED_BYTES = 2**30  # a base up to this size is held in float32 on a CPU


@dataclass(frozen=True)
class Plan:
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


@dataclass(frozen=True)
class Choice:
    """Blocks in one forward pass and, for our engine, its plan; why, and what is predicted.

    `plan` is None on the stock path. Predictions are 0 on a CPU, where nothing is counted.
    """

    blocks: int
    plan: Plan | None
    reason: str
    peak_bytes: int = 0
    tokens_per_s: float = 0.0

    def figures(self) -> dict[str, Any]:
        return asdict(self)

    def is_as(self, other: "Choice") -> bool:
        """Whether both end in the same bits: who holds the base does not show in them."""

        def decisive(choice: Choice) -> tuple[int, Plan | None]:
            return choice.blocks, choice.plan and replace(choice.plan, parts=1)

        return decisive(self) == decisive(other)


@dataclass(frozen=True)
class Speed:
    """What a GPU does in practice: products in FLOP/s, element-wise work in bytes/s.

    Measured on the H200 only; a cautious part of the data sheet for the others.
    """

    name: str
    memory_gib: float
    capability: tuple[int, int]
    flops: float
    bytes_per_s: float
    measured: bool = False


GPUS = {
    "t4": Speed("Tesla T4", 14.7, (7, 5), 22e12, 0.25e12),
    "l4": Speed("NVIDIA L4", 22.0, (8, 9), 55e12, 0.24e12),
    "a10g": Speed("NVIDIA A10G", 22.0, (8, 6), 60e12, 0.48e12),
    "a100": Speed("NVIDIA A100", 39.4, (8, 0), 230e12, 1.3e12),
    "h100": Speed("NVIDIA H100", 79.1, (9, 0), 600e12, 2.2e12),
    "h200": Speed("NVIDIA H200", 139.7, (9, 0), 640e12, 2.6e12, measured=True),
}
UNKNOWN = Speed("another GPU", 0, (0, 0), 50e12, 0.5e12)


def speed_of(device_name: str) -> Speed:
    """The entry of `GPUS` whose model is in `device_name`, else a guess."""
    return next((s for s in GPUS.values() if s.name.split()[-1] in device_name), UNKNOWN)


def choose_for(
    workers: int, sharding: str, device: Device, shape: Any, *, engine: bool = True, **asked: Any
) -> Choice:
    """`choose` for each of so many workers that are alike. `sharding` is the setting: with `auto`
    the base is in parts only where it does not fit whole."""
    can_share = engine and workers > 1
    if sharding == "fsdp" and can_share:
        return choose(device, shape, engine=engine, parts=workers, **asked)
    try:
        return choose(device, shape, engine=engine, **asked)
    except DoesNotFitError:
        if sharding == "ddp" or not can_share:
            raise
    return choose(device, shape, engine=engine, parts=workers, **asked)


def choose(
    device: Device,
    shape: Any,
    *,
    trainable: int,
    effective: int,
    block_tokens: int,
    micro_batch: int | None = None,
    engine: bool = True,
    host_bytes: int = 0,
    parts: int = 1,
) -> Choice:
    """The spending that is predicted to be fastest among those that fit.

    `shape` is a `model.Shape`; `micro_batch` fixes the blocks, otherwise any divisor of
    `effective` may be chosen; `host_bytes` of host memory may be used; `parts` workers hold the
    base together. Raises DoesNotFitError that says what the leanest spending needs.
    """
    divisors = [b for b in range(1, effective + 1) if effective % b == 0]
    sizes = divisors if micro_batch is None else [micro_batch]
    if device.kind == "cpu":
        blocks = max(b for b in sizes if micro_batch is not None or b <= CPU_MICRO_BATCH)
        unpack = parts == 1 and shape.linear_parameters * FULL <= CPU_UNPACKED_BYTES
        plan = Plan(shape.layers, unpacked_layers=unpack * shape.layers, parts=parts)
        reason = "as set" if micro_batch else "a CPU gains nothing from more"
        return Choice(blocks, plan if engine else None, reason + _in_parts(parts))
    found = [
        _predicted(blocks, plan, device, shape, trainable, block_tokens)
        for blocks in sizes
        for plan in (
            _plans(device, shape, trainable, blocks * block_tokens, block_tokens, host_bytes, parts)
            if engine
            else [None]
        )
    ]
    fitting = [c for c in found if c.peak_bytes * (1 + SLACK) <= device.free_bytes]
    if not fitting:
        leanest = min(found, key=lambda c: c.peak_bytes)
        raise DoesNotFitError(
            f"{device.name} has {device.free_bytes / GIB:.1f} GiB free and the leanest way to "
            f"train blocks of {block_tokens} tokens needs about "
            f"{leanest.peak_bytes * (1 + SLACK) / GIB:.1f} GiB{_in_parts(parts)}; "
            "lower QLORA_MAX_LENGTH"
            f"{' or QLORA_BATCH_SIZE' if (micro_batch or 1) > 1 else ''} or use a smaller model"
        )
    best = max(fitting, key=lambda c: (c.tokens_per_s, -c.peak_bytes))
    return replace(best, reason=_why(best, device, shape))


def again(
    begun: Choice,
    device: Device,
    shape: Any,
    *,
    trainable: int,
    effective: int,
    block_tokens: int,
    micro_batch: int | None = None,
    engine: bool = True,
    host_bytes: int = 0,
    parts: int = 1,
) -> Choice:
    """How a run goes on that began with `begun`: the same, if it fits what is free now, or else as
    like it as possible. Arguments and errors are those of `choose`."""
    sizes = trainable, block_tokens
    if begun.plan is not None:  # by now there may be another number of workers
        begun = replace(begun, plan=replace(begun.plan, parts=parts))
    if _still_fits(begun, device, shape, *sizes, effective, engine, host_bytes):
        return begun

    def anew(blocks: int | None) -> Choice:
        return choose(
            device,
            shape,
            trainable=trainable,
            effective=effective,
            block_tokens=block_tokens,
            micro_batch=blocks,
            engine=engine,
            host_bytes=host_bytes,
            parts=parts,
        )

    if begun.blocks <= effective:
        with suppress(DoesNotFitError):
            return anew(begun.blocks)
    return anew(micro_batch)


def _still_fits(
    begun: Choice,
    device: Device,
    shape: Any,
    trainable: int,
    block_tokens: int,
    effective: int,
    engine: bool,
    host_bytes: int,
) -> bool:
    plan, tokens = begun.plan, begun.blocks * block_tokens
    if begun.blocks > effective or (plan is not None) != engine:
        return False
    if plan is not None and plan.parts > 1 and (plan.graph or plan.unpacked_layers):
        return False
    if device.kind == "cpu":
        return plan is None or not (plan.graph or plan.offload or plan.host_ends)
    if plan is not None and plan.graph and not _has_graphs(device):
        return False
    if plan is not None and host_bytes_needed(shape, plan, tokens) > host_bytes:
        return False
    reserve = SLACK
    if plan is not None and (plan.graph or plan.unpacked_layers):
        reserve = GRAPHS if plan.graph else SPARE
    peak = _predicted(begun.blocks, plan, device, shape, trainable, block_tokens).peak_bytes
    return peak * (1 + reserve) <= device.free_bytes


def tell(choice: Choice) -> None:
    log.info(
        "micro-batch of %d blocks (%s)",
        choice.blocks,
        choice.reason,
        extra=figures(plan=choice.figures()),
    )


def leaner(plan: Plan, layers: int) -> Plan | None:
    """The next plan to try when memory ran out at run time; None below the leanest, and where
    workers hold the base together: what one of them does again the others do not."""
    if plan.parts > 1:
        return None
    if plan.unpacked_layers:
        return replace(plan, unpacked_layers=0, graph=False)
    if plan.kept_layers:
        return replace(plan, kept_layers=plan.kept_layers // 2, graph=False)
    lean = replace(plan, offload=True, host_ends=True, mlp_rows=1024, logit_rows=256)
    return None if plan == lean else lean


def _plans(
    device: Device,
    shape: Any,
    trainable: int,
    tokens: int,
    block_tokens: int,
    host_bytes: int,
    parts: int,
) -> Iterator[Plan]:
    if parts > 1:
        yield Plan(shape.layers, parts=parts)
    else:
        yield _everything(device, shape, trainable, tokens, block_tokens)
    yield from (Plan(kept, parts=parts) for kept in range(shape.layers - 1, -1, -1))
    long = block_tokens > LONG
    lean = Plan(0, long, offload=True, mlp_rows=2048, logit_rows=512, parts=parts)
    for plan in (lean, replace(lean, host_ends=True)):
        if host_bytes_needed(shape, plan, tokens) <= host_bytes:
            yield plan


def _everything(device: Device, shape: Any, trainable: int, tokens: int, block_tokens: int) -> Plan:
    """Nothing is computed again, and memory that is left holds unpacked weights and graphs."""
    has_graphs = _has_graphs(device)
    everything = Plan(shape.layers)
    peak = peak_bytes(shape, everything, tokens // block_tokens, block_tokens, trainable)
    spare = int(device.free_bytes / (1 + (GRAPHS if has_graphs else SPARE))) - peak
    unpacked = spare * shape.layers // (shape.linear_parameters * HALF)
    return replace(
        everything,
        unpacked_layers=min(max(unpacked, 0), shape.layers),
        graph=has_graphs and spare >= 0,
    )


def _has_graphs(device: Device) -> bool:
    return device.capability is not None and device.capability >= (8, 0)


def host_bytes_needed(shape: Any, plan: Plan, tokens: int) -> int:
    """Pinned host memory of a plan that offloads."""
    width = shape.hidden + (shape.q if plan.keep_attention else 0)
    ends = shape.ends_parameters if plan.host_ends else 0
    dropped = shape.layers - plan.kept_layers if plan.offload else 0
    return int(HALF * (dropped * tokens * width + ends))


def _predicted(
    blocks: int, plan: Plan | None, device: Device, shape: Any, trainable: int, block_tokens: int
) -> Choice:
    if plan is None:
        peak = stock_peak_bytes(shape, trainable=trainable, tokens=blocks * block_tokens)
        rate = tokens_per_s(shape, Plan(0), blocks, block_tokens, speed_of(device.name))
    else:
        peak = peak_bytes(shape, plan, blocks, block_tokens, trainable)
        rate = tokens_per_s(shape, plan, blocks, block_tokens, speed_of(device.name))
    return Choice(blocks, plan, "", peak, rate)


def _why(choice: Choice, device: Device, shape: Any) -> str:
    fact = f"{choice.peak_bytes / GIB:.1f} of {device.free_bytes / GIB:.1f} GiB predicted"
    if choice.plan is None:
        return f"{fact}, every layer computed again"
    fact += _in_parts(choice.plan.parts)
    kept, unpacked = choice.plan.kept_layers, choice.plan.unpacked_layers
    if kept == shape.layers:
        beside = f", {unpacked} of them unpacked" if unpacked else ""
        return f"{fact}, no layer computed again{beside}"
    where = " from host memory" if choice.plan.offload else ""
    return f"{fact}, {shape.layers - kept} of {shape.layers} layers computed again{where}"


def _in_parts(parts: int) -> str:
    return f", the base in {parts} parts" if parts > 1 else ""


def peak_bytes(shape: Any, plan: Plan, blocks: int, block_tokens: int, trainable: int) -> int:
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


def tokens_per_s(shape: Any, plan: Plan, blocks: int, block_tokens: int, speed: Speed) -> float:
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
