"""A chat template is a program that comes with a base: it may take so long, and no longer.

Whoever renders one is watched by a thread, which raises in it what no template can catch. That
reaches it between two steps of the program, so those that may take any time by themselves, powers
and products, are refused before.
"""

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from trainer.errors import SettingsError
from trainer.runtime import signals

MOST_S = 20.0  # for one conversation; the longest that is rendered takes one or two
_SIGNAL_S = 0.5  # of them once a signal has come
_TICK_S = 0.1

Result = TypeVar("Result")


class _Ended(BaseException):
    """Not an Exception: those are caught by what renders."""


@dataclass(eq=False)
class _Rendering:
    """One of them. `ticks` are how often it was seen at work: a process that was frozen meanwhile
    has not been working."""

    thread: int
    ticks: int = 0
    is_told: bool = False


def within_limits(render: Callable[[], Result]) -> Result:
    """What `render` gives. Raises SettingsError where it takes too long, Interrupted where a signal
    came and it still does."""
    one = _Rendering(threading.get_ident())
    try:
        try:
            _WATCH.begin(one)
            return render()
        except _Ended:
            one.is_told = False
            raise
        finally:
            _WATCH.end(one)
            while one.is_told:  # it is on its way
                time.sleep(_TICK_S)
    except _Ended:
        signals.raise_if_requested()
        raise SettingsError(
            f"the base model's chat template did not end within {MOST_S:g} s for one conversation; "
            "choose another QLORA_BASE_MODEL or repair its chat_template"
        ) from None


@lru_cache(maxsize=8)
def check_template(template: str) -> None:
    """Raises SettingsError for a template with steps that may take any time. One that cannot be
    parsed is refused where it is rendered."""
    from jinja2 import Environment, TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser

    class Generation(Extension):
        """`{% generation %}`, as transformers reads it."""

        tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    try:
        environment = Environment(extensions=[loopcontrols, Generation])
        tree = environment.parse(template)
    except (TemplateError, RecursionError, ValueError):
        return
    products = (
        node
        for node in tree.find_all(nodes.Mul)
        if not any(isinstance(side, nodes.Const) for side in (node.left, node.right))
    )
    rounded = (node for node in tree.find_all(nodes.Filter) if node.name == "round")
    found = next(tree.find_all(nodes.Pow), None) or next(products, None) or next(rounded, None)
    if found is not None:
        raise SettingsError(
            f"line {found.lineno} of the base model's chat template computes a power, a product or "
            "a rounded number, which may take any time; choose another QLORA_BASE_MODEL or take it "
            "out"
        )


class _Watch:
    """The thread that watches all renderings; it sleeps while there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: set[_Rendering] = set()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, one: _Rendering) -> None:
        with self._lock:
            self._at_work.add(one)
            if self._thread is None or not self._thread.is_alive():  # or this is a fork
                self._thread = threading.Thread(target=self._watch, daemon=True)
                self._thread.start()
        if not self._wake.is_set():
            self._wake.set()

    def end(self, one: _Rendering) -> None:
        with self._lock:
            self._at_work.discard(one)

    def _watch(self) -> None:
        while True:
            self._wake.wait()
            time.sleep(_TICK_S)
            with self._lock:
                if not self._at_work:
                    self._wake.clear()
                most = (_SIGNAL_S if signals.requested() else MOST_S) / _TICK_S
                for one in list(self._at_work):
                    one.ticks += 1
                    if one.ticks > most:
                        self._at_work.discard(one)
                        one.is_told = True
                        _raise_in(one.thread)


def _raise_in(thread: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Ended))


_WATCH = _Watch()
