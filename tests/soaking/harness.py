"""What the scenarios share: the undisturbed result, cases side by side, and the count of both."""

import contextlib
import json
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from support.jobs import write_records

from soaking.operations import Operations
from soaking.place import Place, bucket_in, new_bucket
from soaking.processes import Child, fork, kill_all

RETRYABLE = {1, 12, 33, -signal.SIGKILL}
MOST_ATTEMPTS = 60


class Tally:
    """Counts how attempts and series ended, and what went wrong."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest_s = 0.0

    def must(self, holds: bool, what: str) -> None:
        self.ended["right" if holds else "wrong"] += 1
        if not holds:
            self.wrong.append(what)
            print(f"  WRONG {what[:4000]}", flush=True)

    def add(self, other: "Tally") -> None:
        self.ended += other.ended
        self.wrong += other.wrong
        self.slowest_s = max(self.slowest_s, other.slowest_s)


class Soak:
    """What the scenarios share: a seed, the undisturbed result and places to work in.

    `operations` and `operations_of_save` are how many there are in an undisturbed run.
    """

    def __init__(self, seed: int, use_s3: bool, jobs: int) -> None:
        self.seed = seed
        self.jobs = jobs
        self.random = random.Random(seed)
        self.tally = Tally()
        self.bucket_name = new_bucket() if use_s3 else ""
        counted = mmap.mmap(-1, 16)
        with contextlib.ExitStack() as places:
            reference = [places.enter_context(self.place()) for _ in range(max(jobs, 2))]
            started = time.monotonic()
            first = Operations(reference[0].folder, counted)
            children = [reference[0].start(first.count), *(p.start() for p in reference[1:])]
            assert [child.wait() for child in children] == [0] * len(children), reference[0].said()
            self.duration_s = time.monotonic() - started
            weights = {place.weights() for place in reference}
            assert len(weights) == 1 and None not in weights, (
                "undisturbed runs end in other weights"
            )
            self.expected = weights.pop()
        self.operations = int.from_bytes(counted[:8])
        self.operations_of_save = int.from_bytes(counted[8:16])

    def each(self, cases: Iterable[Any], work: Callable[[Any], None]) -> None:
        """`work` of every case, as many at once as there are jobs; its tally is added to ours,
        also of what ended before the soak was stopped."""
        numbered = list(enumerate(cases))
        workers = [self._fork(numbered[first :: self.jobs], work) for first in range(self.jobs)]
        for place, (child, results) in enumerate(workers):
            try:
                self._count(child, results)
            except SystemExit:
                for other, _ in workers:
                    other.signal(signal.SIGTERM)
                for _, rest in workers[place:]:
                    self._add(rest)
                raise

    def _count(self, child: Child, results: BinaryIO) -> None:
        self._add(results)
        if code := child.wait():
            self.tally.must(False, f"the soak itself ended with {code}")

    def _add(self, results: BinaryIO) -> None:
        while line := results.readline():
            tally = Tally()
            ended, tally.wrong, tally.slowest_s = json.loads(line)
            tally.ended.update(ended)
            self.tally.add(tally)

    def _fork(
        self, numbered: list[tuple[int, Any]], work: Callable[[Any], None]
    ) -> tuple[Child, BinaryIO]:
        """A process that does these cases and writes what it counted."""
        reader, writer = os.pipe()

        def stop(*_: Any) -> None:
            kill_all()
            sys.exit(1)

        def run() -> None:
            os.close(reader)
            signal.signal(signal.SIGTERM, stop)
            for number, case in numbered:
                self.random = random.Random(f"{self.seed} {work.__qualname__} {number}")
                self.tally = Tally()
                try:
                    work(case)
                finally:
                    counted = [self.tally.ended, self.tally.wrong, self.tally.slowest_s]
                    os.write(writer, json.dumps(counted).encode() + b"\n")

        child = fork(run)
        os.close(writer)
        return child, os.fdopen(reader, "rb")

    def finish(self, place: Place, what: str) -> None:
        """Start `place` until it is done; it must end in the undisturbed weights."""
        for _ in range(MOST_ATTEMPTS):
            code = place.attempt()
            if code == 0:
                self.tally.must(place.weights() == self.expected, f"{what}: other weights")
                return
            if code not in RETRYABLE:
                self.tally.must(False, f"{what}: exit {code}: {place.said()}")
                return
        self.tally.must(False, f"{what}: never done: {place.said()}")

    @contextlib.contextmanager
    def place(self, **changes: str) -> Iterator[Place]:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            write_records(Path(folder) / "data" / "questions.jsonl")
            place = Place(Path(folder), self.bucket_name, **changes)
            yield place
            if place.bucket_name:
                place.bucket.objects.filter(Prefix=place.prefix).delete()

    def duration_from_the_start_s(self) -> float:
        """Of an undisturbed run with the interpreter's start and the imports."""
        with self.place() as place:
            started = time.monotonic()
            assert place.start(from_the_start=True).wait() == 0, place.said()
            return time.monotonic() - started

    def close(self) -> None:
        if self.bucket_name:
            bucket = bucket_in(self.bucket_name, os.getpid())
            bucket.objects.all().delete()
            bucket.delete()
