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
from trainer.runs.checkpoints import from_parts

PLAN = "plan.json"  # another one ends in other last bits
STATE, TENSORS, ADAPTER = "state.json", "state.safetensors", "adapter.safetensors"
TRAINER_STATE = "trainer_state.json"  # the name under which transformers looks for its own


def trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def read_state(checkpoint: Path) -> dict[str, Any]:
    parts = json.loads((checkpoint / STATE).read_text())
    state: dict[str, Any] = from_parts(parts, load_file(checkpoint / TENSORS))
    return state


def write_plan(choice: Execution, folder: Path) -> None:
    plan = choice.plan and choice.plan.to_json()
    (folder / PLAN).write_text(json.dumps({"blocks": choice.blocks, "plan": plan}))


def read_plan(checkpoint: Path) -> Execution | None:
    """How memory was spent up to this checkpoint; None for one from before that was recorded."""
    if not (checkpoint / PLAN).exists():
        return None
    said = json.loads((checkpoint / PLAN).read_text())
    plan = said["plan"] and MemoryPlan.from_json(said["plan"])
    return Execution(said["blocks"], plan, "as the run began")


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
