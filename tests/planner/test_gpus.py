"""GPUs are known by the model in their device name."""

import pytest

from trainer.planner.gpus import GPUS, NODES, UNKNOWN, nodes_with, speed_of
from trainer.runtime.device import GIB


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


def test_the_smallest_node_of_each_cloud_that_leaves_a_pod_so_much_memory() -> None:
    assert nodes_with("Tesla T4", 45 * GIB)[0] == "g4dn.4xlarge"
    assert nodes_with("Tesla T4", 110 * GIB) == ["g4dn.8xlarge"]
    assert nodes_with("Tesla T4", 900 * GIB) == nodes_with("NVIDIA Quadro 9", 1) == []
    assert NODES.keys() <= GPUS.keys()
    for cloud in (cloud for clouds in NODES.values() for cloud in clouds):
        assert list(cloud.values()) == sorted(cloud.values())
