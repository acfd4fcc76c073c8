"""When a run will be done: told as soon as its steps show it, and again when that has changed."""

import logging
from bisect import bisect_left
from collections.abc import Callable

from trainer.runtime.log import figures
from trainer.runtime.wording import lasting

log = logging.getLogger(__name__)

SHOWN_S = 5.0  # of steps; fewer say little, and a step may take longer
AGAIN = 3  # times as long after the start as it was told last
MOVED = 1.25  # times as long as was told, or so much shorter


class Forecast:
    """`tokens` says how many so many steps train; `afterwards` in words what comes behind a
    training of so many seconds, in which a token took so many, and how long that takes."""

    def __init__(
        self, tokens: Callable[[int], int], afterwards: Callable[[float, float], str], steps: int
    ) -> None:
        self._tokens, self._afterwards, self._steps = tokens, afterwards, steps
        self._done: list[int] = []
        self._at: list[float] = []
        self._told_s = self._told_at_s = 0.0

    def start(self, step: int, now: float) -> None:
        """Training goes on behind `step`, which is 0 for a run that begins."""
        self._done, self._at = [step], [now]

    def step(self, step: int, now: float) -> float:
        """Seconds that are left, by the later half of the steps since the start: the first compile,
        and what else runs on the machine comes and goes. `now` is of any clock, in seconds."""
        self._done.append(step)
        self._at.append(now)
        trained = step - self._done[0]
        first = bisect_left(self._done, step - max(1, (trained + 1) // 2))
        rate_s = (now - self._at[first]) / (self._tokens(step) - self._tokens(self._done[first]))
        left_s = rate_s * (self._tokens(self._steps) - self._tokens(step))
        self._tell(step, now - self._at[0], left_s, rate_s)
        return left_s

    def _tell(self, step: int, spent_s: float, left_s: float, rate_s: float) -> None:
        """Not of what is over in a moment, nor of a single step that is short."""
        early = spent_s < SHOWN_S or (len(self._done) < 4 and spent_s < 5 * SHOWN_S)
        if early or left_s < SHOWN_S:
            return
        whole_s, told_s = spent_s + left_s, self._told_s
        if told_s and (spent_s < AGAIN * self._told_at_s or 1 / MOVED < whole_s / told_s < MOVED):
            return
        self._told_s, self._told_at_s = whole_s, spent_s
        log.info(
            "training takes %s more%s, then come %s",
            lasting(left_s),
            " at this speed" if told_s else "",
            self._afterwards(whole_s, rate_s),
            extra=figures(phase="training", step=step, seconds_left=round(left_s, 1)),
        )
