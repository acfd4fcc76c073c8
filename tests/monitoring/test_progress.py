"""Where nobody looks at a terminal, a step is a line of the log."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bases import settings_for
from tqdm import tqdm

from trainer.monitoring.progress import Progress, _shown_in
from trainer.monitoring.prometheus import Metrics
from trainer.runtime.log import FIELDS


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    with Metrics(settings_for("builtin:tiny", tmp_path)) as metrics:
        yield metrics


def report(progress: Progress, step: int, held_out_loss: float | None) -> None:
    progress.step(
        step,
        loss=1.23456789,
        held_out_loss=held_out_loss,
        learning_rate=1e-4,
        tokens_per_s=1234.56,
        seconds_left=7.89,
    )


def test_as_text_a_step_names_the_last_held_out_loss(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress("text", metrics)
    with caplog.at_level("INFO"):
        progress.start(2, 10)
        report(progress, 3, 2.0)
        report(progress, 4, None)
        progress.saved(4)
        progress.close()
    assert [record.getMessage() for record in caplog.records] == [
        "step 3 of 10, loss 1.2346, held-out 2.0000, 1,235 tokens/s",
        "step 4 of 10, loss 1.2346, held-out 2.0000, 1,235 tokens/s",
        "checkpoint of step 4 saved",
    ]


def test_what_is_no_held_out_loss_is_not_named_so(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress("text", metrics, shows_held_out=False)
    with caplog.at_level("INFO"):
        progress.start(2, 10)
        report(progress, 3, 2.0)
        progress.close()
    assert caplog.messages == ["step 3 of 10, loss 1.2346, 1,235 tokens/s"]


def test_as_json_a_step_has_its_own_figures_alone(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress("json", metrics)
    with caplog.at_level("INFO"):
        progress.start(0, 10)
        report(progress, 1, 2.123456)
        report(progress, 2, None)
    first, second = (getattr(record, FIELDS) for record in caplog.records)
    assert first == {
        "step": 1,
        "steps": 10,
        "loss": 1.23457,
        "held_out_loss": 2.12346,
        "learning_rate": 1e-4,
        "tokens_per_s": 1234.6,
        "seconds_left": 7.9,
    }
    assert "held_out_loss" not in second


def test_a_step_that_takes_long_is_heard_of(
    metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    progress = Progress("json", metrics)
    with caplog.at_level("INFO"):
        progress.start(2, 10)
        progress._say_still()
        assert not caplog.records
        progress._stepped -= 31
        progress._say_still()
        progress.close()
    (still,) = (getattr(record, FIELDS) for record in caplog.records)
    assert (still["phase"], still["step"], still["steps"]) == ("training", 3, 10)
    assert still["seconds"] > 30


@pytest.mark.parametrize("width", [44, 60, 75, 76, 99, 100, 140])
def test_the_figures_behind_the_bar_are_whole_in_a_terminal_of_any_width(width: int) -> None:
    form, count = _shown_in(width)
    figures = ["loss 2.8364", ", held-out 1.7072", ", 1,626 tokens/s"][:count]
    more = {"bar_format": form, "postfix": "".join(figures)}
    line = tqdm.format_meter(120, 120, 3601, ncols=width - 1, prefix="training", **more)
    assert line.endswith(f"{figures[-1]}]") and len(line) <= width
