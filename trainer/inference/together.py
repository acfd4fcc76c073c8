"""Questions that come at any time, answered together: one thread computes for all who ask."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import count
from queue import Empty, SimpleQueue

from trainer.engine.prompt import Prompt
from trainer.errors import JobError
from trainer.inference.generate import Decoder, Running
from trainer.runtime.device import out_of_memory

log = logging.getLogger(__name__)

TOGETHER = 64  # rows that are wished for; a planner gives what fits
LOOK_S = 0.2  # how often one who waits for a token looks whether its asker is still there


@dataclass(eq=False)
class _Asked:
    """A question of somebody who takes its tokens from `tokens`, None behind the last."""

    decoder: Decoder
    tuned: bool
    prompt: Prompt
    tokens: SimpleQueue[int | Exception | None] = field(default_factory=SimpleQueue)
    is_gone: bool = False

    def is_beside(self, other: "_Asked") -> bool:
        """Whether the same weights answer both."""
        return self.decoder is other.decoder and self.tuned == other.tuned


class Together:
    """Answers those who ask the same adapter, or the base, together; who comes later joins them
    while nobody who came before waits for another."""

    def __init__(self) -> None:
        self._line: deque[_Asked] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._last: Decoder | None = None  # the one that holds memory
        self._rows = TOGETHER
        self._thread = threading.Thread(target=self._run, name="answers", daemon=True)
        self._thread.start()

    def tokens(
        self,
        decoder: Decoder,
        prompt: Prompt,
        *,
        tuned: bool,
        is_ended: Callable[[], bool] = lambda: False,
    ) -> Generator[int, None, None]:
        """Those of one answer, its end included; closing it frees its row, and so does `is_ended`,
        which is asked while it waits. Raises JobError where memory runs out."""
        asked = _Asked(decoder, tuned, prompt)
        with self._changed:
            if not self._ending:
                self._line.append(asked)
                self._changed.notify()
            else:
                asked.tokens.put(None)
        try:
            while (token := _next(asked, is_ended)) is not None:
                yield token
        finally:
            asked.is_gone = True

    def finish(self) -> None:
        """End all answers: an interpreter that ends while it computes aborts."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while (first := self._first()) is not None:
            asked: dict[int, _Asked] = {}
            try:
                self._answer(self._open(first), asked)
            except Exception as error:
                self._fail(list(asked.values()), error)
        self._close_line()

    def _first(self) -> _Asked | None:
        """Who is next, once there is somebody; None at the end."""
        with self._changed:
            while True:
                while self._line and self._line[0].is_gone:
                    self._line.popleft()
                if self._ending:
                    return None
                if self._line:
                    return self._line[0]
                self._changed.wait()

    def _open(self, first: _Asked) -> Running:
        """Rows with room for those who wait for the same as the first."""
        if self._last is not first.decoder and self._last is not None:
            self._last.close()
        self._last = first.decoder
        with self._changed:
            waiting = [other.prompt for other in self._line if other.is_beside(first)]
        places = max(prompt.places for prompt in waiting)
        most = max(prompt.most for prompt in waiting)
        return first.decoder.open(self._rows, places, most, tuned=first.tuned)

    def _answer(self, running: Running, asked: dict[int, _Asked]) -> None:
        """Until nobody is left whom these rows can answer. `asked` is kept for who fails."""
        numbers = count()
        like = self._line[0]
        while not self._ending and ((new := self._joining(running, like)) or running):
            first = len(running)
            if new:
                joined = dict(zip(numbers, new, strict=False))
                asked |= joined
                running.join({number: one.prompt for number, one in joined.items()})
            else:
                first = 0
                running.step()
            for number, token in running.newest(first):
                asked[number].tokens.put(token)
            for number, _ in running.take_ended():
                asked.pop(number).tokens.put(None)
            for number in [number for number, one in asked.items() if one.is_gone]:
                running.leave(number)
                del asked[number]
        for one in asked.values():
            one.tokens.put(None)

    def _joining(self, running: Running, like: _Asked) -> list[_Asked]:
        """Those at the head of the line who can be answered beside the others."""
        found: list[_Asked] = []
        with self._changed:
            while self._line and len(found) < running.free:
                head = self._line[0]
                if not head.is_gone:
                    if not (head.is_beside(like) and running.fits(head.prompt)):
                        break
                    found.append(head)
                self._line.popleft()
        return found

    def _fail(self, asked: list[_Asked], error: Exception) -> None:
        """Tell them, or the first in the line where nobody was answered yet; where memory ran out,
        fewer are answered together from now on."""
        log.debug("answers failed", exc_info=error)
        if isinstance(error, RuntimeError) and out_of_memory(error):
            self._rows = max(1, (len(asked) or self._rows) // 2)
            error = JobError("memory ran out for this answer; ask again, or for a shorter one")
        asked = asked or [self._line.popleft()]
        if self._last is not None:
            self._last.close()
        for one in asked:
            one.tokens.put(error)

    def _close_line(self) -> None:
        with self._changed:
            for one in self._line:
                one.tokens.put(None)
            self._line.clear()
        if self._last is not None:
            self._last.close()


def _next(asked: _Asked, is_ended: Callable[[], bool]) -> int | None:
    while not is_ended():
        try:
            token = asked.tokens.get(timeout=LOOK_S)
        except Empty:
            continue
        if isinstance(token, Exception):
            raise token
        return token
    return None
