"""How a run executes on what there is: workers, memory plan, micro-batch, and how it resumes."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.distributed.workers import Workers
from trainer.errors import SettingsError
from trainer.models import base_model
from trainer.models.base_model import Base
from trainer.planner import choose, resume
from trainer.planner.bus_speed import bus_bytes_per_s, in_steps
from trainer.planner.disk_speed import disk_bytes_per_s, free_disk_bytes
from trainer.planner.gpus import multiplies_unasked, speed_of
from trainer.planner.model_shape import ModelShape
from trainer.runtime import selftest
from trainer.runtime.device import GIB, Device, Precision
from trainer.runtime.nf4 import NF4_BYTES
from trainer.settings import Settings
from trainer.storage.files import disk_errors

if TYPE_CHECKING:
    from trainer.models.frozen_base import WholeBase

log = logging.getLogger(__name__)

SLOW_ON_A_CPU = 10**9  # parameters


@dataclass(frozen=True)
class ExecutionPlan:
    """How the model and its adapter fit the device."""

    execution: choose.Execution
    replan_on_resume: Callable[[choose.Execution], choose.Execution]
    """how to go on with a run that began with another execution"""
    trainable_parameters: int
    total_parameters: int
    warnings: list[str]
    scratch_dir: Path

    def frozen_base(self, workers: Workers) -> "WholeBase":
        """Who is to hold the base, which is still to be loaded."""
        from trainer.models.frozen_base import WholeBase
        from trainer.models.sharded_base import ShardedBase
        from trainer.models.streamed_base import StreamedBase

        plan = self.execution.plan
        if plan is not None and plan.base_shards > 1:
            return ShardedBase(workers)
        if plan is None or not plan.hosted_layers:
            return WholeBase()
        return StreamedBase(plan.hosted_layers, self.scratch_dir if plan.on_disk else None)


def choose_execution(
    settings: Settings,
    base: Base,
    device: Device,
    precision: Precision,
    workers: Workers,
    *,
    step_blocks: int,
) -> ExecutionPlan:
    """The same for all workers; what was decided is logged with its reasons.

    Raises DoesNotFitError when not even one block fits, SettingsError for a base that cannot be
    sharded as the settings ask.
    """
    shape = base.shape(precision.name)
    trainable = base_model.trainable_parameters(base, settings)
    has_engine = _has_engine(settings, base, precision, device)
    if settings.sharding == "fsdp" and not has_engine:
        raise SettingsError(
            f"QLORA_SHARDING=fsdp: {base.name} trains on the stock path, which holds the base "
            "whole; use QLORA_SHARDING=auto"
        )
    smallest, host_bytes, disk_bytes = _smallest(settings, device, workers)
    workload = choose.Workload(
        smallest,
        shape,
        trainable=trainable,
        step_blocks=-(-step_blocks // workers.size),
        block_tokens=settings.max_length,
        micro_batch=settings.batch_size,
        adapter_width=trainable // settings.lora_r,
        workers=workers.size,
        unasked=multiplies_unasked(smallest.capability, precision.name),
        engine=has_engine,
        host_bytes=host_bytes,
        disk_bytes=disk_bytes,
    )
    workload, execution = _chosen(settings, workload, workers)
    log.info("%s: %s (%s)", device.name, precision.name, precision.reason)
    share, whole = 100 * trainable / shape.parameters, f"{shape.parameters:,}"
    log.info("adapter of %s parameters, %.3f %% of %s", f"{trainable:,}", share, whole)
    choose.log_execution(execution)
    _log_experts(shape)
    warnings = _warned(device, shape)
    loaded = resume.once_loaded(workload, execution)
    replan = partial(resume.replan_on_resume, workload=loaded)
    return ExecutionPlan(
        execution, replan, trainable, shape.parameters, warnings, settings.scratch_dir
    )


def _warned(device: Device, shape: ModelShape) -> list[str]:
    if device.kind == "cuda" or shape.parameters <= SLOW_ON_A_CPU:
        return []
    log.warning("%s", warning := "there is no GPU: a model of this size trains for days on a CPU")
    return [warning]


def _log_experts(shape: ModelShape) -> None:
    if shape.expert_parameters:
        size = NF4_BYTES * shape.expert_parameters / GIB
        log.info("its experts, %.2f GiB in NF4, are not trained", size)


def _smallest(settings: Settings, device: Device, workers: Workers) -> tuple[Device, int, int]:
    """The first worker's device, free host memory and disk, with the least that any of them has:
    all plan the same, for micro-batches of different sizes would be other blocks."""
    disk = free_disk_bytes(settings.scratch_dir)
    free, host, disk = workers.all_reduce_min(device.free_bytes, selftest.pinnable_bytes(), disk)
    kind, name, capability = json.loads(
        workers.broadcast_bytes(json.dumps([device.kind, device.name, device.capability]).encode())
    )
    return Device(kind, name, capability and (capability[0], capability[1]), free), host, disk


def _chosen(
    settings: Settings, workload: choose.Workload, workers: Workers
) -> tuple[choose.Workload, choose.Execution]:
    """With the ways from host memory and disk measured where layers would come from there: the
    slowest of any worker's, tried by all at the same time."""
    execution = choose.choose_for(workers.size, settings.sharding, workload)
    plan = execution.plan
    if workload.device.kind == "cpu" or plan is None or not plan.hosted_layers:
        return workload, execution
    (slowest,) = workers.all_reduce_min(bus_bytes_per_s())
    log.info("host memory is read at %.1f GB/s", slowest / 1e9)
    usual = speed_of(workload.device.name)
    workload = replace(workload, bus_bytes_per_s=in_steps(slowest, usual.bus_bytes_per_s))
    if plan.on_disk:
        with disk_errors(settings.scratch_dir / "any"):
            found = disk_bytes_per_s(settings.scratch_dir)
        (slowest,) = workers.all_reduce_min(found)
        log.info("the scratch disk is read at %.2f GB/s", slowest / 1e9)
        workload = replace(workload, disk_bytes_per_s=in_steps(slowest, usual.disk_bytes_per_s))
    return workload, choose.choose_for(workers.size, settings.sharding, workload)


def _has_engine(settings: Settings, base: Base, precision: Precision, device: Device) -> bool:
    """Whether our engine trains this model; says so where it does not."""
    from trainer.engine.support import why_stock

    reason = why_stock(settings, base.config, precision, device)
    if reason is not None:
        log.info("%s trains on the stock path: %s", base.name, reason)
    return reason is None
