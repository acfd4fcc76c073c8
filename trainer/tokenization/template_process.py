"""A chat template is a program that comes with a base: it is run in a child process, which may take
so much memory and so long, and no more (see `template_child`).

Nothing in the template language has an end by itself: a product of numbers, a search or a sort is
one step in C, which nothing in the same process can stop.
"""

import atexit
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.errors import SettingsError
from trainer.runtime import signals

MOST_S = 20.0  # for one conversation; the longest that is rendered takes one or two
_SIGNAL_S = 0.5  # of them once a signal has come
_TICK_S = 0.1  # a process that was frozen meanwhile has not been waiting
MEMORY_BYTES = 512 << 20
LARGEST_ANSWER_BYTES = 256 << 20  # a conversation has 2 Mi characters, and is written twice
_MOST_TEMPLATES = 64  # in one child
_MOST_IDLE = max(8, os.cpu_count() or 1)  # a server may ask more at once, and rarely
_PIPE_BYTES = 1 << 20
_ROOT = Path(__file__).parent.parent.parent
_INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "TZ")


class Refused(Exception):
    """The template refuses its turns, or is none; the text says why."""


def rendered(template: str, *variables: Mapping[str, Any]) -> list[str]:
    """What `template` makes of each of `variables`, which are JSON's. Threads may call it at once.

    Raises Refused, SettingsError where it takes too much time or memory or ends its process, and
    Interrupted where a signal came and it still takes time.
    """
    return [str(text) for text in _asked("render", template, variables)]


def watched_words(template: str) -> tuple[set[str], set[str]]:
    """As `watched_words.watched`. Raises as `rendered`."""
    parts, wholes = _asked("watched", template)
    return set(parts), set(wholes)


def _asked(what: str, template: str, variables: Sequence[Mapping[str, Any]] = ()) -> Any:
    try:
        child = _IDLE.pop()
    except IndexError:
        child = _Child()
    try:
        kind, given = child.ask(what, template, variables)
    except BaseException:
        child.end()
        raise
    if len(_IDLE) < _MOST_IDLE:
        _IDLE.append(child)
    else:
        child.end()
    if kind == "refused":
        raise Refused(given)
    return given


class _Child:
    """One child process, for one request after the other."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._start()

    def _start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trainer.tokenization.template_child", str(MEMORY_BYTES)],
            cwd=_ROOT,
            env={name: os.environ[name] for name in _INHERITED if name in os.environ}
            | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to handle
        )

    def ask(self, what: str, template: str, variables: Sequence[Mapping[str, Any]]) -> list[Any]:
        if len(self._known) == _MOST_TEMPLATES and template not in self._known:
            self.end()
            self._known = {}
            self._start()
        is_new = template not in self._known
        number = self._known.setdefault(template, len(self._known))
        asked = [what, number, template if is_new else None, variables]
        request = json.dumps(asked, ensure_ascii=False, default=str)
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # why is told by what it answers
            self.process.stdin.write(request.encode(errors="surrogatepass") + b"\n")
            self.process.stdin.flush()
        found: list[Any] = json.loads(self._line())
        return found

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        answers, line, ticks = self.process.stdout.fileno(), bytearray(), 0
        ready = select.poll()
        ready.register(answers, select.POLLIN)
        while not line.endswith(b"\n"):
            if ready.poll(_TICK_S * 1000):
                part = os.read(answers, _PIPE_BYTES)
                line += part
                if not part or len(line) > LARGEST_ANSWER_BYTES:
                    raise _too_much(f"needs more than {MEMORY_BYTES >> 20} MiB or breaks down")
                continue
            ticks += 1
            if ticks > (_SIGNAL_S if signals.requested() else MOST_S) / _TICK_S:
                signals.raise_if_requested()
                raise _too_much(f"did not end within {MOST_S:g} s")
        return bytes(line)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.forget()

    def forget(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not read any more
                    pipe.close()


def _too_much(fact: str) -> SettingsError:
    return SettingsError(
        f"the base model's chat template {fact} for one conversation; choose another "
        "QLORA_BASE_MODEL or repair its chat_template"
    )


_IDLE: list[_Child] = []


def _forget_all() -> None:
    """They belong to the process that was forked."""
    for child in _IDLE:
        child.process.returncode = 0
        child.forget()
    _IDLE.clear()


def _end_all() -> None:
    while _IDLE:
        _IDLE.pop().end()


os.register_at_fork(after_in_child=_forget_all)
atexit.register(_end_all)
