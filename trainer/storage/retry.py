"""Trying again what fails for a while, and one sentence for the person who started the run."""

import logging
import random
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from trainer.errors import JobError
from trainer.runtime.signals import out_of_time
from trainer.runtime.wording import lasting

log = logging.getLogger(__name__)
Result = TypeVar("Result")

LONGEST_PAUSE_S = 60.0
# Set when another thread of the same transfer failed: its error ends the run, waiting does not.
transfer_failed: ContextVar[threading.Event] = ContextVar("transfer_failed")


@dataclass(frozen=True)
class Failure:
    """One sentence in parts: the fact, the next step, and the type that is the retry decision."""

    kind: type[JobError]
    fact: str
    next_step: str
    passing: bool = False
    wait_s: float = 0
    """for which the other side asked to be left alone"""

    def error(self, where: str, tried_s: float = 0) -> JobError:
        tried = f", tried for {lasting(tried_s)}" if self.passing else ""
        return self.kind(f"{where}: {self.fact}{tried}; {self.next_step}")


def retry(
    action: Callable[[], Result],
    explain: Callable[[Exception], Failure | None],
    where: str,
    minutes: float,
) -> Result:
    """Call `action` until it succeeds, fails for good, or has failed for `minutes`.

    After a signal it is called again for no longer than the grace period allows.

    Exponential backoff with full jitter, https://aws.amazon.com/blogs/architecture/
    exponential-backoff-and-jitter. What `explain` does not know is raised as it is.
    """
    given_up, failed_at, attempt = transfer_failed.get(threading.Event()), 0.0, 0
    while True:
        try:
            return action()
        except Exception as error:
            failure = explain(error)
            if failure is None:
                raise
        now = time.monotonic()
        failed_at = failed_at or now
        left_s = failed_at + minutes * 60 - now
        pause_s = random.uniform(0, min(LONGEST_PAUSE_S, 2.0**attempt))
        pause_s = min(left_s, max(pause_s, failure.wait_s))
        if not failure.passing or left_s <= 0 or given_up.is_set() or out_of_time():
            # Outside of the except block: the original text, which may hold a password, is gone.
            raise failure.error(where, now - failed_at)
        log.warning(
            "%s: %s; trying again, for %s more (QLORA_STORAGE_RETRY_MINUTES)",
            where,
            failure.fact,
            lasting(left_s),
        )
        _pause(pause_s, given_up)
        attempt += 1


def _pause(seconds: float, given_up: threading.Event) -> None:
    """In slices: a signal reaches the main thread only, and not whoever waits here."""
    until = time.monotonic() + seconds
    while (left_s := until - time.monotonic()) > 0 and not out_of_time():
        if given_up.wait(min(left_s, 1.0)):
            return
