"""Many transfers at once, ended by the first failure or by a signal."""

import queue
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from trainer.storage.failures import stopping

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 8


def in_parallel(action: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`action` of every item, in their order; raises the first failure once all have stopped.

    An exception raised in the waiting thread, by a signal handler, is raised at once: a spot
    notice leaves seconds, so the workers are daemons and end with the process.
    """
    todo: queue.SimpleQueue[tuple[int, Item]] = queue.SimpleQueue()
    for job in enumerate(items):
        todo.put(job)
    done: dict[int, Result] = {}
    failed: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        stopping.set(stop)
        while not stop.is_set():
            try:
                index, item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done[index] = action(item)
            except BaseException as error:
                failed.append(error)
                stop.set()

    needed = min(WORKERS, todo.qsize())
    workers = [threading.Thread(target=work, daemon=True) for _ in range(needed)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except BaseException:
        stop.set()
        raise
    if failed:
        raise failed[0]
    return [done[index] for index in sorted(done)]
