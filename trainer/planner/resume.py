"""How a run goes on that began elsewhere, or with other memory: as it began, where that fits."""

from contextlib import suppress
from dataclasses import replace

from trainer.errors import DoesNotFitError
from trainer.planner.choose import (
    GRAPHS,
    SLACK,
    SPARE,
    Execution,
    Workload,
    choose,
    has_graphs,
    predicted,
)
from trainer.planner.memory_plan import MemoryPlan, host_bytes


def once_loaded(workload: Workload, execution: Execution) -> Workload:
    """The same when the base lies where `execution` has it, which does not change any more."""
    plan = execution.plan or MemoryPlan(0)
    return replace(
        workload,
        base_shards=plan.base_shards,
        hosted_layers=plan.hosted_layers,
        on_disk=plan.on_disk,
    )


def replan_on_resume(begun: Execution, workload: Workload) -> Execution:
    """How a run goes on that began with `begun`: the same, if it fits what is free now, or else as
    like it as possible. Raises DoesNotFitError as `choose` does."""
    if begun.plan is not None:  # by now there may be another number of workers
        shards, hosted = workload.base_shards, workload.hosted_layers or 0
        plan = replace(begun.plan, base_shards=shards, hosted_layers=hosted)
        begun = replace(begun, plan=replace(plan, on_disk=workload.on_disk))
    if _still_fits(begun, workload):
        return begun
    if begun.blocks <= workload.step_blocks:
        with suppress(DoesNotFitError):
            return choose(replace(workload, micro_batch=begun.blocks))
    return choose(workload)


def _still_fits(begun: Execution, workload: Workload) -> bool:
    plan = begun.plan
    if begun.blocks > workload.step_blocks or (plan is not None) != workload.engine:
        return False
    if plan is not None and not _is_possible(plan, begun.blocks, workload):
        return False
    if workload.device.kind == "cpu":
        return True
    reserve = SLACK
    if plan is not None and (plan.graph or plan.unpacked_layers):
        reserve = GRAPHS if plan.graph else SPARE
    peak = predicted(begun.blocks, plan, workload).peak_bytes
    return peak * (1 + reserve) <= workload.device.free_bytes


def _is_possible(plan: MemoryPlan, blocks: int, workload: Workload) -> bool:
    """Whether this device and these workers can do it at all, memory of the device aside."""
    if not plan.base_is_resident and (plan.graph or plan.unpacked_layers):
        return False
    if workload.device.kind == "cpu":
        return not (plan.graph or plan.offload or plan.offload_embeddings)
    if plan.graph and not has_graphs(workload):
        return False
    return host_bytes(workload.shape, plan, blocks * workload.block_tokens) <= workload.host_bytes
