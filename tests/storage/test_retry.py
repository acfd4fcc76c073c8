"""What passes is waited out, for as long as was asked for."""

import time

import pytest
from support.one_answer import use_endpoint

from trainer.errors import SettingsError, UnreachableError
from trainer.storage import open_store
from trainer.storage.retry import Failure, retry


def test_after_a_signal_a_failure_is_not_waited_out_for_longer_than_the_grace_period(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = time.monotonic()
    monkeypatch.setattr("trainer.storage.retry.out_of_time", lambda: time.monotonic() > asked + 1)
    use_endpoint(monkeypatch, "http://localhost:1")
    with pytest.raises(UnreachableError):
        open_store("s3://data/", retry_minutes=15).write("a", b"hello")
    assert time.monotonic() - asked < 120


def away(_: Exception) -> Failure:
    return Failure(UnreachableError, "no answer", "start again", passing=True)


def test_what_passes_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    left = [ZeroDivisionError(), ZeroDivisionError()]

    def request() -> str:
        if left:
            raise left.pop()
        return "right"

    assert retry(request, away, "s3://data/a", minutes=1) == "right"
    assert caplog.text.count("s3://data/a: no answer; trying again, for") == 2


def test_what_does_not_pass_or_is_unknown_is_raised_at_once() -> None:
    final = Failure(SettingsError, "no such bucket", "create it")
    with pytest.raises(SettingsError, match=r"^there: no such bucket; create it$"):
        retry(lambda: 1 / 0, lambda _: final, "there", minutes=1)
    with pytest.raises(ZeroDivisionError):
        retry(lambda: 1 / 0, lambda _: None, "there", minutes=1)


def test_the_error_says_for_how_long_it_was_tried_and_hides_what_was_raised() -> None:
    with pytest.raises(UnreachableError, match=r"there: no answer, tried for \d\.\d seconds") as e:
        retry(lambda: 1 / 0, away, "there", minutes=0.01)
    assert e.value.__context__ is None
