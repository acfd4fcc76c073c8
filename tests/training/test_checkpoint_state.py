"""What a checkpoint holds, in safetensors and JSON."""

import random
from pathlib import Path

import numpy
import pytest
import torch

from trainer.planner.choose import Execution
from trainer.planner.memory_plan import MemoryPlan
from trainer.training.checkpoint_state import (
    extract_tensors,
    random_state,
    read_plan,
    restore_tensors,
    set_random_state,
    write_plan,
)


def test_state_survives_the_way_through_json_and_tensors() -> None:
    state = {
        "optimizer": {"state": {0: {"step": 3, "state1": torch.arange(4, dtype=torch.uint8)}}},
        "rng": (3, (1, 2, 2**31), None),
        "numpy": ("MT19937", numpy.arange(5, dtype=numpy.uint32), 7, 0, 0.5),
        "flag": True,
    }
    tensors: dict[str, torch.Tensor] = {}
    back = restore_tensors(extract_tensors(state, tensors), tensors)
    assert back["rng"] == state["rng"]
    assert torch.equal(back["optimizer"]["state"][0]["state1"], torch.arange(4).to(torch.uint8))
    assert (back["numpy"][1] == state["numpy"][1]).all()  # type: ignore[index]
    assert back["numpy"][1].dtype == numpy.uint32
    assert back["flag"] is True


def test_nothing_but_plain_data_may_be_part_of_a_checkpoint() -> None:
    with pytest.raises(TypeError, match="/x: a builtin_function"):
        extract_tensors({"x": len}, {})


@pytest.mark.parametrize("plan", [None, MemoryPlan(3, mlp_rows=1024)])
def test_how_memory_was_spent_is_read_as_it_was_written(
    plan: MemoryPlan | None, tmp_path: Path
) -> None:
    assert read_plan(tmp_path) is None
    write_plan(Execution(4, plan, "why"), tmp_path)
    read = read_plan(tmp_path)
    assert read is not None
    assert (read.blocks, read.plan) == (4, plan)


def test_every_generator_goes_on_where_it_was() -> None:
    def drawn() -> list[float]:
        return [random.random(), float(numpy.random.random()), torch.rand(1).item()]

    state = random_state()
    first = drawn()
    set_random_state(state)
    assert drawn() == first
