"""Who was admitted and has gone makes room for another."""

import pytest

from trainer.commands.admission import Admission, Limits
from trainer.commands.loopback import RequestRefused


def test_only_so_many_are_in_line_and_one_that_ends_makes_room() -> None:
    line = Admission(Limits(waiting=2))
    with line.turn():
        with line.turn(), pytest.raises(RequestRefused, match="2 questions are waiting") as full:
            line.turn().__enter__()
        assert (full.value.status, full.value.wait_s) == (429, 1)
        with line.turn():
            pass


def test_one_that_fails_makes_room_too() -> None:
    line = Admission(Limits(waiting=1))
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), line.turn():
            raise ZeroDivisionError


def test_those_that_were_refused_for_their_number_do_not_count() -> None:
    line = Admission(Limits(a_minute=2))
    for _ in range(2):
        with line.turn():
            pass
    for _ in range(3):
        with pytest.raises(RequestRefused, match="2 questions a minute are answered; try again in"):
            line.turn().__enter__()
    assert len(line._asked) == 2
