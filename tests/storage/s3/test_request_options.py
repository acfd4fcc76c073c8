"""Who pays and which key encrypts stands in every request."""

from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from trainer.storage import Stored, open_store
from trainer.storage.s3 import request_options


def test_who_pays_and_the_key_stand_in_every_request_that_takes_them(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        request_options,
        "_default",
        request_options.RequestOptions(requester_pays=True, kms_key="alias/ours"),
    )
    (tmp_path / "up").write_bytes(b"hello")
    etag = md5(b"hello").hexdigest()
    answer.update(headers={"ETag": f'"{etag}"'})
    store = open_store("s3://data/", retry_minutes=0)
    store.upload(tmp_path / "up", "a")  # on a connection of our own
    store.write("a", b"hello")  # by boto3
    answer.update(body=b"hello")
    store.download(Stored("a", 5, etag), tmp_path / "down")
    store.read("a")
    seen = [{name.lower(): value for name, value in one.items()} for one in answer["seen"]]
    assert len(seen) == 4
    assert {one.get("x-amz-request-payer") for one in seen} == {"requester"}
    key = "x-amz-server-side-encryption-aws-kms-key-id"
    assert [one.get(key) for one in seen] == ["alias/ours"] * 2 + [None] * 2
    assert all("x-amz-request-payer" in one["authorization"] for one in seen)
