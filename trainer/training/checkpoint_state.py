"""What a checkpoint holds beside the trainer's own record: where and how it is kept."""

import json
import random
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file

from trainer.planner.choose import Execution
from trainer.planner.memory_plan import MemoryPlan
from trainer.runtime.json_records import read_object, well_formed

PLAN = "plan.json"  # another one ends in other last bits
STATE, TENSORS, ADAPTER = "state.json", "state.safetensors", "adapter.safetensors"
BEST = "best.safetensors"  # the adapter of the best step so far, where that is an earlier one
TRAINER_STATE = "trainer_state.json"  # the name under which transformers looks for its own


def trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Raises ValueError for what `extract_tensors` did not write."""
    with well_formed("the state of a checkpoint"):
        content = read_object(checkpoint / STATE)
        state: dict[str, Any] = restore_tensors(content, load_file(checkpoint / TENSORS))
        return dict(state)


def write_plan(execution: Execution, folder: Path) -> None:
    plan = execution.plan and execution.plan.to_json()
    (folder / PLAN).write_text(
        json.dumps({"blocks": execution.blocks, "plan": plan}), encoding="utf-8"
    )


def read_plan(checkpoint: Path) -> Execution | None:
    """How memory was spent up to this checkpoint; None for one from before that was recorded.
    Raises ValueError for what `write_plan` did not write."""
    if not (checkpoint / PLAN).exists():
        return None
    with well_formed("the plan of a checkpoint"):
        content = read_object(checkpoint / PLAN)
        plan = content["plan"] and MemoryPlan.from_json(content["plan"])
        return Execution(content["blocks"], plan, "as the run began")


def extract_tensors(value: Any, tensors: dict[str, Any], path: str = "") -> Any:
    """`value` as JSON, its tensors and arrays moved into `tensors` under their path in it.

    Raises TypeError for what is neither.
    """
    if isinstance(value, torch.Tensor | numpy.ndarray):
        # A copy: optimizer states share their quantisation maps, and safetensors refuses aliases.
        tensors[path] = torch.as_tensor(value).detach().cpu().clone().contiguous()
        return {"tensor": path, "numpy": isinstance(value, numpy.ndarray)}
    if isinstance(value, dict):
        pairs = [[k, extract_tensors(v, tensors, f"{path}/{k}")] for k, v in value.items()]
        return {"dict": pairs}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [extract_tensors(v, tensors, f"{path}/{i}") for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path}: a {type(value).__name__} cannot be part of a checkpoint")


def restore_tensors(content: Any, tensors: dict[str, Any]) -> Any:
    """The inverse of `extract_tensors`."""
    if not isinstance(content, dict):
        return content
    if "tensor" in content:
        tensor = tensors[content["tensor"]]
        return tensor.numpy() if content["numpy"] else tensor
    if "dict" in content:
        return {key: restore_tensors(value, tensors) for key, value in content["dict"]}
    if "tuple" in content:
        return tuple(restore_tensors(value, tensors) for value in content["tuple"])
    return [restore_tensors(value, tensors) for value in content["list"]]


def without_functions(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without its lambdas, which are rebuilt from the settings."""
    return {name: value for name, value in state.items() if name != "lr_lambdas"} | {
        "lr_lambdas": [None]
    }


def random_state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    numpy.random.set_state(state["numpy"])
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
