"""Many transfers at once come in order and end together."""

import threading
import time

import pytest

from trainer.errors import DataError, UnreachableError
from trainer.storage.parallel import in_order, in_parallel
from trainer.storage.retry import Failure, retry


def test_the_first_failure_ends_the_rest() -> None:
    started = []

    def work(item: int) -> None:
        started.append(item)
        raise DataError(str(item))

    with pytest.raises(DataError):
        in_parallel(work, range(1000))
    assert len(started) < 1000


def test_results_keep_the_order_of_the_items() -> None:
    assert in_parallel(lambda item: -item, range(100)) == [-item for item in range(100)]


def test_no_more_results_than_asked_for_wait_to_be_taken() -> None:
    begun: list[int] = []

    def work(item: int) -> int:
        begun.append(item)
        return item

    results = in_order(work, range(20), ahead=3)
    assert next(results) == 0
    time.sleep(0.2)
    assert len(begun) <= 4
    assert list(results) == list(range(1, 20))


def test_a_failure_ends_what_waits_for_its_next_try() -> None:
    waits = threading.Event()

    def explain(_: Exception) -> Failure:
        waits.set()
        return Failure(UnreachableError, "away", "wait", passing=True)

    def work(item: int) -> None:
        if item == 0:
            assert waits.wait(60)
            raise DataError("ended")
        retry(lambda: 1 / 0, explain, "s3://data/", minutes=15)

    started = time.monotonic()
    with pytest.raises(DataError, match="ended"):
        in_parallel(work, range(2))
    assert time.monotonic() - started < 60  # of 15 minutes
