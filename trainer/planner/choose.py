"""Which execution: micro-batch, layers that store activations, chunks.

Everything follows from the model's sizes and the bytes that are free; nothing is tried out.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from trainer.errors import DoesNotFitError
from trainer.planner.gpus import speed_of
from trainer.planner.memory_plan import (
    CODE,
    FULL,
    HALF,
    SLOTS,
    MemoryPlan,
    disk_bytes,
    fragment_bytes,
    host_bytes,
    layer_bytes,
    loading_bytes,
    peak_bytes,
    tokens_per_s,
    weight_bytes,
)
from trainer.planner.model_shape import ModelShape
from trainer.planner.stock_path import stock_peak_bytes, stock_tokens_per_s
from trainer.runtime.device import GIB, Device
from trainer.runtime.log import figures
from trainer.runtime.wording import counted

log = logging.getLogger(__name__)

SLACK = 0.03  # what the allocator's fragments take beside what is counted
SPARE = 0.08  # the same and a reserve, where memory is spent on speed alone
GRAPHS = 0.15  # the same where CUDA graphs have memory of their own
HOSTED = 0.05  # the same where it costs nothing but another layer in host memory
HOSTING_GAIN = 1.1  # in speed, from which it is worth it where the base fits too
LONG = 2048  # tokens from which attention costs more than moving its output to the host and back
CPU_MICRO_BATCH = 8  # blocks: enough to share one dequantisation among many tokens
CPU_UNPACKED_BYTES = 2**30  # a base up to this size is held in float32 on a CPU


@dataclass(frozen=True)
class Workload:
    """What is to be trained, and what there is for it.

    `trainable` are the adapter's parameters, `step_blocks` the blocks of an optimizer step;
    `micro_batch` fixes the blocks of a micro-batch, otherwise any divisor of `step_blocks` may be
    chosen. Without `engine` it trains on the stock path. `host_bytes` of host memory and
    `disk_bytes` of the scratch disk may be used; `base_shards` workers hold the base together.
    `hosted_layers` is where the base lies already, or has to: in host memory with so many, or
    `on_disk`; None where that is open. `bus_bytes_per_s` and `disk_bytes_per_s` are what was
    measured of the ways from there, 0 where that was not. `adapter_width` is the sum of inputs and
    outputs of all matrices that have an adapter; `workers` compute a step together. With
    `unasked` a GPU multiplies with experts without telling the CPU how many rows each has.
    """

    device: Device
    shape: ModelShape
    trainable: int
    step_blocks: int
    block_tokens: int
    micro_batch: int | None = None
    engine: bool = True
    host_bytes: int = 0
    disk_bytes: int = 0
    base_shards: int = 1
    hosted_layers: int | None = None
    on_disk: bool = False
    bus_bytes_per_s: int = 0
    disk_bytes_per_s: int = 0
    adapter_width: int = 0
    workers: int = 1
    unasked: bool = False


@dataclass(frozen=True)
class Execution:
    """Blocks in one forward pass and, for our engine, its plan; why, and what is predicted.

    `plan` is None on the stock path. Predictions are 0 on a CPU, where nothing is counted.
    """

    blocks: int
    plan: MemoryPlan | None
    reason: str
    peak_bytes: int = 0
    tokens_per_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As run.json and the log hold it."""
        return asdict(self) | {"plan": self.plan and self.plan.to_json()}

    def is_as(self, other: "Execution") -> bool:
        """Whether both end in the same bits: who holds the base does not show in them."""

        def decisive(one: Execution) -> tuple[int, MemoryPlan | None]:
            whole = one.plan and replace(one.plan, base_shards=1, hosted_layers=0, on_disk=False)
            return one.blocks, whole

        return decisive(self) == decisive(other)


def choose_for(workers: int, sharding: str, workload: Workload) -> Execution:
    """`choose` for each of so many workers that are alike. `sharding` is the setting: with `auto`
    the base is sharded only where it does not fit whole."""
    if workers == 1 or not workload.engine:
        return choose(workload)
    shared = replace(workload, base_shards=workers)
    if sharding == "fsdp":
        return choose(shared)
    resident = replace(workload, hosted_layers=0)
    # Each has the base in memory or files of its own, and workers on one machine share both.
    host, disk = workload.host_bytes // workers, workload.disk_bytes // workers
    hosting = replace(workload, host_bytes=host, disk_bytes=disk)
    faults = []
    for way in [resident, hosting] if sharding == "ddp" else [resident, shared, hosting]:
        try:
            return choose(way)
        except DoesNotFitError as fault:
            faults.append(fault)
    raise faults[-2]  # of the GPUs' own memory, which is the one to have more of


def choose(workload: Workload) -> Execution:
    """The execution that is predicted to be fastest among those that fit.

    Raises DoesNotFitError that says what the leanest one needs.
    """
    if workload.device.kind == "cpu":
        return _on_a_cpu(workload)
    found = [
        predicted(blocks, plan, workload)
        for blocks in _sizes(workload)
        for plan in _plans(blocks, workload)
    ]
    fitting = _fitting([*found, *_hosting(found, workload)], workload)
    fitting = [c for c in fitting if _has_room(c, workload)]
    if not fitting:
        raise _does_not_fit(found, workload)
    best = max(fitting, key=_worth)
    return replace(best, reason=_why(best, workload))


def _worth(execution: Execution) -> tuple[float, int]:
    is_hosting = execution.plan is not None and execution.plan.hosted_layers
    rate = execution.tokens_per_s / (HOSTING_GAIN if is_hosting else 1)
    return rate, -execution.peak_bytes


def _fitting(found: Iterable[Execution], workload: Workload) -> list[Execution]:
    free = workload.device.free_bytes
    return [
        c
        for c in found
        if max(c.peak_bytes * (1 + SLACK), c.peak_bytes + _beside(c, workload)) <= free
    ]


def _beside(execution: Execution, workload: Workload) -> int:
    """Bytes that have to be free beside those at the peak."""
    if execution.plan is None:
        return CODE
    tokens = execution.blocks * workload.block_tokens
    return CODE + fragment_bytes(workload.shape, execution.plan, tokens)


def _hosting(found: Iterable[Execution], workload: Workload) -> Iterator[Execution]:
    """Those that do not fit, with as many layers in host memory; none where that cannot be."""
    layers, free = workload.shape.layers, workload.device.free_bytes
    for execution in found:
        plan = execution.plan
        stays = workload.hosted_layers is not None or workload.shape.expert_parameters
        if plan is None or plan.base_shards > 1 or stays:
            return
        lean = predicted(execution.blocks, replace(plan, unpacked_layers=0, graph=False), workload)
        assert lean.plan is not None
        highest = max(lean.peak_bytes, loading_bytes(workload.shape, lean.plan))
        room = min(free / (1 + HOSTED), free - _beside(lean, workload))
        too_many = math.ceil((highest - room) / layer_bytes(workload.shape))
        if too_many > 0:
            plan = replace(lean.plan, hosted_layers=min(too_many + SLOTS, layers))
            hosting = predicted(execution.blocks, plan, workload)
            if hosting.peak_bytes <= room:
                yield hosting
                yield predicted(execution.blocks, replace(plan, on_disk=True), workload)


def _has_room(execution: Execution, workload: Workload) -> bool:
    """Whether host memory and disk hold what is to lie there."""
    plan, shape = execution.plan, workload.shape
    if plan is None:
        return True
    on_host = host_bytes(shape, plan, execution.blocks * workload.block_tokens)
    return on_host <= workload.host_bytes and disk_bytes(shape, plan) <= workload.disk_bytes


def log_execution(execution: Execution) -> None:
    log.info(
        "micro-batch of %s (%s)",
        counted(execution.blocks, "block"),
        execution.reason,
        extra=figures(plan=execution.to_json()),
    )


def _sizes(workload: Workload) -> list[int]:
    if workload.micro_batch is not None:
        return [workload.micro_batch]
    return [b for b in range(1, workload.step_blocks + 1) if workload.step_blocks % b == 0]


def _on_a_cpu(workload: Workload) -> Execution:
    blocks = max(b for b in _sizes(workload) if workload.micro_batch or b <= CPU_MICRO_BATCH)
    shape, shards = workload.shape, workload.base_shards
    hosted, on_disk = workload.hosted_layers or 0, workload.on_disk
    plan = MemoryPlan(shape.layers, base_shards=shards, hosted_layers=hosted, on_disk=on_disk)
    if plan.base_is_resident and shape.linear_parameters * FULL <= CPU_UNPACKED_BYTES:
        plan = replace(plan, unpacked_layers=shape.layers)
    reason = "as set" if workload.micro_batch else "a CPU gains nothing from more"
    return Execution(blocks, plan if workload.engine else None, reason + _in_shards(shards))


def _does_not_fit(found: list[Execution], workload: Workload) -> DoesNotFitError:
    device, shape = workload.device, workload.shape
    leanest_bytes = min(execution.peak_bytes for execution in found)
    weights = weight_bytes(shape)
    stays = not workload.engine or shape.expert_parameters  # the base, all of it on the GPU
    if stays and weights > device.free_bytes:
        return DoesNotFitError(
            f"{device.name} has {device.free_bytes / GIB:.1f} GiB free and the base's weights "
            f"alone take {weights / GIB:.1f}; use a smaller model"
        )
    smaller = " or QLORA_BATCH_SIZE" if (workload.micro_batch or 1) > 1 else ""
    needs = (
        f"{device.name} has {device.free_bytes / GIB:.1f} GiB free and the leanest way "
        f"to train blocks of {workload.block_tokens} tokens needs about "
        f"{leanest_bytes * (1 + SLACK) / GIB:.1f} GiB{_in_shards(workload.base_shards)}"
    )
    hosting = [c.plan for c in _fitting(_hosting(found, workload), workload) if c.plan]
    if hosting:
        layers = min(p.hosted_layers for p in hosting) * layer_bytes(shape)
        return DoesNotFitError(
            f"{needs}; with layers of the base in host memory or on the scratch disk it would "
            f"fit, but they take {layers / GIB:.1f} GiB, {workload.host_bytes / GIB:.1f} may be "
            f"pinned and the disk has {workload.disk_bytes / GIB:.1f} for them: give it or the "
            "machine more, lower QLORA_MAX_LENGTH or use a smaller model"
        )
    return DoesNotFitError(f"{needs}; lower QLORA_MAX_LENGTH{smaller} or use a smaller model")


def _plans(blocks: int, workload: Workload) -> Iterator[MemoryPlan | None]:
    if not workload.engine:
        yield None
        return
    layers, shards = workload.shape.layers, workload.base_shards
    hosted, on_disk = workload.hosted_layers or 0, workload.on_disk
    everything = MemoryPlan(layers, base_shards=shards, hosted_layers=hosted, on_disk=on_disk)
    if everything.base_is_resident:
        yield _with_spare_memory(everything, blocks, workload)
    else:
        yield everything
    yield from (replace(everything, stored_layers=stored) for stored in range(layers - 1, -1, -1))
    tokens, is_long = blocks * workload.block_tokens, workload.block_tokens > LONG
    offloaded = replace(everything, stored_layers=0, keep_attention=is_long, offload=True)
    for rows, on_host in product((tokens, 2048), (False, True)):
        plan = replace(offloaded, mlp_rows=rows, logit_rows=512, offload_embeddings=on_host)
        if host_bytes(workload.shape, plan, tokens) <= workload.host_bytes:
            yield plan


def _with_spare_memory(plan: MemoryPlan, blocks: int, workload: Workload) -> MemoryPlan:
    """The same with unpacked weights and graphs in what memory it leaves."""
    shape, graphs = workload.shape, has_graphs(workload)
    captured = replace(plan, graph=graphs)
    peak = peak_bytes(shape, captured, blocks, workload.block_tokens, workload.trainable)
    spare = int(workload.device.free_bytes / (1 + (GRAPHS if graphs else SPARE))) - peak
    unpacked = spare * shape.layers // (shape.linear_parameters * HALF)
    return replace(
        plan,
        unpacked_layers=min(max(unpacked, 0), shape.layers),
        graph=graphs and spare >= 0,
    )


def has_graphs(workload: Workload) -> bool:
    """Not where the CPU has to know how many tokens an expert is sent."""
    waits = workload.shape.expert_parameters and not workload.unasked
    return (workload.device.capability or (0, 0)) >= (8, 0) and not waits


def predicted(blocks: int, plan: MemoryPlan | None, workload: Workload) -> Execution:
    """Peak and speed of a plan, without a reason."""
    shape, speed = workload.shape, speed_of(workload.device.name)
    if workload.bus_bytes_per_s:
        speed = replace(speed, bus_bytes_per_s=workload.bus_bytes_per_s)
    if workload.disk_bytes_per_s:
        speed = replace(speed, disk_bytes_per_s=workload.disk_bytes_per_s)
    if plan is None:
        size = workload.block_tokens
        peak = stock_peak_bytes(
            shape, trainable=workload.trainable, tokens=blocks * size, block_tokens=size
        )
        rate = stock_tokens_per_s(shape, blocks, size, speed)
    else:
        size, summed = (
            workload.block_tokens,
            max(workload.step_blocks // blocks, workload.workers) > 1,
        )
        peak = peak_bytes(shape, plan, blocks, size, workload.trainable, summed=summed)
        rate = tokens_per_s(shape, plan, blocks, size, speed, workload.adapter_width)
    return Execution(blocks, plan, "", peak, rate)


def _why(execution: Execution, workload: Workload) -> str:
    plan, free_bytes = execution.plan, workload.device.free_bytes
    fact = f"{execution.peak_bytes / GIB:.1f} of {free_bytes / GIB:.1f} GiB predicted"
    if plan is None:
        return f"{fact}, every layer computed again"
    fact += _in_shards(plan.base_shards)
    if plan.hosted_layers:
        place = "on disk" if plan.on_disk else "in host memory"
        fact += f", {plan.hosted_layers} layers of the base {place}"
    stored, layers = plan.stored_layers, workload.shape.layers
    if stored == layers:
        unpacked = plan.unpacked_layers
        beside = f", {unpacked} of them unpacked" if unpacked else ""
        return f"{fact}, no layer computed again{beside}"
    where = " from host memory" if plan.offload else ""
    return f"{fact}, {layers - stored} of {layers} layers computed again{where}"


def _in_shards(shards: int) -> str:
    return f", the base in {shards} parts" if shards > 1 else ""
