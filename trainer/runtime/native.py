"""Native code that may have no end by itself, which nothing in this process can stop: it runs on a
thread of its own, so that signals are heard meanwhile, and is waited for so long and no longer."""

import threading
from collections.abc import Callable
from typing import TypeVar

from trainer.runtime import signals

_TICK_S = 0.1  # a process that was frozen meanwhile has not been waiting
_SIGNAL_S = 0.5  # that are waited once a signal has come
Given = TypeVar("Given")


class NoEndError(Exception):
    """It was not done in its time, and still takes a core."""


def within(seconds: float, work: Callable[[], Given]) -> Given:
    """What `work` gives. Raises what it raises, NoEndError after `seconds`, and Interrupted soon
    after a signal."""
    ended = threading.Event()
    given: list[Given] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            given.append(work())
        except BaseException as error:  # which whoever waits gets
            raised.append(error)
        finally:
            ended.set()

    threading.Thread(target=run, daemon=True).start()
    ticks = 0
    while not ended.wait(_TICK_S):
        ticks += 1
        if ticks * _TICK_S > (_SIGNAL_S if signals.requested() else seconds):
            signals.raise_if_requested()
            raise NoEndError
    if raised:
        raise raised[0]
    return given[0]
