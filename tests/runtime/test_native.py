"""What cannot be stopped is not waited for without end."""

import threading

import pytest

from trainer.errors import Interrupted
from trainer.runtime import native, signals


def test_it_gives_what_the_work_gives_and_raises_what_it_raises() -> None:
    assert native.within(60, lambda: 5) == 5
    with pytest.raises(KeyError, match="a"):
        native.within(60, lambda: {}["a"])


def test_what_has_no_end_is_given_up() -> None:
    with pytest.raises(native.NoEndError):
        native.within(0.2, threading.Event().wait)


def test_a_signal_is_heard_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "_requested", 15)
    with pytest.raises(Interrupted):
        native.within(3600, threading.Event().wait)
