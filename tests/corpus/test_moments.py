"""Turns are in the order of their times, however a table writes them."""

from datetime import UTC, date, datetime, time

import pytest

from trainer.corpus.moments import order


@pytest.mark.parametrize(
    "later, earlier",
    [
        (10, 9),
        ("10", "9.5"),
        ("2024-03-01T10:05:00Z", "2024-03-01 10:00:00+00:00"),
        ("2024/03/01 10:05", "2024/02/01 10:06"),
        ("01.03.2024 10:05", "28.02.2024 10:06"),
        ("31/1/2024 10:05", "30/1/2024"),
        ("1/31/24 1:05 PM", "1/31/24 11:05 AM"),
        ("3/1/2024 10:05", "3/1/2024 10:00"),
        ("10:05", "9:59"),
        (datetime(2024, 1, 2, tzinfo=UTC), datetime(2024, 1, 1)),
        (date(2024, 1, 2), date(2024, 1, 1)),
        (time(10, 5), time(9, 59)),
    ],
)
def test_the_earlier_one_is_first(later, earlier):
    assert order([later, earlier]) == [1, 0]
    assert order([earlier, later]) == [0, 1]


def test_of_the_same_time_the_first_row_is_first_but_where_rows_run_backwards():
    assert order([1, 1, 2, 1]) == [0, 1, 3, 2]
    assert order([2, 1, 1]) == [2, 1, 0]
    assert order([1, 1]) == [0, 1]


@pytest.mark.parametrize(
    "moments",
    [
        ["yesterday", "today"],
        ["3/1/2024", "1/2/2024"],
        [1, None],
        [float("nan"), 1],
        [True, False],
        [10**40, 1],
        ["99.99.2024", "98.99.2024"],
    ],
    ids=str,
)
def test_what_has_no_certain_order_has_none(moments):
    assert order(moments) is None
