"""A base that is loaded ahead is the one that is loaded otherwise, and so are its failures."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.bases import settings_for
from support.small_adapters import tiny_as

from trainer.models.frozen_base import WholeBase
from trainer.models.load import load_base
from trainer.models.load_ahead import LoadAhead
from trainer.models.locate import locate_base
from trainer.runtime.device import Device, Precision

CPU, FP32 = Device("cpu", "CPU", None, 0), Precision("fp32", "a test")


class OtherBase(WholeBase):
    """One that has seen every tensor go by."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def keep_shard(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        self.kept += tensors
        return tensors


def given(folder: Path) -> tuple[Any, ...]:
    settings = settings_for(tiny_as(folder / "base", "float32"), folder / "scratch")
    return locate_base(settings), settings, FP32, CPU


def test_it_is_the_base_that_is_loaded_otherwise_and_loaded_meanwhile(tmp_path: Path) -> None:
    how = given(tmp_path)
    state = torch.random.get_rng_state()
    ahead = LoadAhead(*how, workers=1)
    assert ahead._thread is not None
    found, expected = ahead.take(WholeBase()), load_base(*how)
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert torch.equal(state, torch.random.get_rng_state())  # what is drawn later is as without


def test_it_is_loaded_anew_where_it_turns_out_to_be_held_otherwise(tmp_path: Path) -> None:
    ahead, other = LoadAhead(*given(tmp_path), workers=1), OtherBase()
    assert ahead.take(other) is not None
    assert any("down_proj" in name for name in other.kept)


def test_what_fails_meanwhile_is_raised_where_the_base_is_needed(tmp_path: Path) -> None:
    base, settings, precision, device = given(tmp_path)
    weights = base.folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    ahead = LoadAhead(base, settings, precision, device, workers=1)
    with pytest.raises(Exception, match=r"model\.safetensors") as failed:
        ahead.take(WholeBase())
    with pytest.raises(type(failed.value), match=r"model\.safetensors"):
        load_base(base, settings, precision, device)


def test_it_waits_for_the_plan_where_this_worker_may_not_hold_all_of_it(tmp_path: Path) -> None:
    base, settings, precision, cpu = given(tmp_path)
    small, other = Device("cuda", "a small one", (7, 5), 1 << 20), OtherBase()
    for device, workers in ((small, 1), (cpu, 2)):
        ahead = LoadAhead(base, settings, precision, device, workers)
        assert ahead._thread is None
    assert ahead.take(other) is not None and other.kept
