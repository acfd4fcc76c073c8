"""SIGKILL at random instants, before each operation, and while a reader polls."""

import contextlib
import shutil
import time
from collections.abc import Iterable

from soaking.harness import MOST_ATTEMPTS, RETRYABLE, Soak
from soaking.operations import Operations
from soaking.place import Place


def kills(soak: Soak, count: int) -> None:
    """SIGKILL at random instants: each series is killed until it is done."""

    def series(kills: int) -> None:
        while soak.tally.ended["killed"] < kills:
            with soak.place() as place:
                kill_until_done(soak, place, kills)
                soak.finish(place, "after kills")

    shares = [len(range(first, count, soak.jobs)) for first in range(soak.jobs)]
    soak.each(filter(None, shares), series)


def kill_until_done(soak: Soak, place: Place, kills: int) -> None:
    for _ in range(MOST_ATTEMPTS):
        at = soak.random.uniform(0, soak.duration_s * 1.1)
        code = place.attempt(kill_after_s=at)
        if code == 0 or soak.tally.ended["killed"] >= kills:
            return
        soak.tally.ended["killed"] += 1
        if code not in RETRYABLE:
            soak.tally.must(False, f"killed after {at:.2f} s: exit {code}: {place.said()}")


def operations(soak: Soak, count: int) -> None:
    """SIGKILL before every file operation and request of a run, or before about `count` of them."""

    def one(number: int) -> None:
        with soak.place() as place:
            kill_before(soak, place, number, of_save=False)

    soak.each(spread(soak, soak.operations, count), one)


def saves(soak: Soak, count: int) -> None:
    """The same in one save, fsyncs and the writes by native code included."""

    def one(number: int) -> None:
        with soak.place() as place:
            kill_before(soak, place, number, of_save=True)

    soak.each(spread(soak, soak.operations_of_save, count), one)


def spread(soak: Soak, operations: int, count: int) -> Iterable[int]:
    """`count` numbers of operations, or all of them and one that no run reaches."""
    step = max(1, operations // count) if count else 1
    last = operations if count else operations * 21 // 20 + 1  # not every run has equally many
    return range(1 + soak.random.randrange(step), last + 1, step)


def kill_before(soak: Soak, place: Place, number: int, *, of_save: bool) -> None:
    code = place.attempt(kill_before=number, of_save=of_save)
    if code == 0:
        soak.tally.must(place.weights() == soak.expected, "undisturbed: other weights")
        return
    soak.tally.ended["killed"] += 1
    if of_save and soak.random.random() < 0.5:  # as on a fresh node
        shutil.rmtree(place.folder / "scratch", ignore_errors=True)
    what = f"killed before operation {number}{' of a save' * of_save}"
    soak.finish(place, what)


def publishing(soak: Soak, count: int) -> None:
    """SIGKILL in the last operations; what a reader finds is nothing or everything."""

    def one(_: int) -> None:
        with soak.place() as place:
            number = soak.operations - soak.random.randrange(soak.operations // 3)
            child = place.start(lambda: Operations(place.folder).kill_before(number, False))
            while not child.ended():
                time.sleep(0.005)
                soak.tally.ended["reads"] += 1
                with contextlib.suppress(FileNotFoundError):
                    weights = place.weights()
                    soak.tally.must(weights in (None, soak.expected), "a partial read")
            soak.tally.ended[f"exit {child.wait()}"] += 1
            soak.finish(place, f"killed before operation {number}")

    soak.each(range(count), one)
