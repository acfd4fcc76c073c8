"""SIGTERM in all phases."""

import signal
import time
from pathlib import Path

from soaking.harness import Soak
from soaking.place import Place


def signals(soak: Soak, count: int) -> None:
    """SIGTERM at random instants in a process that is PID 1 of its namespace."""
    durations = {False: soak.duration_s, True: soak.duration_from_the_start_s() if count > 4 else 0}

    def one(number: int) -> None:
        from_the_start = number % 5 == 4
        with soak.place() as place:
            at = soak.random.uniform(0.05, durations[from_the_start])
            signal_after(soak, place, at, from_the_start)

    soak.each(range(count), one)
    print(f"  the slowest took {soak.tally.slowest_s:.1f} s to stop", flush=True)


def signal_after(soak: Soak, place: Place, at: float, from_the_start: bool) -> None:
    what = f"SIGTERM after {at:.2f} s{' from the start' * from_the_start}"
    held = place.folder / "held"
    child = place.start(lambda: mark_hold(held), as_pid_1=True, from_the_start=from_the_start)
    time.sleep(at)
    if place.finished():
        soak.tally.must(child.wait() == 0, f"{what}: too late: {place.said()}")
        return
    signalled = time.monotonic()
    child.signal(signal.SIGTERM)
    late = held.exists()
    code = child.wait()
    took_s = time.monotonic() - signalled
    soak.tally.ended["signalled"] += 1
    soak.tally.ended[f"exit {code}"] += 1
    soak.tally.slowest_s = max(soak.tally.slowest_s, took_s)
    finished = place.weights() is not None
    # One that came while the manifest was written is too late to stop anything; one that got lost
    # would let the rest of the run follow.
    late |= took_s < (3 if from_the_start else 1)
    right = (code == 33 and not finished) or (code == 0 and finished and late)
    soak.tally.must(right, f"{what}: exit {code} {took_s:.1f} s later, {finished=}")
    soak.finish(place, what)


def mark_hold(mark: Path) -> None:
    """Leave `mark` once a signal comes too late to keep the run from being published."""
    from trainer.runtime import signals as handlers

    hold = handlers.hold

    def hold_and_mark() -> None:
        hold()
        mark.touch()

    handlers.hold = hold_and_mark
