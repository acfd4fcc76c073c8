"""How far the training is: a bar on a terminal, a JSON log line a step elsewhere; and metrics."""

import logging
from typing import Any

from trainer.log import figures, wants_text
from trainer.metrics import Metrics

log = logging.getLogger(__name__)


class Progress:
    """Start it with the run, tell it of each step, close it at the end."""

    def __init__(self, log_format: str, metrics: Metrics) -> None:
        self._metrics = metrics
        self._as_bar = wants_text(log_format)
        self._bar: Any = None
        self._last = 0
        self._held_out = ""

    def start(self, done: int, steps: int) -> None:
        """`done` steps of `steps` lie behind already."""
        self._last = steps
        self._metrics.start(done, steps)
        if self._as_bar:
            from tqdm import tqdm

            self._bar = tqdm(
                total=steps,
                initial=done,
                desc="training",
                unit="step",
                bar_format="{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} steps "
                "[{elapsed} < {remaining}{postfix}]",
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
        self._metrics.step(step, loss=loss, tokens_per_s=tokens_per_s, seconds_left=seconds_left)
        if self._bar is not None:
            if held_out_loss is not None:
                self._held_out = f", held-out {held_out_loss:.4f}"
            self._bar.set_postfix_str(
                f"loss {loss:.4f}{self._held_out}, {tokens_per_s:,.0f} tokens/s", refresh=False
            )
            self._bar.update(step - self._bar.n)
        elif not self._as_bar:
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

    def saved(self) -> None:
        """A checkpoint is on disk."""
        self._metrics.saved()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
