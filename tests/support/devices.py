"""Devices and sizes of models to plan for."""

from trainer.planner.model_shape import ModelShape
from trainer.runtime.device import GIB, Device

T4 = Device("cuda", "Tesla T4", (7, 5), int(14.7 * GIB))


A10 = Device("cuda", "NVIDIA A10G", (8, 6), 22 * GIB)


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


TRAINABLE = 4_194_304  # r=8 on q and v
