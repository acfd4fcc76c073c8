"""The bus is measured where it decides."""

import pytest
import torch

from trainer.planner.bus_speed import bus_bytes_per_s, in_steps

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")


@pytest.mark.cuda
@needs_gpu
def test_the_bus_is_as_fast_as_any_that_there_is() -> None:
    """From a PCIe 3.0 x4 slot to NVLink between a CPU and its GPU."""
    assert 1e9 < bus_bytes_per_s() < 1e12


@pytest.mark.cuda
@needs_gpu
def test_a_run_that_is_started_again_finds_the_same_bus() -> None:
    """Or, where what is measured lies between two steps, one of these."""
    found = {in_steps(bus_bytes_per_s(), 55e9) for _ in range(8)}
    assert len(found) <= 2 and max(found) <= 1.26 * min(found)


def test_two_measurements_that_are_nearly_the_same_plan_alike() -> None:
    assert in_steps(54.4e9, 55e9) == in_steps(51e9, 55e9) == in_steps(60e9, 55e9) == 55e9
    assert in_steps(6.1e9, 11e9) == in_steps(5.6e9, 11e9) < 0.6 * 11e9
