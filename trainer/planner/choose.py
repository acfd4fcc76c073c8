"""Which plan: micro-batch, layers that keep activations, chunks.

Everything follows from the model's sizes and the bytes that are free; nothing is tried out.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from trainer.errors import DoesNotFitError
from trainer.planner.gpus import speed_of
from trainer.planner.memory_plan import (
    FULL,
    HALF,
    MemoryPlan,
    host_bytes,
    peak_bytes,
    stock_peak_bytes,
    tokens_per_s,
)
from trainer.runtime.device import GIB, Device
from trainer.runtime.log import figures

log = logging.getLogger(__name__)

SLACK = 0.03  # what the allocator's fragments take beside what is counted
SPARE = 0.08  # the same and a reserve, where memory is spent on speed alone
GRAPHS = 0.15  # the same where CUDA graphs have memory of their own
LONG = 2048  # tokens from which attention costs more than moving its output to the host and back
CPU_MICRO_BATCH = 8  # blocks: enough to share one dequantisation among many tokens
CPU_UNPACKED_BYTES = 2**30  # a base up to this size is held in float32 on a CPU


@dataclass(frozen=True)
class Workload:
    """What is to be trained, and what there is for it.

    `shape` is a `bases.Shape`, `trainable` the adapter's parameters, `effective` the blocks of an
    optimizer step; `micro_batch` fixes the blocks of a micro-batch, otherwise any divisor of
    `effective` may be chosen. Without `engine` it trains on the stock path. `host_bytes` of host
    memory may be used; `parts` workers hold the base together.
    """

    device: Device
    shape: Any
    trainable: int
    effective: int
    block_tokens: int
    micro_batch: int | None = None
    engine: bool = True
    host_bytes: int = 0
    parts: int = 1


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

    def figures(self) -> dict[str, Any]:
        return asdict(self)

    def is_as(self, other: "Execution") -> bool:
        """Whether both end in the same bits: who holds the base does not show in them."""

        def decisive(choice: Execution) -> tuple[int, MemoryPlan | None]:
            return choice.blocks, choice.plan and replace(choice.plan, parts=1)

        return decisive(self) == decisive(other)


def choose_for(workers: int, sharding: str, task: Workload) -> Execution:
    """`choose` for each of so many workers that are alike. `sharding` is the setting: with `auto`
    the base is in parts only where it does not fit whole."""
    if workers == 1 or not task.engine:
        return choose(task)
    shared = replace(task, parts=workers)
    if sharding == "fsdp":
        return choose(shared)
    try:
        return choose(task)
    except DoesNotFitError:
        if sharding == "ddp":
            raise
    return choose(shared)


def choose(task: Workload) -> Execution:
    """The spending that is predicted to be fastest among those that fit.

    Raises DoesNotFitError that says what the leanest spending needs.
    """
    if task.device.kind == "cpu":
        return _on_a_cpu(task)
    found = [
        _predicted(blocks, plan, task) for blocks in _sizes(task) for plan in _plans(blocks, task)
    ]
    fitting = [c for c in found if c.peak_bytes * (1 + SLACK) <= task.device.free_bytes]
    if not fitting:
        raise _does_not_fit(min(c.peak_bytes for c in found), task)
    best = max(fitting, key=lambda c: (c.tokens_per_s, -c.peak_bytes))
    return replace(best, reason=_why(best, task))


def replan_on_resume(begun: Execution, task: Workload) -> Execution:
    """How a run goes on that began with `begun`: the same, if it fits what is free now, or else as
    like it as possible. Raises DoesNotFitError as `choose` does."""
    if begun.plan is not None:  # by now there may be another number of workers
        begun = replace(begun, plan=replace(begun.plan, parts=task.parts))
    if _still_fits(begun, task):
        return begun
    if begun.blocks <= task.effective:
        with suppress(DoesNotFitError):
            return choose(replace(task, micro_batch=begun.blocks))
    return choose(task)


def leaner_plan(plan: MemoryPlan, layers: int) -> MemoryPlan | None:
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


def log_execution(choice: Execution) -> None:
    log.info(
        "micro-batch of %d blocks (%s)",
        choice.blocks,
        choice.reason,
        extra=figures(plan=choice.figures()),
    )


def _sizes(task: Workload) -> list[int]:
    if task.micro_batch is not None:
        return [task.micro_batch]
    return [b for b in range(1, task.effective + 1) if task.effective % b == 0]


def _on_a_cpu(task: Workload) -> Execution:
    sizes = _sizes(task)
    blocks = max(b for b in sizes if task.micro_batch is not None or b <= CPU_MICRO_BATCH)
    unpack = task.parts == 1 and task.shape.linear_parameters * FULL <= CPU_UNPACKED_BYTES
    layers = task.shape.layers
    plan = MemoryPlan(layers, unpacked_layers=unpack * layers, parts=task.parts)
    reason = "as set" if task.micro_batch else "a CPU gains nothing from more"
    return Execution(blocks, plan if task.engine else None, reason + _in_parts(task.parts))


def _does_not_fit(leanest_bytes: int, task: Workload) -> DoesNotFitError:
    smaller = " or QLORA_BATCH_SIZE" if (task.micro_batch or 1) > 1 else ""
    return DoesNotFitError(
        f"{task.device.name} has {task.device.free_bytes / GIB:.1f} GiB free and the leanest way "
        f"to train blocks of {task.block_tokens} tokens needs about "
        f"{leanest_bytes * (1 + SLACK) / GIB:.1f} GiB{_in_parts(task.parts)}; "
        f"lower QLORA_MAX_LENGTH{smaller} or use a smaller model"
    )


def _still_fits(begun: Execution, task: Workload) -> bool:
    plan = begun.plan
    if begun.blocks > task.effective or (plan is not None) != task.engine:
        return False
    if plan is not None and not _is_possible(plan, begun.blocks, task):
        return False
    if task.device.kind == "cpu":
        return True
    reserve = SLACK
    if plan is not None and (plan.graph or plan.unpacked_layers):
        reserve = GRAPHS if plan.graph else SPARE
    peak = _predicted(begun.blocks, plan, task).peak_bytes
    return peak * (1 + reserve) <= task.device.free_bytes


def _is_possible(plan: MemoryPlan, blocks: int, task: Workload) -> bool:
    """Whether this device and these workers can do it at all, memory of the device aside."""
    if plan.parts > 1 and (plan.graph or plan.unpacked_layers):
        return False
    if task.device.kind == "cpu":
        return not (plan.graph or plan.offload or plan.host_ends)
    if plan.graph and not _has_graphs(task.device):
        return False
    return host_bytes(task.shape, plan, blocks * task.block_tokens) <= task.host_bytes


def _plans(blocks: int, task: Workload) -> Iterator[MemoryPlan | None]:
    if not task.engine:
        yield None
        return
    layers, parts = task.shape.layers, task.parts
    yield MemoryPlan(layers, parts=parts) if parts > 1 else _everything(blocks, task)
    yield from (MemoryPlan(kept, parts=parts) for kept in range(layers - 1, -1, -1))
    long = task.block_tokens > LONG
    lean = MemoryPlan(0, long, offload=True, mlp_rows=2048, logit_rows=512, parts=parts)
    for plan in (lean, replace(lean, host_ends=True)):
        if host_bytes(task.shape, plan, blocks * task.block_tokens) <= task.host_bytes:
            yield plan


def _everything(blocks: int, task: Workload) -> MemoryPlan:
    """Nothing is computed again, and memory that is left holds unpacked weights and graphs."""
    shape, has_graphs = task.shape, _has_graphs(task.device)
    everything = MemoryPlan(shape.layers)
    peak = peak_bytes(shape, everything, blocks, task.block_tokens, task.trainable)
    spare = int(task.device.free_bytes / (1 + (GRAPHS if has_graphs else SPARE))) - peak
    unpacked = spare * shape.layers // (shape.linear_parameters * HALF)
    return replace(
        everything,
        unpacked_layers=min(max(unpacked, 0), shape.layers),
        graph=has_graphs and spare >= 0,
    )


def _has_graphs(device: Device) -> bool:
    return device.capability is not None and device.capability >= (8, 0)


def _predicted(blocks: int, plan: MemoryPlan | None, task: Workload) -> Execution:
    if plan is None:
        tokens = blocks * task.block_tokens
        peak = stock_peak_bytes(task.shape, trainable=task.trainable, tokens=tokens)
    else:
        peak = peak_bytes(task.shape, plan, blocks, task.block_tokens, task.trainable)
    speed = speed_of(task.device.name)
    rate = tokens_per_s(task.shape, plan or MemoryPlan(0), blocks, task.block_tokens, speed)
    return Execution(blocks, plan, "", peak, rate)


def _why(choice: Execution, task: Workload) -> str:
    fact = f"{choice.peak_bytes / GIB:.1f} of {task.device.free_bytes / GIB:.1f} GiB predicted"
    if choice.plan is None:
        return f"{fact}, every layer computed again"
    fact += _in_parts(choice.plan.parts)
    kept, layers = choice.plan.kept_layers, task.shape.layers
    if kept == layers:
        unpacked = choice.plan.unpacked_layers
        beside = f", {unpacked} of them unpacked" if unpacked else ""
        return f"{fact}, no layer computed again{beside}"
    where = " from host memory" if choice.plan.offload else ""
    return f"{fact}, {layers - kept} of {layers} layers computed again{where}"


def _in_parts(parts: int) -> str:
    return f", the base in {parts} parts" if parts > 1 else ""
