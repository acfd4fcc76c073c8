"""Whether training can go on from a checkpoint's content, found out before any of it is used.

A manifest says that the files are those it lists and nothing about what is in them. Whatever would
fail or be misread later, in the middle of loading, is found here, where there is another checkpoint
to go to. Reading executes nothing.
"""

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file
from transformers import TrainerState

from trainer.monitoring.step_log import as_lines, best_held_out, rows_of
from trainer.planner.memory_plan import MemoryPlan
from trainer.training.checkpoint_state import (
    ADAPTER,
    BEST,
    PLAN,
    STATE,
    TENSORS,
    TRAINER_STATE,
    read_plan,
    read_state,
    without_functions,
)

ROW = ("loss", "seconds", "tokens_per_s", "memory_gib")  # of any row, beside others of some


def fault(
    checkpoint: Path,
    trainable: dict[str, torch.Tensor],
    optimizer: dict[str, Any],
    keeps_best: bool,
) -> str | None:
    """The file that cannot be used and why; None when training can go on from `checkpoint`.

    `trainable` are the adapter's tensors; `optimizer` is the state of such an optimizer as this
    run's after a step; `keeps_best` says whether the best adapter so far is needed too. What is the
    machine's fault, memory or disk, is raised.
    """
    checks: dict[str, Callable[[], Iterator[str]]] = {
        ADAPTER: lambda: _adapter(checkpoint, trainable),
        TENSORS: lambda: _tensors(checkpoint),
        STATE: lambda: _state(checkpoint, optimizer),
        TRAINER_STATE: lambda: _position(checkpoint),
        BEST: lambda: _best(checkpoint, trainable) if keeps_best else iter(()),
        PLAN: lambda: _plan(checkpoint),
    }
    for name, check in checks.items():
        try:
            found = next(check(), None)
        except FileNotFoundError:
            found = "is missing"
        except (MemoryError, OSError):
            raise
        except Exception as error:  # whatever a library makes of what nobody should have written
            found = f"cannot be read ({type(error).__name__})"
        if found is not None:
            return f"{name} {found}"
    return None


def _adapter(checkpoint: Path, trainable: dict[str, torch.Tensor]) -> Iterator[str]:
    saved = load_file(checkpoint / ADAPTER)
    yield from misfits(saved, {n: torch.empty(t.shape) for n, t in trainable.items()})


def _best(checkpoint: Path, trainable: dict[str, torch.Tensor]) -> Iterator[str]:
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
    best = best_held_out(rows_of(state.log_history))
    if best is not None and best["step"] != state.global_step:
        saved = load_file(checkpoint / BEST)
        yield from misfits(saved, {n: torch.empty(t.shape) for n, t in trainable.items()})


def _tensors(checkpoint: Path) -> Iterator[str]:
    load_file(checkpoint / TENSORS)
    yield from ()


def _state(checkpoint: Path, optimizer: dict[str, Any]) -> Iterator[str]:
    state = read_state(checkpoint)
    yield from _optimizer_misfits(state, optimizer)
    groups = [{"params": [torch.empty(1)]} for _ in optimizer["param_groups"]]
    scheduler = torch.optim.lr_scheduler.LambdaLR(torch.optim.SGD(groups, 1.0), lambda _: 1.0)
    like = without_functions(scheduler.state_dict())
    yield from misfits(state["scheduler"], like, "scheduler")
    if state["scaler"] is not None:
        yield from misfits(state["scaler"], torch.amp.GradScaler("cpu").state_dict(), "scaler")
    yield from _random_faults(state["rng"])


def _optimizer_misfits(state: dict[str, Any], like: dict[str, Any]) -> Iterator[str]:
    """fp16 may have skipped every step so far: then no parameter has a state."""
    if state["scaler"] is not None and state["optimizer"]["state"] == {}:
        like = like | {"state": {}}
    yield from misfits(state["optimizer"], like, "optimizer")
    for group, other in zip(state["optimizer"]["param_groups"], like["param_groups"], strict=True):
        if group["params"] != other["params"]:
            yield "has the optimizer's parameters in another order"


def _random_faults(states: dict[str, Any]) -> Iterator[str]:
    """Tried on generators that nobody uses; they refuse what is no state of theirs."""
    random.Random().setstate(states["python"])
    numpy.random.RandomState().set_state(states["numpy"])
    torch.Generator().set_state(states["cpu"])
    if states["cuda"] is not None:
        if not torch.cuda.is_available():
            yield "was written on a GPU and there is none"
            return
        torch.Generator("cuda").set_state(states["cuda"])


def _position(checkpoint: Path) -> Iterator[str]:
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE))
    blank = {name: value for name, value in vars(TrainerState()).items() if value is not None}
    lists = {"log_history"}
    yield from misfits(vars(state), {n: v for n, v in blank.items() if n not in lists})
    if checkpoint.name.partition(".")[0] != f"step-{state.global_step:06d}":
        yield f"is of step {state.global_step}"
    rows = rows_of(state.log_history)
    as_lines(rows)
    steps = [row["step"] for row in rows]  # the step that it says may be any number
    if len(steps) != state.global_step or steps != list(range(1, len(steps) + 1)):
        yield "does not have one row for each step"
    for row in rows:
        numbers = {name: row[name] for name in {*ROW, *row} if row[name] is not None}
        yield from misfits(numbers, dict.fromkeys(numbers, 0.0), f"row {row['step']}")


def _plan(checkpoint: Path) -> Iterator[str]:
    execution = read_plan(checkpoint)
    if execution is not None:
        yield from misfits(execution.blocks, 1, "blocks")
        if execution.plan is not None:
            yield from misfits(execution.plan.to_json(), MemoryPlan(0).to_json())
        if execution.blocks < 1:
            yield f"has {execution.blocks} blocks in a micro-batch"


def misfits(found: Any, like: Any, where: str = "") -> Iterator[str]:
    """Where `found` is not of the same form as `like`; what dictionaries hold beside is left."""
    named = f"{where} " if where else ""
    if _kind(found) != _kind(like):
        yield f"has {named or 'content '}as {_kind(found)} and not as {_kind(like)}"
    elif isinstance(like, dict):
        for key, value in like.items():
            below = f"{where}/{key}" if where else str(key)
            if key not in found:
                yield f"lacks {below}"
            else:
                yield from misfits(found[key], value, below)
    elif isinstance(like, list | tuple):
        if len(found) != len(like):
            yield f"has {len(found)} {named}and not {len(like)}"
        for at, (one, other) in enumerate(zip(found, like, strict=False)):
            yield from misfits(one, other, f"{where}/{at}")


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor | numpy.ndarray):
        size = " x ".join(map(str, value.shape)) or "one"
        return f"{size} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, int | float) and not isinstance(value, bool):
        is_countable = isinstance(value, float) or abs(value) <= sys.float_info.max
        return "number" if is_countable else "number beyond all floats"
    return type(value).__name__
