"""Many transfers at once, ended by the first failure or by a signal."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from trainer.storage.retry import transfer_failed

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 8


def in_parallel(action: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`action` of every item, in their order; raises the first failure and starts no more."""
    todo = list(items)
    return list(in_order(action, todo, ahead=len(todo)))


def in_order(
    action: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = THREADS
) -> Iterator[Result]:
    """The same one by one; no more than `ahead` results are under way or wait to be taken.

    An exception raised in the waiting thread, by a signal handler, is raised at once: a spot
    notice leaves seconds, so the threads are daemons and end with the process.
    """
    todo = list(items)
    if len(todo) == 1:
        yield action(todo[0])
        return
    pool = _Pool(action, todo, ahead)
    try:
        yield from pool.results()
    finally:
        pool.stop()


class _Pool:
    """Threads that take the items in order; their results wait to be taken in the same order."""

    def __init__(self, action: Callable[[Any], Any], items: list[Any], ahead: int) -> None:
        self._action = action
        self._items = items
        self._ahead = ahead
        self._changed = threading.Condition()
        self._done: dict[int, Any] = {}
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        self._begun = self._taken = 0
        self._threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(min(THREADS, len(items), ahead))
        ]
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[Any]:
        for index in range(len(self._items)):
            yield self._take(index)

    def stop(self) -> None:
        with self._changed:
            self._stop.set()
            self._changed.notify_all()

    # A method each for take and make: a name in a loop would hold a big result while it waits.

    def _take(self, index: int) -> Any:
        with self._changed:
            self._changed.wait_for(lambda: index in self._done or self._failure is not None)
            if self._failure is None:
                self._taken = index + 1
                self._changed.notify_all()
                return self._done.pop(index)
        for thread in self._threads:
            thread.join()
        raise self._failure

    def _work(self) -> None:
        transfer_failed.set(self._stop)
        try:
            while (index := self._next()) is not None:
                self._make(index)
        except BaseException as error:
            with self._changed:
                self._failure = self._failure or error
            self.stop()

    def _make(self, index: int) -> None:
        result = self._action(self._items[index])
        with self._changed:
            self._done[index] = result
            self._changed.notify_all()

    def _next(self) -> int | None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._stop.is_set() or self._begun < self._taken + self._ahead
            )
            if self._stop.is_set() or self._begun == len(self._items):
                return None
            self._begun += 1
            return self._begun - 1
