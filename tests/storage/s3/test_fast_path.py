"""Plain requests go on connections of our own; what is not plain is left to boto3."""

from typing import Any

import pytest

from trainer.storage.s3.connection import Connection
from trainer.storage.s3.fast_path import MOST_FAILURES


def test_an_answer_lies_in_the_buffer_that_was_given(answer: dict[str, Any]) -> None:
    answer.update(body=b"hello", headers={"ETag": '"1"'})
    fast_path = Connection("data", "", retry_minutes=0).fast_path
    assert fast_path is not None
    buffer = bytearray(8)
    found = fast_path.get("a key", 5, {"Range": "bytes=0-4"}, buffer)
    assert found is not None
    assert (bytes(found[0]), bytes(buffer), found[1]["ETag"]) == (b"hello", b"hello\0\0\0", '"1"')
    assert answer["seen"][0]["Range"] == "bytes=0-4"
    assert "range" in answer["seen"][0]["Authorization"]


@pytest.mark.parametrize("change", [{"status": 404}, {"body": b"hell"}, {"body": b"hello!"}])
def test_any_other_answer_is_none_and_after_some_it_asks_no_more(
    answer: dict[str, Any], change: dict[str, Any]
) -> None:
    answer.update({"body": b"hello"} | change)
    fast_path = Connection("data", "", retry_minutes=0).fast_path
    assert fast_path is not None
    for _ in range(MOST_FAILURES + 2):
        assert fast_path.get("a", 5, {}) is None
    assert len(answer["seen"]) == MOST_FAILURES


def test_behind_a_proxy_there_is_none(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://localhost:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert Connection("data", "", retry_minutes=0).fast_path is None
