"""How far the training is: a bar on a terminal, a log line a step elsewhere; and metrics."""

import contextlib
import logging
import sys
import time
from typing import Any

from trainer.monitoring.counting import COUNTED, DRAW_EVERY_S, LINE_EVERY_S, bar_on, every
from trainer.monitoring.prometheus import Metrics
from trainer.runtime.log import columns, figures, wants_text

log = logging.getLogger(__name__)

WIDE, USUAL = 100, 76  # columns from which all figures stand behind the bar, and some of them
SHORT = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{remaining}{postfix}]"  # for fewer


class Progress:
    """Start it with the run, tell it of each step, close it at the end."""

    def __init__(self, log_format: str, metrics: Metrics, *, shows_held_out: bool = True) -> None:
        """Where nothing is held out, people are not shown what is measured in its place."""
        self._metrics, self._shows_held_out = metrics, shows_held_out
        self._as_text = wants_text(log_format)
        self._bar: Any = None
        self._done = self._last = 0
        self._stepped = time.monotonic()
        self._held_out = ""
        self._open = contextlib.ExitStack()

    def start(self, done: int, steps: int) -> None:
        """`done` steps of `steps` lie behind already."""
        self._done, self._last, self._stepped = done, steps, time.monotonic()
        self._metrics.start(done, steps)
        if self._as_text and sys.stdout.isatty():
            bar = bar_on(sys.stdout, "training", steps, done=done)
            self._bar = self._open.enter_context(bar)
            self._open.enter_context(every(DRAW_EVERY_S, self._bar.refresh))
        else:
            self._open.enter_context(every(LINE_EVERY_S, self._say_still))

    def _say_still(self) -> None:
        """A step that takes longer than that has no line of its own yet."""
        seconds = time.monotonic() - self._stepped
        if seconds > LINE_EVERY_S:
            step = self._done + 1
            log.info(
                "step %d of %d has been computing for %.0f s",
                step,
                self._last,
                seconds,
                extra=figures(phase="training", step=step, steps=self._last, seconds=seconds),
            )

    def step(
        self,
        step: int,
        *,
        loss: float,
        held_out_loss: float | None,
        learning_rate: float,
        tokens_per_s: float,
        seconds_left: float,
    ) -> None:
        """One optimizer step is done."""
        self._done, self._stepped = step, time.monotonic()
        self._metrics.step(step, loss=loss, tokens_per_s=tokens_per_s, seconds_left=seconds_left)
        if held_out_loss is not None and self._shows_held_out:
            self._held_out = f", held-out {held_out_loss:.4f}"
        if self._bar is not None:
            figures_behind = f"loss {loss:.4f}", self._held_out, f", {tokens_per_s:,.0f} tokens/s"
            self._bar.bar_format, count = _shown_in(columns(sys.stdout))
            self._bar.set_postfix_str("".join(figures_behind[:count]), refresh=False)
            self._bar.update(step - self._bar.n)
        elif self._as_text:
            log.info(
                "step %d of %d, loss %.4f%s, %s tokens/s",
                step,
                self._last,
                loss,
                self._held_out,
                f"{tokens_per_s:,.0f}",
            )
        else:
            log.info(
                "step",
                extra=figures(
                    step=step,
                    steps=self._last,
                    loss=round(loss, 5),
                    **({} if held_out_loss is None else {"held_out_loss": round(held_out_loss, 5)}),
                    learning_rate=learning_rate,
                    tokens_per_s=round(tokens_per_s, 1),
                    seconds_left=round(seconds_left, 1),
                ),
            )

    def saved(self, step: int) -> None:
        """The checkpoint of `step` is on disk."""
        self._metrics.saved()
        log.info("checkpoint of step %d saved", step, extra=figures(checkpoint=step))

    def close(self) -> None:
        self._open.close()
        self._bar = None


def _shown_in(width: int) -> tuple[str, int]:
    """The form of the bar in so many columns, and how many of its three figures."""
    if width < USUAL:
        return SHORT, 1
    return COUNTED, 3 if width >= WIDE else 2
