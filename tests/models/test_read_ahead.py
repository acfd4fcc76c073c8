"""Chunks come in their order, a bounded number of bytes ahead, and an error where it happened."""

import threading
from collections.abc import Iterator

import pytest

from trainer.models import read_ahead
from trainer.models.read_ahead import ReadAhead


def test_chunks_come_in_their_order_and_then_none() -> None:
    ahead = ReadAhead(iter([b"a", b"", b"b"]))
    assert [ahead.next() for _ in range(4)] == [b"a", b"", b"b", None]


def test_an_error_comes_after_what_was_read_before_it() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"a"
        raise OSError("the cable")

    ahead = ReadAhead(chunks())
    assert ahead.next() == b"a"
    with pytest.raises(OSError, match="the cable"):
        ahead.next()


def test_no_more_is_read_ahead_than_has_room_and_nothing_after_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(read_ahead, "READ_AHEAD_BYTES", 10)
    read, ended = [0], threading.Event()
    third = threading.Event()

    def chunks() -> Iterator[bytes]:
        try:
            for number in range(100):
                read[0] = number + 1
                if number == 2:
                    third.set()
                yield bytes(5)
        finally:
            ended.set()

    ahead = ReadAhead(chunks())
    assert third.wait(10)  # two wait to be taken, the third is in hand
    assert not ended.wait(0.1)
    assert read == [3]
    ahead.close()
    del ahead  # its thread has the last hold on what is read
    assert ended.wait(10)
    assert read == [3]
