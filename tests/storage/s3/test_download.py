"""An object comes as it was listed, or not at all."""

import logging
import secrets
import signal
import subprocess
import sys
import time
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import pytest
from support.buckets import over_http, put
from support.folders import files_in

from trainer.errors import DataError, JobError, UnreachableError
from trainer.storage import Stored, open_store
from trainer.storage.s3.store import BucketStore

HELLO = sha256(b"hello").hexdigest()


@pytest.mark.parametrize("length", [None, 10])
def test_a_body_that_ends_early_or_stalls_is_not_taken_for_the_object(
    answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, length: int | None
) -> None:
    monkeypatch.setattr("trainer.storage.s3.connection.READ_TIMEOUT_S", 0.2)
    answer.update(body=b"hello", length=length)
    with pytest.raises(UnreachableError, match=r"data/a: .*\((Truncated|ReadTimeout)Error\)"):
        open_store("s3://data/", retry_minutes=0).download(Stored("a", 10, ""), tmp_path / "a")
    assert files_in(tmp_path) == {}


def test_an_etag_under_sse_kms_is_no_digest(answer: dict[str, Any], tmp_path: Path) -> None:
    etag = md5(b"something else").hexdigest()
    answer.update(body=b"hello", headers={"ETag": etag, "x-amz-server-side-encryption": "aws:kms"})
    store = open_store("s3://data/", retry_minutes=0)
    for _ in range(2):
        assert store.download(Stored("a", 5, etag), tmp_path / "down") == HELLO
    assert len(answer["seen"]) == 3  # one more for finding out


@pytest.mark.s3
@over_http
def test_an_object_replaced_after_the_listing_is_not_taken_for_it(
    store: BucketStore, tmp_path: Path
) -> None:
    store.write("a", b"hello")
    (listed,) = store.list()
    store.write("a", b"hallo")
    with pytest.raises(DataError, match="out/a: was replaced where 5 bytes"):
        store.download(listed, tmp_path / "a")
    with pytest.raises(DataError, match="has 5 bytes where 4 bytes"):
        store.download(Stored("a", 4, ""), tmp_path / "a")
    store.delete(["a"])
    with pytest.raises(DataError, match=r"NoSuchKey.*removed since it was listed"):
        store.download(listed, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.s3
@over_http
def test_a_full_disk_is_named_with_its_free_space(store: BucketStore, tiny_disk: Path) -> None:
    store.write("a", bytes(1 << 20))
    with pytest.raises(JobError, match=r"No space left on device, 0\.\d MiB free") as caught:
        store.download(store.list()[0], tiny_disk / "a")
    assert caught.value.exit_code == 1
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.s3
def test_a_truncated_download_is_taken_again(
    faults: Any, spoiled: BucketStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = secrets.token_bytes(300_000)
    put(faults.bucket, "out/a", body)
    faults.add(f"GET /{faults.bucket.name}/out/a", "truncate", times=4, after=100_000)
    (stored,) = spoiled.list()
    spoiled.download(stored, tmp_path / "a")
    assert files_in(tmp_path) == {"a": body}
    warnings = [r for r in caplog.records if r.name == "trainer.storage.retry"]
    assert [record.levelno for record in warnings] == [logging.WARNING] * 2
    assert "out/a: no good answer" in warnings[0].getMessage()


@pytest.mark.s3
def test_a_truncated_read_is_taken_again(faults: Any, spoiled: BucketStore) -> None:
    put(faults.bucket, "out/a", bytes(100_000))
    faults.add(f"GET /{faults.bucket.name}/out/a", "truncate", after=10)
    assert spoiled.read("a") == bytes(100_000)


@pytest.mark.s3
@pytest.mark.parametrize("after", [1, 100])
def test_a_refusal_that_is_cut_off_is_taken_again(
    faults: Any, spoiled: BucketStore, tmp_path: Path, after: int
) -> None:
    name = f"/{faults.bucket.name}/out/"
    faults.add(f"GET {name}absent", "truncate", after=after)
    assert spoiled.read("absent") is None
    put(faults.bucket, "out/taken")
    faults.add(f"PUT {name}taken", "truncate", after=after)
    assert not spoiled.write("taken", b"another", only_if_absent=True)
    faults.add(f"GET {name}taken", "truncate", after=after)
    with pytest.raises(DataError, match="was replaced"):
        spoiled.download(Stored("taken", 5, "other"), tmp_path / "a")


@pytest.mark.s3
def test_a_signal_ends_a_hanging_fetch_within_seconds(faults: Any, tmp_path: Path) -> None:
    for key in ("data/a", "data/b"):
        put(faults.bucket, key)
    faults.add(f"GET /{faults.bucket.name}/data/", "hang", times=10, s=300)
    code = f"""
import signal, sys
from pathlib import Path
from trainer.storage import fetch
signal.signal(signal.SIGTERM, lambda *_: sys.exit(33))
print("ready", flush=True)
fetch("s3://{faults.bucket.name}/data/", Path({str(tmp_path / "into")!r}), retry_minutes=15)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 33
