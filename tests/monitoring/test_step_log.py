"""`metrics.jsonl`: a row for each optimizer step."""

from pathlib import Path

import pytest
from support.jobs import run_here

from trainer.monitoring.step_log import (
    as_lines,
    best_held_out,
    recent_rate,
    rows_of,
    seconds_of,
)


def test_the_rows_so_far_can_be_read_while_it_runs(tmp_path: Path) -> None:
    run = run_here(tmp_path)
    followed = (run / "checkpoints" / "metrics.jsonl").read_text()
    assert followed == (run / "metrics.jsonl").read_text()
    newest = max((run / "checkpoints").glob("step-*"))
    assert (newest / "metrics.jsonl").read_text() == followed


def test_rows_are_json_even_where_a_gradient_is_not_finite() -> None:
    history = [
        {"step": 1, "loss": 2.0, "grad_norm": float("nan"), "entropy": 1.0},
        {"step": 2, "loss": 1.0, "held_out_loss": 1.5},
        {"step": 3, "loss": 0.5, "held_out_loss": float("inf")},
        {"step": 3, "train_runtime": 1.0},
    ]
    kept = rows_of(history)
    assert as_lines(kept).splitlines()[0] == '{"step": 1, "loss": 2.0, "grad_norm": null}'
    assert len(kept) == 3
    assert best_held_out(kept) == kept[1]
    assert best_held_out(kept[:1]) is None


def test_the_time_of_a_run_is_that_of_its_last_row_that_says_so() -> None:
    assert seconds_of([{"seconds": 1.0}, {"seconds": 2.5}, {"step": 3}]) == 2.5
    assert seconds_of([]) == 0.0


def test_the_speed_that_is_shown_is_that_of_the_last_ten_steps() -> None:
    """The first step took a minute, the others a second each."""
    rows = [{"step": n, "loss": 1.0, "seconds": 59.0 + n} for n in range(1, 31)]
    assert recent_rate(rows[:1], lambda steps: 600 * steps) == 10
    assert recent_rate(rows[:10], lambda steps: 600 * steps) == pytest.approx(6000 / 69)
    assert recent_rate(rows, lambda steps: 600 * steps) == 600
