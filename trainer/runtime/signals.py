"""SIGTERM and SIGINT: end soon, in order, without losing work.

A first signal raises `Stopped` where the main thread stands, or after the import that it is in;
no library swallows it. An import that goes on for long ends the process there and then, which loses
no more than SIGKILL does. Inside `deferred()` a signal only sets a flag that the training loop
reads between two optimizer steps. A second signal ends the process at once.
"""

import contextlib
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from trainer.errors import Interrupted


class Stopped(BaseException):
    """A signal arrived. Not an Exception: libraries catch those and go on."""


STDERR = 2
AGAIN_S = 0.01
LONG_IMPORT_S = 0.5  # torch and what stands on it take seconds, on a busy machine ten
IMPORTING = "<frozen importlib._bootstrap>"  # the file of the frames below a module's own
GRACE_S = 20.0  # of the 30 that Kubernetes gives by default; some spot notices leave even less

_requested: int | None = None
_requested_at = 0.0
_notice = ""
_deferring = True  # until `deliver`: nothing is running yet that could end in order


def install() -> None:
    """Handle SIGTERM and SIGINT from now on."""
    signal.signal(signal.SIGTERM, _handle)
    signal.signal(signal.SIGINT, _handle)
    signal.signal(signal.SIGALRM, _raise_again)
    sys.unraisablehook = _unraisable


def deliver() -> None:
    """From now on a signal interrupts. Raises Interrupted when one came before."""
    global _deferring
    _deferring = False
    raise_if_requested()


def hold() -> None:
    """From now on a signal only sets a flag: what remains is too short to be broken off.

    Raises Interrupted when one came before.
    """
    global _deferring
    _deferring = True
    raise_if_requested()


def requested() -> bool:
    """Whether a signal has asked this run to end."""
    return _requested is not None


def seconds_left() -> float:
    """Until the grace period is used up; without end when no signal came."""
    return math.inf if _requested is None else _requested_at + GRACE_S - time.monotonic()


def out_of_time() -> bool:
    """Whether a signal came so long ago that nothing must be waited for any more."""
    return seconds_left() < 0


def raise_if_requested() -> None:
    """Raises Interrupted when a signal has asked this run to end."""
    if _requested is not None:
        raise interruption()


def interruption() -> Interrupted:
    """What a stopped run says at its end."""
    name = signal.Signals(_requested).name if _requested is not None else "a signal"
    return Interrupted(f"{name} stopped the run; start it again to go on where it stopped")


@contextlib.contextmanager
def deferred(notice: str) -> Iterator[None]:
    """Within this block a first signal only sets a flag; leaving the block raises Interrupted.

    `notice` tells a person at a terminal what the signal has started.
    """
    global _deferring, _notice
    _deferring, _notice = True, notice
    try:
        raise_if_requested()
        yield
        raise_if_requested()
    finally:
        _deferring, _notice = False, ""


def _handle(number: int, frame: FrameType | None) -> None:
    global _requested, _requested_at
    if _requested is not None:
        os._exit(Interrupted.exit_code)
    _requested, _requested_at = number, time.monotonic()
    if not _deferring:
        _raise(frame)
    elif _notice and os.isatty(STDERR):  # whoever pressed Ctrl-C sees that it was heard
        os.write(STDERR, f"\n{_notice}\n".encode())  # logging is not for signal handlers


def _unraisable(lost: Any) -> None:
    """What was raised in a finalizer, which Python reports and drops: a `Stopped` is raised again,
    a moment later and elsewhere."""
    if lost.exc_type is Stopped:
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)
    else:
        sys.__unraisablehook__(lost)


def _raise_again(_number: int, frame: FrameType | None) -> None:
    if not _deferring:
        _raise(frame)


def _raise(frame: FrameType | None) -> None:
    """Raise `Stopped`, a moment later where a module is being imported: extensions run Python from
    C++ while torch is, and what is raised through them ends the process with an abort."""
    while frame and frame.f_code.co_filename != IMPORTING:
        frame = frame.f_back
    if not frame:
        raise Stopped
    if time.monotonic() - _requested_at > LONG_IMPORT_S:
        _end_here()
    signal.setitimer(signal.ITIMER_REAL, AGAIN_S)


def _end_here() -> None:
    from trainer.runtime import last_words  # which is there by now: nothing is read from disk

    try:
        last_words.end(interruption())
    finally:
        os._exit(Interrupted.exit_code)
