"""An object goes up whole, or not at all."""

import secrets
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from trainer.storage import open_store
from trainer.storage.s3 import connection, download, upload
from trainer.storage.s3.store import BucketStore


def test_checksums_can_be_left_out_for_old_servers(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store("s3://data/", retry_minutes=0).write("a", b"hello")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    open_store("s3://data/", retry_minutes=0).write("a", b"hello")
    sent = [any("checksum-crc" in name.lower() for name in seen) for seen in answer["seen"]]
    assert sent == [True, False]


@pytest.mark.s3
def test_a_big_file_goes_up_in_parts_and_comes_back_the_same(
    store: BucketStore, tmp_path: Path
) -> None:
    big = secrets.token_bytes(2 * download.RANGE_BYTES + 1)
    (tmp_path / "up").write_bytes(big)
    store.upload(tmp_path / "up", "big")
    (listed,) = store.list()
    assert listed.version.endswith("-5")
    assert store.download(listed, tmp_path / "down") == sha256(big).hexdigest()
    assert (tmp_path / "down").read_bytes() == big


@pytest.mark.s3
def test_an_upload_that_breaks_off_is_taken_again(
    faults: Any, spoiled: BucketStore, tmp_path: Path
) -> None:
    big = secrets.token_bytes(upload.PART_BYTES + 1)
    (tmp_path / "up").write_bytes(big)
    faults.add(f"PUT /{faults.bucket.name}/out/big", "reset_req", times=3, after=1 << 20)
    spoiled.upload(tmp_path / "up", "big")
    assert spoiled.read("big") == big


@pytest.mark.s3
def test_an_upload_that_hangs_is_taken_again(
    faults: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connection, "READ_TIMEOUT_S", 0.5)
    (tmp_path / "up").write_bytes(b"hello")
    faults.add(f"PUT /{faults.bucket.name}/a", "hang", times=2, s=5)
    store = BucketStore(faults.bucket.name, retry_minutes=0.2)
    store.upload(tmp_path / "up", "a")
    assert store.read("a") == b"hello"
