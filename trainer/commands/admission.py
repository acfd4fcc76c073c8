"""How many questions may wait and how many may come: so that a bot that runs wild is told."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trainer.commands.loopback import RequestRefused


@dataclass(frozen=True)
class Limits:
    """Of one server, for all who ask it."""

    characters: int = 4000
    """of a question"""
    said: int = 12_000
    """characters of what was said before it"""
    kept: int = 20_000
    """characters of an answer that is kept"""
    messages: int = 100_000
    """characters of all messages that come by the API; the model may read fewer"""
    answer_tokens: int = 2048
    """of an answer, whatever is asked for"""
    waiting: int = 64
    """questions, those that are being answered included"""
    a_minute: int = 600


USUAL = Limits()


class Admission:
    """Few in line, and so many a minute."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._line = threading.BoundedSemaphore(limits.waiting)
        self._counting = threading.Lock()
        self._asked: deque[float] = deque(maxlen=limits.a_minute)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While a question waits and is answered. Raises RequestRefused when too much is asked."""
        self._count()
        if not self._line.acquire(blocking=False):
            waiting = self._limits.waiting
            raise RequestRefused(
                429, f"{waiting} questions are waiting already; try again soon", wait_s=1
            )
        try:
            yield
        finally:
            self._line.release()

    def _count(self) -> None:
        with self._counting:
            now, most = time.monotonic(), self._limits.a_minute
            if len(self._asked) == most and now - self._asked[0] < 60:
                wait_s = 60 - (now - self._asked[0])
                raise RequestRefused(
                    429,
                    f"{most} questions a minute are answered; try again in {wait_s:.0f} s",
                    code="rate_limit_exceeded",
                    wait_s=max(1.0, wait_s),
                )
            self._asked.append(now)
