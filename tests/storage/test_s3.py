"""Storage against a real S3 server, over HTTP and TLS, and through a proxy that spoils answers."""

import json
import logging
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import soak_storage
from support.buckets import fresh_bucket, needs

from trainer.errors import (
    DataError,
    DoesNotFitError,
    JobError,
    NotAllowedError,
    SettingsError,
    UnreachableError,
)
from trainer.storage import (
    BucketStore,
    Stored,
    fetch,
    fetch_verified,
    open_store,
    publish,
    read_manifest,
)
from trainer.storage.s3 import store as bucket_room

pytestmark = pytest.mark.s3
over_http = pytest.mark.parametrize("bucket", ["http"], indirect=True)
over_tls = pytest.mark.parametrize("bucket", ["tls"], indirect=True)

A_LITTLE_MINUTES = 0.2


def keys(bucket: Any) -> list[str]:
    return [found.key for found in bucket.objects.all()]


def put(bucket: Any, key: str, body: bytes = b"hello") -> None:
    bucket.put_object(Key=key, Body=body)


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(found)}


@pytest.fixture
def store(bucket: Any) -> BucketStore:
    return BucketStore(bucket.name, "out", retry_minutes=0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as the job leaves it for publishing."""
    (tmp_path / "run" / "adapter").mkdir(parents=True)
    (tmp_path / "run" / "adapter" / "weights").write_bytes(b"hello")
    (tmp_path / "run" / "report.html").write_bytes(b"<p>")
    return tmp_path / "run"


# Fetching


@pytest.mark.parametrize("prefix", ["corpus/", "corpus"])
def test_every_object_below_a_prefix_is_fetched(bucket: Any, tmp_path: Path, prefix: str) -> None:
    put(bucket, "corpus/b/2.txt")
    put(bucket, "corpus/a.txt", b"")
    put(bucket, "corpus/\u00fc +%.txt", b"odd")
    put(bucket, "corpus2/other.txt")
    fetched = fetch(f"s3://{bucket.name}/{prefix}", tmp_path / "into", retry_minutes=0)
    assert [(f.name, f.size) for f in fetched] == [
        ("a.txt", 0),
        ("b/2.txt", 5),
        ("\u00fc +%.txt", 3),
    ]
    assert [f.path for f in fetched] == [tmp_path / "into" / f.name for f in fetched]
    assert [f.sha256 for f in fetched] == [sha256(f.path.read_bytes()).hexdigest() for f in fetched]


def test_a_single_object_is_fetched(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "corpus/a.jsonl")
    put(bucket, "corpus/a.jsonl.bak")
    (fetched,) = fetch(f"s3://{bucket.name}/corpus/a.jsonl", tmp_path, retry_minutes=0)
    assert (fetched.name, fetched.path.read_bytes()) == ("a.jsonl", b"hello")


@over_http
def test_a_whole_bucket_is_fetched(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "a/b")
    (fetched,) = fetch(f"s3://{bucket.name}", tmp_path, retry_minutes=0)
    assert fetched.name == "a/b"


@over_http
def test_a_directory_marker_is_not_downloaded(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "corpus/", b"")
    put(bucket, "corpus/deep/", b"")
    put(bucket, "corpus/a.txt")
    fetch(f"s3://{bucket.name}/corpus/", tmp_path / "into", retry_minutes=0)
    assert list((tmp_path / "into").iterdir()) == [tmp_path / "into" / "a.txt"]


@over_http
def test_a_listing_goes_past_its_first_page(store: BucketStore) -> None:
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        store.write(name, b"")
    # Pages of two, because the server's own of a thousand take half a minute to fill.
    assert [stored.name for stored in store._listed("", MaxKeys=2)] == names


@over_http
def test_a_prefix_without_objects_is_a_data_error(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "corpus/", b"")
    with pytest.raises(DataError, match="corpus/: holds no objects; list it with `aws s3 ls"):
        fetch(f"s3://{bucket.name}/corpus/", tmp_path, retry_minutes=15)


def test_a_missing_bucket_is_a_data_error_for_data_and_a_settings_error_for_output(
    bucket: Any, tmp_path: Path
) -> None:
    uri = f"s3://{bucket.name}-gone/"
    with pytest.raises(DataError, match=f"{uri}: there is no such bucket.*NoSuchBucket"):
        fetch(uri, tmp_path, retry_minutes=15)
    with pytest.raises(SettingsError, match=f"{uri}: .*NoSuchBucket.*create it with `aws s3 mb"):
        open_store(uri, retry_minutes=15).probe()


@over_http
def test_what_is_there_already_is_not_fetched_again(bucket: Any, tmp_path: Path) -> None:
    for key in ("same", "changed", "damaged", "removed"):
        put(bucket, key)
    into = tmp_path / "into"

    def fetched_at() -> dict[str, int]:
        return {
            f.name: f.path.stat().st_ino
            for f in fetch(f"s3://{bucket.name}/", into, retry_minutes=0)
        }

    first = fetched_at()
    put(bucket, "changed", b"hallo")
    (into / "damaged").write_bytes(b"HELLO")
    bucket.Object("removed").delete()
    again = fetched_at()
    assert files(into) == {"changed": b"hallo", "damaged": b"hello", "same": b"hello"}
    assert [name for name in again if again[name] == first[name]] == ["same"]


@over_http
@pytest.mark.parametrize(
    "key",
    ["../up", "a/../../up", "/absolute", "a//b", "a/./b", "new\nline", "back\\slash", "x" * 256],
)
def test_a_hostile_key_is_named_and_nothing_is_written(
    bucket: Any, tmp_path: Path, key: str
) -> None:
    put(bucket, "data/" + key)
    put(bucket, "data/fine")
    with pytest.raises(DataError) as caught:
        fetch(f"s3://{bucket.name}/data/", tmp_path / "into", retry_minutes=0)
    assert repr(key) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@over_http
@pytest.mark.parametrize("link", ["deep", "deep/file"])
def test_a_link_in_the_target_folder_is_not_followed_out_of_it(
    bucket: Any, tmp_path: Path, link: str
) -> None:
    put(bucket, "deep/file", b"from the bucket")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"mine")
    (tmp_path / "into" / link).parent.mkdir(parents=True)
    (tmp_path / "into" / link).symlink_to(outside / link.removeprefix("deep").lstrip("/"))
    with pytest.raises(DataError, match=r"deep/file: leads out of .*into; replace the link"):
        fetch(f"s3://{bucket.name}/", tmp_path / "into", retry_minutes=0)
    assert files(outside) == {"file": b"mine"}


@over_http
@pytest.mark.parametrize("pair", [("a", "A"), ("\u00e9", "e\u0301"), ("a", "a/b")])
def test_keys_that_would_be_one_file_are_refused(
    bucket: Any, tmp_path: Path, pair: tuple[str, str]
) -> None:
    for key in pair:
        put(bucket, key)
    with pytest.raises(DataError, match="rename or remove it"):
        fetch(f"s3://{bucket.name}/", tmp_path / "into", retry_minutes=0)
    assert list(tmp_path.iterdir()) == []


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


@over_http
def test_a_full_disk_is_named_with_its_free_space(store: BucketStore, tiny_disk: Path) -> None:
    store.write("a", bytes(1 << 20))
    with pytest.raises(JobError, match=r"No space left on device, 0\.\d MiB free") as caught:
        store.download(store.list()[0], tiny_disk / "a")
    assert caught.value.exit_code == 1
    assert list(tiny_disk.iterdir()) == []


@over_http
def test_data_that_does_not_fit_the_disk_is_refused_before_it_is_fetched(
    bucket: Any, store: BucketStore, tiny_disk: Path
) -> None:
    store.write("big", bytes(1 << 20))
    store.write("small", bytes(1 << 15))
    uri, into = f"s3://{bucket.name}/out/", tiny_disk / "into"
    with pytest.raises(DoesNotFitError, match=f"{uri}: 1.0 MiB .* QLORA_SCRATCH_DIR") as caught:
        fetch(uri, into, retry_minutes=0)
    assert caught.value.exit_code == 13
    assert list(tiny_disk.iterdir()) == []
    store.delete(["big"])
    for _ in range(2):  # what is there already needs no room: 32 KiB are left, less than another
        assert [found.name for found in fetch(uri, into, retry_minutes=0)] == ["small"]


# A bucket as a store


def test_a_small_object_is_written_read_and_deleted(bucket: Any, store: BucketStore) -> None:
    assert store.read("a") is None
    assert store.write("a", b"hello")
    assert (store.read("a"), keys(bucket)) == (b"hello", ["out/a"])
    store.delete(["a", "never"])
    assert store.read("a") is None


def test_a_big_file_goes_up_in_parts_and_comes_back_the_same(
    store: BucketStore, tmp_path: Path
) -> None:
    big = secrets.token_bytes(2 * bucket_room.RANGE_BYTES + 1)
    (tmp_path / "up").write_bytes(big)
    store.upload(tmp_path / "up", "big")
    (listed,) = store.list()
    assert listed.version.endswith("-5")
    assert store.download(listed, tmp_path / "down") == sha256(big).hexdigest()
    assert (tmp_path / "down").read_bytes() == big


def test_a_conditional_write_has_one_winner(store: BucketStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: store.write("a", b"%d" % i, only_if_absent=True), range(8)))
    assert sum(won) == 1
    assert store.read("a") == b"%d" % won.index(True)


def test_a_probe_leaves_nothing(bucket: Any, store: BucketStore) -> None:
    store.probe()
    assert keys(bucket) == []


# Refusals


@over_http
def test_a_wrong_key_is_not_allowed_and_not_shown(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(NotAllowedError, match=r"SignatureDoesNotMatch.*check the credentials") as e:
        fetch(f"s3://{bucket.name}/", tmp_path, retry_minutes=15)
    assert "wrong-secret" not in str(e.value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobodys-id")
    with pytest.raises(NotAllowedError, match="InvalidAccessKeyId") as e:
        open_store(f"s3://{bucket.name}/", retry_minutes=15).probe()
    assert "nobodys-id" not in str(e.value)


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


@over_http
def test_stale_uploads_that_may_not_be_listed_are_left_with_a_warning(
    denied: Any, store: BucketStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.abort_stale_uploads()
    assert "stale uploads stay: " in caplog.text


@over_tls
def test_an_unknown_ca_is_unreachable_at_once(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"SSL: CERTIFICATE_VERIFY_FAILED\); check AWS_CA"):
        open_store(f"s3://{bucket.name}/", retry_minutes=15).probe()
    assert time.monotonic() - started < 120  # of 15 minutes


# Publishing


def test_a_published_run_lists_every_object_and_comes_back_the_same(
    store: BucketStore, run: Path, tmp_path: Path
) -> None:
    published = publish(run, store, "id")
    assert published.is_ours
    assert read_manifest(store, "id") == {
        "objects": {
            "adapter/weights": {"size": 5, "sha256": sha256(b"hello").hexdigest()},
            "report.html": {"size": 3, "sha256": sha256(b"<p>").hexdigest()},
        }
    }
    fetch_verified(store, "id", tmp_path / "back")
    assert files(tmp_path / "back") == files(run)


@over_http
def test_a_finished_run_is_not_changed_by_publishing_again(
    bucket: Any, store: BucketStore, run: Path
) -> None:
    publish(run, store, "id")
    before = [(found.key, found.e_tag, found.last_modified) for found in bucket.objects.all()]
    (run / "report.html").write_bytes(b"another")
    assert not publish(run, store, "id").is_ours
    assert before == [(o.key, o.e_tag, o.last_modified) for o in bucket.objects.all()]


@over_http
def test_of_many_publishers_one_writes_the_manifest(store: BucketStore, run: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(lambda _: publish(run, store, "id"), range(4)))
    assert [p.is_ours for p in published].count(True) == 1
    assert len({json.dumps(p.objects, default=vars) for p in published}) == 1


@over_http
def test_an_object_that_is_not_the_manifests_is_named_and_not_kept(
    bucket: Any, store: BucketStore, run: Path, tmp_path: Path
) -> None:
    publish(run, store, "id")
    for content in (b"hallo", b"hello, longer"):
        put(bucket, "out/id/adapter/weights", content)
        with pytest.raises(JobError, match=f"s3://{bucket.name}/out/id/adapter/weights: is not"):
            fetch_verified(store, "id", tmp_path / "back", only_prefix="adapter/")
        assert files(tmp_path / "back") == {}


@over_http
def test_without_a_manifest_there_is_no_finished_run(store: BucketStore, tmp_path: Path) -> None:
    store.write("id/adapter/weights", b"hello")
    with pytest.raises(DataError, match="there is no finished run"):
        fetch_verified(store, "id", tmp_path / "back")


@over_http
def test_publishing_aborts_the_stale_uploads_of_its_run_only(
    bucket: Any, store: BucketStore, run: Path
) -> None:
    for key in ("out/id/adapter/weights", "out/id2/adapter/weights"):
        bucket.Object(key).initiate_multipart_upload()
    publish(run, store, "id")
    assert [up.object_key for up in bucket.multipart_uploads.all()] == ["out/id2/adapter/weights"]


# A server in trouble


@pytest.mark.parametrize("fault", soak_storage.FAULTS)
def test_a_fault_is_waited_out_or_named_and_no_byte_is_wrong(fault: str) -> None:
    """One of each, drawn by its name; `make soak` has all sizes, both ways, many times."""
    needs("AWS_ENDPOINT_URL_S3")
    draw = random.Random(fault)
    scheme, way = draw.choice(["http", "https"]), draw.choice(["up", "down"])
    with fresh_bucket() as fresh, soak_storage.at(fresh.name, scheme) as place:
        assert place.trial(fault, draw.choice(soak_storage.SIZES), way) == "right"


@pytest.fixture
def spoiled(faults: Any) -> BucketStore:
    """The bucket of `faults`, through its proxy."""
    return BucketStore(faults.bucket.name, "out", retry_minutes=A_LITTLE_MINUTES)


def test_a_truncated_download_is_taken_again(
    faults: Any, spoiled: BucketStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    body = secrets.token_bytes(300_000)
    put(faults.bucket, "out/a", body)
    faults.add(f"GET /{faults.bucket.name}/out/a", "truncate", times=4, after=100_000)
    (stored,) = spoiled.list()
    spoiled.download(stored, tmp_path / "a")
    assert files(tmp_path) == {"a": body}
    warnings = [r for r in caplog.records if r.name == "trainer.storage.retry"]
    assert [record.levelno for record in warnings] == [logging.WARNING] * 2
    assert "out/a: no good answer" in warnings[0].getMessage()


def test_a_truncated_read_is_taken_again(faults: Any, spoiled: BucketStore) -> None:
    put(faults.bucket, "out/a", bytes(100_000))
    faults.add(f"GET /{faults.bucket.name}/out/a", "truncate", after=10)
    assert spoiled.read("a") == bytes(100_000)


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


def test_slow_down_is_waited_out(faults: Any, spoiled: BucketStore) -> None:
    faults.add(f"PUT /{faults.bucket.name}/out/a", "slowdown", times=5)
    assert spoiled.write("a", b"hello")
    assert spoiled.read("a") == b"hello"


def test_slow_down_beyond_the_retry_time_is_unreachable(faults: Any) -> None:
    faults.add(f"GET /{faults.bucket.name}", "slowdown", times=1000)
    store = BucketStore(faults.bucket.name, retry_minutes=0.02)
    with pytest.raises(UnreachableError, match=r"SlowDown \(503\), tried for 0\.\d+ minutes"):
        store.list()


def test_an_upload_that_breaks_off_is_taken_again(
    faults: Any, spoiled: BucketStore, tmp_path: Path
) -> None:
    big = secrets.token_bytes(bucket_room.PART_BYTES + 1)
    (tmp_path / "up").write_bytes(big)
    faults.add(f"PUT /{faults.bucket.name}/out/big", "reset_req", times=3, after=1 << 20)
    spoiled.upload(tmp_path / "up", "big")
    assert spoiled.read("big") == big


def test_an_upload_that_hangs_is_taken_again(
    faults: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bucket_room, "READ_TIMEOUT_S", 0.5)
    (tmp_path / "up").write_bytes(b"hello")
    faults.add(f"PUT /{faults.bucket.name}/a", "hang", times=2, s=5)
    store = BucketStore(faults.bucket.name, retry_minutes=A_LITTLE_MINUTES)
    store.upload(tmp_path / "up", "a")
    assert store.read("a") == b"hello"


def test_publishing_that_breaks_off_leaves_no_finished_run(faults: Any, run: Path) -> None:
    faults.add(f"PUT /{faults.bucket.name}/id/report.html", "slowdown", times=3)
    store = BucketStore(faults.bucket.name, retry_minutes=0)
    with pytest.raises(UnreachableError, match=r"id/report\.html: .* answered SlowDown"):
        publish(run, store, "id")
    assert read_manifest(store, "id") is None
    assert publish(run, store, "id").is_ours


def test_a_server_that_hangs_is_given_up_after_the_timeout(
    faults: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket_room, "READ_TIMEOUT_S", 0.3)
    faults.add(f"GET /{faults.bucket.name}", "hang", times=10, s=5)
    with pytest.raises(UnreachableError, match="ReadTimeoutError"):
        BucketStore(faults.bucket.name, retry_minutes=0).list()


def test_a_conditional_write_whose_answer_was_lost_is_still_ours(
    faults: Any, spoiled: BucketStore
) -> None:
    # What the first try stored before its answer was lost; the proxy plays the lost answer.
    put(faults.bucket, "out/a", b"ours")
    faults.add(f"PUT /{faults.bucket.name}/out/a", "slowdown")
    assert spoiled.write("a", b"ours", only_if_absent=True)
    faults.add(f"PUT /{faults.bucket.name}/out/a", "slowdown")
    assert not spoiled.write("a", b"another", only_if_absent=True)


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
