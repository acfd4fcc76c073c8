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


QWEN_3_5_4B = ModelShape(
    layers=32,
    hidden=2560,
    intermediate=9216,
    vocabulary=248320,
    heads=16,
    q=4096,
    kv=1024,
    largest_matrix=9216 * 2560,
    linear_parameters=3_569_090_560,
    embedding_parameters=635_699_200,
    other_parameters=636_660_736,
    normed_heads=1,
    mixed=14336,
    mixing=106496,
)


QWEN_3_30B_A3B = ModelShape(
    layers=48,
    hidden=2048,
    intermediate=6144,
    vocabulary=151936,
    heads=32,
    q=4096,
    kv=512,
    largest_matrix=4096 * 2048,
    linear_parameters=905_969_664,
    embedding_parameters=622_329_856,
    other_parameters=635_123_712,
    expert_parameters=28_991_029_248,
    active_parameters=1_811_939_328,
    experts_of_a_token=8,
    normed_heads=1,
)


GPT_OSS_20B = ModelShape(
    layers=24,
    hidden=2880,
    intermediate=2880,
    vocabulary=201088,
    heads=64,
    q=4096,
    kv=512,
    largest_matrix=11_796_480,
    linear_parameters=637_009_920,
    embedding_parameters=1_158_266_880,
    other_parameters=1_167_449_664,
    expert_parameters=19_110_297_600,
    active_parameters=2_388_787_200,
    experts_of_a_token=4,
    whole_scores=True,
)


GEMMA_3_4B = ModelShape(
    layers=34,
    hidden=2560,
    intermediate=10240,
    vocabulary=262208,
    heads=8,
    q=2048,
    kv=1024,
    largest_matrix=10240 * 2560,
    linear_parameters=3_208_642_560,
    embedding_parameters=671_252_480,
    other_parameters=671_620_608,
    normed_outputs=2,
    normed_heads=1,
)


PHI_4 = ModelShape(
    layers=40,
    hidden=5120,
    intermediate=17920,
    vocabulary=100352,
    heads=40,
    q=5120,
    kv=1280,
    largest_matrix=2 * 17920 * 5120,
    linear_parameters=13_631_488_000,
    embedding_parameters=1_027_604_480,
    other_parameters=1_028_019_200,
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
