"""Devices and sizes of models to plan for."""

from dataclasses import replace
from typing import Any

from trainer.planner.choose import Execution, Workload, choose
from trainer.planner.model_shape import ModelShape
from trainer.runtime.device import GIB, Device

T4 = Device("cuda", "Tesla T4", (7, 5), int(14.7 * GIB))


A10 = Device("cuda", "NVIDIA A10G", (8, 6), 22 * GIB)


H200 = Device("cuda", "NVIDIA H200", (9, 0), 139 * GIB)


CPU = Device("cpu", "CPU", None, 0)


LLAMA_2_7B = ModelShape(
    layers=32,
    hidden=4096,
    intermediate=11008,
    vocabulary=32000,
    heads=32,
    q=4096,
    kv=4096,
    largest_matrix=11008 * 4096,
    linear_parameters=6_476_005_376,
    embedding_parameters=262_144_000,
    other_parameters=262_410_240,
)


LLAMA_3_70B = ModelShape(
    layers=80,
    hidden=8192,
    intermediate=28672,
    vocabulary=128256,
    heads=64,
    q=8192,
    kv=1024,
    largest_matrix=28672 * 8192,
    linear_parameters=68_451_041_280,
    embedding_parameters=2_101_346_304,
    other_parameters=2_102_665_216,
)


TRAINABLE = 4_194_304  # r=8 on q and v


def workload(device: Device, **changes: Any) -> Workload:
    """Of a 7B, unless `changes` say otherwise."""
    usual = Workload(
        device, LLAMA_2_7B, TRAINABLE, step_blocks=16, block_tokens=512, host_bytes=8 * GIB
    )
    return replace(usual, **changes)


def chosen(device: Device, **changes: Any) -> Execution:
    return choose(workload(device, **changes))
