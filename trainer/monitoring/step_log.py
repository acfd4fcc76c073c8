"""The rows of `metrics.jsonl`: one for each optimizer step."""

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "held_out_loss",
    "grad_norm",
    "learning_rate",
    "seconds",
    "tokens_per_s",
    "memory_gib",
)
StepRow = dict[str, Any]
RECENT_STEPS = 10  # whose speed is shown


def rows_of(log_history: Iterable[StepRow]) -> list[StepRow]:
    """transformers' log without what trl adds for itself. What is not finite is None: a gradient
    may be, while fp16's loss scale is found, and JSON has no word for it."""
    return [
        {name: _plain(row[name]) for name in COLUMNS if name in row}
        for row in log_history
        if "loss" in row
    ]


def as_lines(rows: Iterable[StepRow]) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def measured_rows(rows: Iterable[StepRow]) -> list[StepRow]:
    """Those in which the held-out loss was measured."""
    return [row for row in rows if row.get("held_out_loss") is not None]


def best_held_out(rows: Iterable[StepRow]) -> StepRow | None:
    """The row with the least held-out loss; None where none was measured."""
    return min(measured_rows(rows), key=lambda row: float(row["held_out_loss"]), default=None)


def recent_rate(log_history: list[StepRow], tokens: Callable[[int], int]) -> float:
    """Tokens/s of the last steps: what the first ones took to compile is soon forgotten. `tokens`
    says how many so many steps train."""
    rows = rows_of(log_history[-1 - RECENT_STEPS :])
    first: StepRow = {"step": 0, "seconds": 0.0}
    begin = rows[0] if len(rows) > RECENT_STEPS else first
    seconds: float = rows[-1]["seconds"] - begin["seconds"]
    return (tokens(rows[-1]["step"]) - tokens(begin["step"])) / max(seconds, 1e-9)


def seconds_of(history: list[StepRow]) -> float:
    """Training time up to the last row that says so."""
    return next((row["seconds"] for row in reversed(history) if "seconds" in row), 0.0)


def _plain(value: Any) -> Any:
    return value if not isinstance(value, float) or math.isfinite(value) else None
