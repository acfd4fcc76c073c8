"""What a checkpoint holds comes back as it was."""

import numpy
import pytest
import torch

from trainer.training.checkpoint_state import extract_tensors, restore_tensors


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
    with pytest.raises(TypeError, match="/x: a builtin_function_or_method"):
        extract_tensors({"x": print}, {})
