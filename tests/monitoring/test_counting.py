"""A phase is never silent: a bar that moves on a terminal, lines with what is left elsewhere."""

import logging
import os
import pty
import sys
import threading
from collections.abc import Iterator

import pytest

from trainer.monitoring import counting as module
from trainer.monitoring.counting import (
    counting,
    import_in_sight,
    uncounted,
    waiting,
)
from trainer.runtime import log
from trainer.runtime.log import FIELDS


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where all can be read that a terminal is sent, which is drawn on a hundred times a second."""
    monkeypatch.setattr(module, "SHOWN_AFTER_S", 0)
    monkeypatch.setattr(module, "DRAW_EVERY_S", 0.01)
    main, end = pty.openpty()
    with os.fdopen(end, "w") as screen:
        handler = logging.StreamHandler(screen)
        handler.setFormatter(log._TextFormatter(handler.stream))
        monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
        yield main
    os.close(main)


@pytest.fixture
def said() -> Iterator[threading.Event]:
    """Set with each line of the log."""
    event = threading.Event()

    class Heard(logging.Handler):
        def emit(self, _record: logging.LogRecord) -> None:
            event.set()

    heard = Heard()
    logging.getLogger(module.__name__).addHandler(heard)
    yield event
    logging.getLogger(module.__name__).removeHandler(heard)


def test_off_a_terminal_a_line_says_how_much_is_left(
    caplog: pytest.LogCaptureFixture, said: threading.Event
) -> None:
    with caplog.at_level("INFO"), counting("answering", 4, line_every_s=0.01) as add:
        add(3)
        said.clear()
        assert said.wait(60)
    last = caplog.records[-1]
    assert last.getMessage() == "answering: 3 of 4, 0 s left"
    fields = getattr(last, FIELDS)
    assert (fields["phase"], fields["done"], fields["total"]) == ("answering", 3, 4)


def test_one_inside_of_another_counts_for_that(caplog: pytest.LogCaptureFixture) -> None:
    with counting("all", 10) as outer:
        with counting("a part", 2) as inner:
            assert inner is outer
        with counting("a part", 2) as inner:
            assert inner is outer
    with counting("another", 1) as add:
        assert add is not outer


def test_pieces_of_another_kind_count_for_nothing() -> None:
    with counting("passages", 2, line_every_s=1e9) as outer:
        with uncounted(), counting("answers", 9) as inner:
            assert inner is not outer
            inner(9)
        with counting("a part", 2) as inner:
            assert inner is outer


def test_on_a_terminal_a_bar_moves_while_a_piece_takes_long(
    terminal: int,
) -> None:
    with counting("answering", 4) as add:
        add(1)
        seen = ""
        while seen.count("\ranswering  25% |") < 3:
            seen += os.read(terminal, 4096).decode()
    assert "1/4 [00:00 < " in seen


def test_what_nobody_counts_says_for_how_long_and_is_silent_inside_of_another(
    caplog: pytest.LogCaptureFixture, said: threading.Event
) -> None:
    with caplog.at_level("INFO"), waiting("loading", line_every_s=0.01):
        assert said.wait(60)
        with waiting("fetching", line_every_s=0.01):
            said.clear()
            assert said.wait(60)
    assert {record.getMessage() for record in caplog.records} == {"loading: for 0 s"}


def test_on_a_terminal_waiting_shows_what_for(terminal: int) -> None:
    with waiting("loading"):
        seen = ""
        while seen.count("\rloading … 00:0") < 3:
            seen += os.read(terminal, 4096).decode()


def test_imports_that_take_long_are_in_sight() -> None:
    import_in_sight("colorsys", "sched")
    assert {"colorsys", "sched"} <= sys.modules.keys()
