"""GPUs are known by the model in their device name."""

import pytest

from trainer.planner.gpus import GPUS, UNKNOWN, speed_of


@pytest.mark.parametrize(
    ("device_name", "key"),
    [("Tesla T4", "t4"), ("NVIDIA A100-SXM4-80GB", "a100"), ("NVIDIA H100 80GB HBM3", "h100")],
)
def test_a_gpu_is_known_by_what_its_driver_calls_it(device_name: str, key: str) -> None:
    assert speed_of(device_name) is GPUS[key]


def test_another_gpu_gets_a_guess() -> None:
    assert speed_of("NVIDIA Quadro 9") is UNKNOWN


@pytest.mark.parametrize("key", GPUS)
def test_the_name_of_each_entry_finds_that_entry(key: str) -> None:
    assert speed_of(GPUS[key].name) is GPUS[key]
