"""When a run will be done is told as soon as its steps show it, and again when that has changed."""

import logging

import pytest

from trainer.monitoring.forecast import Forecast


def forecast(steps: int) -> Forecast:
    """Of steps of 4 and of 1 block in turn, as five blocks make them."""
    rest = "30 seconds of questions and checks"
    made = Forecast(lambda step: step // 2 * 5 + step % 2 * 4, lambda *_: rest, steps)
    made.start(0, now=100.0)
    return made


def test_steps_of_different_sizes_do_not_move_it() -> None:
    found, now = forecast(100), 100.0
    left = []
    for step in range(1, 41):
        now += 4.0 if step % 2 else 1.0
        left.append(found.step(step, now))
    assert left[1:] == pytest.approx(
        [250.0 + 100.0 - (100 + 5 * (s // 2) + s % 2 * 4) for s in range(2, 41)]
    )


def test_what_the_first_step_compiled_is_not_counted_twice() -> None:
    found = forecast(100)
    assert found.step(1, 160.0) == pytest.approx(60.0 / 4 * 246)
    assert found.step(2, 161.0) < 250


def test_it_is_told_once_and_again_only_when_it_has_moved(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found, now = forecast(100), 100.0
    for step in range(1, 60):
        now += (4.0 if step % 2 else 1.0) * (1 if step < 30 else 3)
        found.step(step, now)
        if step == 29:
            (told,) = caplog.messages
    assert told.startswith(
        "training takes 4.0 minutes more, then come 30 seconds of questions and checks"
    )
    assert 1 < len(caplog.messages) < 4
    assert "more at this speed, then" in caplog.messages[1]


def test_of_what_is_over_in_a_moment_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = forecast(10)
    for step in range(1, 11):
        found.step(step, 100.0 + step / 10)
    assert not caplog.messages
