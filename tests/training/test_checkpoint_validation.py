"""A checkpoint whose content cannot be used is named, before any of it is used."""

import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.forgeries import Forgery, bytes_of, json_of, tensors_of
from support.jobs import adapter_bytes, run_here, stop_here
from support.pickles import pickled, saved_by_torch
from transformers import TrainerState

from trainer.training import checkpoint_validation
from trainer.training.resumable_trainer import ResumableTrainer

SETTINGS = {"CHECKPOINT_EVERY": "1"}
MARK = Path(tempfile.gettempdir(), f"poison-{secrets.token_hex(8)}")  # made by who unpickles
ADAPTER, TENSORS = "adapter.safetensors", "state.safetensors"
STATE, POSITION, PLAN = "state.json", "trainer_state.json", "plan.json"


def last(tensors: dict[str, Any], part: str = "") -> str:
    return [name for name in tensors if part in name][-1]


def shorten(part: str = "") -> Callable[[dict[str, Any]], object]:
    def change(tensors: dict[str, Any]) -> None:
        name = last(tensors, part)
        tensors[name] = tensors[name].flatten()[:-1].clone()

    return change


def drop(part: str = "") -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.pop(last(tensors, part))


def halve(tensors: dict[str, Any]) -> None:
    name = last(tensors)
    tensors[name] = tensors[name].to(torch.float16)


def entry(parts: Any, *keys: Any) -> list[Any]:
    """The [key, value] of a dictionary in `state.json`."""
    for key in keys:
        found = next(pair for pair in parts["dict"] if pair[0] == key)
        parts = found[1]
    return found


def remove(*keys: Any) -> Callable[[Any], object]:
    def change(parts: Any) -> None:
        inside = entry(parts, *keys[:-1])[1] if keys[1:] else parts
        inside["dict"].remove(entry(inside, keys[-1]))

    return change


def replace(value: Any, *keys: Any) -> Callable[[Any], object]:
    def change(parts: Any) -> None:
        entry(parts, *keys)[1] = value

    return change


FORGED: dict[str, tuple[Forgery, str]] = {
    **{
        f"{how} as {name}": (bytes_of(name, content), f"{name} cannot be read")
        for name in (ADAPTER, TENSORS, STATE, POSITION, PLAN)
        for how, content in {
            "a pickle": pickled(MARK),
            "a pickle of torch's": saved_by_torch(MARK),
            "garbage": bytes(range(256)) * 40,
            "nothing": b"",
            "deep JSON": b"[" * 100_000,
        }.items()
    },
    **{
        f"no {name}": (lambda folder, name=name: (folder / name).unlink(), f"{name} is missing")
        for name in (ADAPTER, TENSORS, STATE, POSITION)
    },
    "a tensor of another size": (tensors_of(ADAPTER, shorten()), f"{ADAPTER} has .* and not as"),
    "a tensor of another type": (tensors_of(ADAPTER, halve), f"{ADAPTER} has .* float16 and not"),
    "a tensor less": (tensors_of(ADAPTER, drop()), f"{ADAPTER} lacks "),
    "a shorter moment": (tensors_of(TENSORS, shorten("state1")), f"{STATE} has optimizer/state/"),
    "a moment less": (tensors_of(TENSORS, drop("state2")), f"{STATE} cannot be read"),
    "a shorter generator": (tensors_of(TENSORS, shorten("rng/cpu")), f"{STATE} cannot be read"),
    "an object": (
        json_of(STATE, replace({"py/reduce": [{"py/function": "os.system"}]}, "optimizer")),
        f"{STATE} cannot be read",
    ),
    "no optimizer": (json_of(STATE, remove("optimizer")), f"{STATE} cannot be read"),
    "a parameter without state": (
        json_of(STATE, remove("optimizer", "state", 0)), f"{STATE} lacks optimizer/state/0"
    ),
    "no parameter with state": (
        json_of(STATE, replace({"dict": []}, "optimizer", "state")), f"{STATE} lacks optimizer/sta"
    ),
    "no rate": (json_of(STATE, replace({"list": []}, "scheduler", "base_lrs")), "base_lrs"),
    "a rate in words": (
        json_of(STATE, replace("high", "scheduler", "last_epoch")), "scheduler/last_epoch as str"
    ),
    "no schedule": (json_of(STATE, replace({"dict": []}, "scheduler")), "lacks scheduler/"),
    "a scaler in words": (json_of(STATE, replace("big", "scaler")), "has scaler as str"),
    "another position": (
        json_of(POSITION, lambda state: state.update(global_step=2)), f"{POSITION} is of step 2"
    ),
    "a position in words": (
        json_of(POSITION, lambda state: state.update(max_steps="six")), "has max_steps as str"
    ),
    "a row less": (
        json_of(POSITION, lambda state: state["log_history"].pop(0)), "one row for each step"
    ),
    "a row in words": (
        json_of(POSITION, lambda state: state["log_history"][0].update(loss="low")), "row 1/loss"
    ),
    "a loss of 400 digits": (
        json_of(POSITION, lambda state: state["log_history"][0].update(loss=10**400)),
        "row 1/loss as number beyond all floats",
    ),
    "a norm in words": (
        json_of(POSITION, lambda state: state["log_history"][0].update(grad_norm="low")),
        "row 1/grad_norm as str",
    ),
    "a step of 400 digits": (
        json_of(STATE, replace(10**400, "scheduler", "last_epoch")), f"{STATE} cannot be read"
    ),
    "no blocks": (json_of(PLAN, lambda plan: plan.update(blocks=0)), f"{PLAN} has 0 blocks"),
    "layers in words": (
        json_of(PLAN, lambda plan: plan["plan"].update(kept_layers="all")), "has kept_layers as"
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return adapter_bytes(run_here(tmp_path_factory.mktemp("whole"), **SETTINGS))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped in its third step: checkpoints of the second and the third."""
    folder = tmp_path_factory.mktemp("stopped")
    stop_here(folder, **SETTINGS)
    return folder


@pytest.fixture(scope="module")
def faults(
    stopped: Path, whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str | None]:
    """What a run that goes on from a good checkpoint says of each forged one, and of its own."""
    found: dict[str, str | None] = {}
    unusable = ResumableTrainer.unusable

    def check(trainer: ResumableTrainer, checkpoint: Path) -> str | None:
        for name, (forge, _) in FORGED.items():
            forged = tmp_path_factory.mktemp("forged") / checkpoint.name
            shutil.copytree(checkpoint, forged)
            forge(forged)
            found[name] = unusable(trainer, forged)
        return unusable(trainer, checkpoint)

    folder = shutil.copytree(stopped, tmp_path_factory.mktemp("checked") / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResumableTrainer, "unusable", check)
        assert adapter_bytes(run_here(folder, **SETTINGS)) == whole
    return found


@pytest.mark.parametrize("name", FORGED)
def test_what_cannot_be_gone_on_from_is_said_by_file(
    name: str, faults: dict[str, str | None]
) -> None:
    fault = faults[name]
    assert fault is not None
    assert re.search(FORGED[name][1], fault), fault
    assert not MARK.exists()


def test_a_step_of_any_number_is_compared_without_counting_to_it(tmp_path: Path) -> None:
    """Of 10^9 steps a list took 36 GB, at every start."""
    folder = tmp_path / f"step-{10**12}"
    folder.mkdir()
    TrainerState(global_step=10**12, log_history=[{"step": 1}]).save_to_json(folder / POSITION)
    assert next(checkpoint_validation._position(folder)) == "does not have one row for each step"
