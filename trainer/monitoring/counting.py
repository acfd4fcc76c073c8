"""How far a phase is whose pieces can be counted: a bar on a terminal, a log line each half minute
elsewhere. A thread keeps it moving while one piece takes long."""

import contextlib
import importlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, TextIO

from trainer.runtime.log import figures, terminal

log = logging.getLogger(__name__)

LINE_EVERY_S, DRAW_EVERY_S = 30.0, 0.5
SHOWN_AFTER_S = 1.0  # what is over before needs no bar; several such follow each other
Add = Callable[[int], None]
COUNTED = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} [{elapsed} < {remaining}{postfix}]"
WAITING = "{desc} … {elapsed}"
_waits: ContextVar[bool] = ContextVar("_waits", default=False)
_outer: ContextVar[Add | None] = ContextVar("_outer", default=None)


@contextlib.contextmanager
def counting(what: str, total: int, *, line_every_s: float = LINE_EVERY_S) -> Iterator[Add]:
    """While `total` pieces are done: call what it gives with the number of those that are new.

    Inside of another one it counts for that.
    """
    if (outer := _outer.get()) is not None:
        yield outer
        return
    with contextlib.ExitStack() as open_:
        if (stream := terminal()) is None:
            add = _lines(what, total, line_every_s, open_)
        else:
            bar = open_.enter_context(bar_on(stream, what, total, delay=SHOWN_AFTER_S, leave=False))
            open_.enter_context(every(DRAW_EVERY_S, bar.refresh))
            add = bar.update
        token = _outer.set(add)
        open_.callback(_outer.reset, token)
        yield add


@contextlib.contextmanager
def uncounted() -> Iterator[None]:
    """What is counted inside are no pieces of the one outside."""
    token = _outer.set(lambda _: None)
    try:
        yield
    finally:
        _outer.reset(token)


@contextlib.contextmanager
def waiting(
    what: str, *, line_every_s: float = LINE_EVERY_S, shown_after_s: float = SHOWN_AFTER_S
) -> Iterator[None]:
    """While something is done whose pieces nobody counts: for how long already. Inside of another
    phase that has its bar or lines, nothing."""
    if _outer.get() is not None or _waits.get():
        yield
        return
    with contextlib.ExitStack() as open_:
        if (stream := terminal()) is None:
            began = time.monotonic()
            open_.enter_context(every(line_every_s, lambda: _say_waiting(what, began)))
        else:
            bar = open_.enter_context(
                bar_on(stream, what, None, delay=shown_after_s, leave=False, form=WAITING)
            )
            open_.enter_context(every(DRAW_EVERY_S, bar.refresh))
        token = _waits.set(True)
        open_.callback(_waits.reset, token)
        yield


def import_in_sight(*modules: str) -> None:
    """Import what takes seconds on a machine that is busy, and show that from the first moment."""
    with waiting("starting", shown_after_s=0):
        for name in modules:
            importlib.import_module(name)


def _say_waiting(what: str, began: float) -> None:
    seconds = time.monotonic() - began
    log.info("%s: for %.0f s", what, seconds, extra=figures(phase=what, seconds=seconds))


@contextlib.contextmanager
def every(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """`act` is called so often from a thread of its own, until the end of the block."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(seconds):
            act()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def bar_on(
    stream: TextIO,
    what: str,
    total: int | None,
    *,
    done: int = 0,
    delay: float = 0,
    leave: bool = True,
    form: str = COUNTED,
) -> Iterator[Any]:
    """tqdm's bar, with lines of the log above it and not into it."""
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    bar = tqdm(
        total=total,
        initial=done,
        desc=what,
        file=stream,
        delay=delay,
        leave=leave,
        # Some terminals have no size: there tqdm would draw nothing.
        dynamic_ncols=os.get_terminal_size(stream.fileno()).columns > 0,
        bar_format=form,
        smoothing=0.05,  # steps of a pass may differ in size
    )
    with bar, logging_redirect_tqdm():
        try:
            yield bar
        finally:
            if not leave:  # a line of the log draws it early, and what is early it leaves there
                bar.clear()


def _lines(what: str, total: int, seconds: float, open_: contextlib.ExitStack) -> Add:
    began, done = time.monotonic(), 0

    def add(number: int) -> None:
        nonlocal done
        done += number

    def say() -> None:
        left = f"{(time.monotonic() - began) / done * (total - done):.0f} s left" if done else "…"
        said = figures(phase=what, done=done, total=total, seconds=time.monotonic() - began)
        log.info("%s: %d of %d, %s", what, done, total, left, extra=said)

    open_.enter_context(every(seconds, say))
    return add
