"""A prefix of a bucket is a store."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.buckets import keys, over_http, put
from support.folders import HOSTILE_NAMES

from trainer.errors import DataError, NotAllowedError, SettingsError
from trainer.storage import fetch, open_store
from trainer.storage.s3.store import BucketStore
from trainer.storage.store import Stored


def test_a_server_that_knows_no_conditions_still_gets_an_update(answer: dict[str, Any]) -> None:
    answer.update(unknown="If-Match", headers={"ETag": '"1"'})
    open_store("s3://data/", retry_minutes=0).update("a", lambda _: b"new")
    sent = [seen.get("If-Match") for seen in answer["seen"]]
    assert sent == [None, '"1"', None]


@pytest.mark.s3
@over_http
def test_a_listing_goes_past_its_first_page(store: BucketStore) -> None:
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        store.write(name, b"")
    # Pages of two, because the server's own of a thousand take half a minute to fill.
    assert [stored.name for stored in store._listed("", MaxKeys=2)] == names


@pytest.mark.s3
def test_a_missing_bucket_is_a_data_error_for_data_and_a_settings_error_for_output(
    bucket: Any, tmp_path: Path
) -> None:
    uri = f"s3://{bucket.name}-gone/"
    with pytest.raises(DataError, match=f"{uri}: there is no such bucket.*NoSuchBucket"):
        fetch(uri, tmp_path, retry_minutes=15)
    with pytest.raises(SettingsError, match=f"{uri}: .*NoSuchBucket.*create it with `aws s3 mb"):
        open_store(uri, retry_minutes=15).probe()


@pytest.mark.s3
def test_a_small_object_is_written_read_and_deleted(bucket: Any, store: BucketStore) -> None:
    assert store.read("a") is None
    assert store.write("a", b"hello")
    assert (store.read("a"), keys(bucket)) == (b"hello", {"out/a"})
    store.delete(["a", "never"])
    assert store.read("a") is None


@pytest.mark.s3
def test_a_conditional_write_has_one_winner(store: BucketStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.write("a", b"%d" % i, only_if_absent=True), range(8)))
    assert sum(won) == 1
    assert store.read("a") == b"%d" % won.index(True)


@pytest.mark.s3
def test_a_probe_leaves_nothing(bucket: Any, store: BucketStore) -> None:
    store.probe()
    assert keys(bucket) == set()


@pytest.fixture
def denied(bucket: Any) -> Iterator[Any]:
    """A bucket that may be listed, but not written."""
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:PutObject", "s3:GetObject", "s3:ListBucketMultipartUploads"],
        "Resource": [f"arn:aws:s3:::{bucket.name}", f"arn:aws:s3:::{bucket.name}/*"],
    }
    put(bucket, "out/a")
    bucket.Policy().put(Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    yield bucket
    bucket.Policy().delete()


@pytest.mark.s3
@over_http
def test_access_denied_is_not_allowed(denied: Any, store: BucketStore, tmp_path: Path) -> None:
    (tmp_path / "up").touch()
    for refused in (
        store.probe,
        lambda: store.read("a"),
        lambda: store.upload(tmp_path / "up", "b"),
        lambda: store.download(store.list()[0], tmp_path / "down"),
    ):
        with pytest.raises(NotAllowedError, match="AccessDenied"):
            refused()


@pytest.mark.s3
@over_http
def test_stale_uploads_that_may_not_be_listed_are_left_with_a_warning(
    denied: Any, store: BucketStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.abort_stale_uploads()
    assert "stale uploads stay: " in caplog.text


@pytest.mark.s3
def test_a_conditional_write_whose_answer_was_lost_is_still_ours(
    faults: Any, spoiled: BucketStore
) -> None:
    # What the first try stored before its answer was lost; the proxy plays the lost answer.
    put(faults.bucket, "out/a", b"ours")
    faults.add(f"PUT /{faults.bucket.name}/out/a", "slowdown")
    assert spoiled.write("a", b"ours", only_if_absent=True)
    faults.add(f"PUT /{faults.bucket.name}/out/a", "slowdown")
    assert not spoiled.write("a", b"another", only_if_absent=True)


@pytest.mark.parametrize("name", [name for name in HOSTILE_NAMES if name != "\ud800"])
def test_no_name_leads_out_of_the_prefix(answer: dict[str, Any], name: str, tmp_path: Path) -> None:
    """Nothing is asked of the server, by whatever way."""
    store = BucketStore("data", "out", retry_minutes=0)
    (tmp_path / "new").write_bytes(b"new")
    for use in (
        lambda: store.read(name),
        lambda: store.write(name, b"new"),
        lambda: store.update(name, lambda _: b"new"),
        lambda: store.delete([name]),
        lambda: store.upload(tmp_path / "new", name),
        lambda: store.download(Stored(name, 3, "0" * 32), tmp_path / "in"),
        lambda: list(store.chunks(Stored(name, 3, "0" * 32))),
    ):
        with pytest.raises(DataError, match="rename or remove it"):
            use()
    assert not answer["seen"]
