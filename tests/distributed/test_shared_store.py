"""The store of torch.distributed that workers meet in, asked with a time limit."""

import time
from datetime import timedelta

import pytest
from support.network import unused_port
from torch.distributed import TCPStore

from trainer.distributed.shared_store import SharedStore


@pytest.fixture
def store() -> SharedStore:
    port = unused_port()
    return SharedStore(TCPStore("127.0.0.1", port, 1, True, timedelta(seconds=10)))


def test_it_keeps_flags_counters_and_the_first_value(store: SharedStore) -> None:
    assert not store.has("ready")
    store.set("ready")
    assert store.has("ready")
    assert [store.set_once("run", name) for name in ("first", "second")] == ["first", "first"]
    assert store.get("run") == "first"
    assert [store.add("left", 1), store.add("left", 1), store.add("left", 0)] == [1, 2, 2]


def test_a_question_is_answered_or_given_up(store: SharedStore) -> None:
    assert store.ask(lambda store: store.add("asked", 3)) == 3
    with pytest.raises(RuntimeError, match="does not answer"):
        store.ask(lambda _: time.sleep(5), timeout_s=0.1)


def test_what_the_store_raises_is_raised_where_it_was_asked(store: SharedStore) -> None:
    def fails(_: SharedStore) -> None:
        raise RuntimeError("connection reset")

    with pytest.raises(RuntimeError, match="connection reset"):
        store.ask(fails)
