"""Data in, a finished run out, and back in, with buckets as stores, over HTTP and TLS."""

import json
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.buckets import over_http, put
from support.folders import files_in

from trainer.errors import DataError, DoesNotFitError, JobError, UnreachableError
from trainer.storage import Content, fetch, fetch_verified, publish, read_manifest
from trainer.storage.s3.store import BucketStore

HELLO = sha256(b"hello").hexdigest()


# Fetching


@pytest.mark.s3
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


@pytest.mark.s3
def test_a_single_object_is_fetched(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "corpus/a.jsonl")
    put(bucket, "corpus/a.jsonl.bak")
    (fetched,) = fetch(f"s3://{bucket.name}/corpus/a.jsonl", tmp_path, retry_minutes=0)
    assert (fetched.name, fetched.path.read_bytes()) == ("a.jsonl", b"hello")


@pytest.mark.s3
@over_http
def test_a_whole_bucket_is_fetched(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "a/b")
    (fetched,) = fetch(f"s3://{bucket.name}", tmp_path, retry_minutes=0)
    assert fetched.name == "a/b"


@pytest.mark.s3
@over_http
def test_a_directory_marker_is_not_downloaded(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "corpus/", b"")
    put(bucket, "corpus/deep/", b"")
    put(bucket, "corpus/a.txt")
    fetch(f"s3://{bucket.name}/corpus/", tmp_path / "into", retry_minutes=0)
    assert list((tmp_path / "into").iterdir()) == [tmp_path / "into" / "a.txt"]


@pytest.mark.s3
@over_http
def test_a_prefix_without_objects_is_a_data_error(bucket: Any, tmp_path: Path) -> None:
    put(bucket, "corpus/", b"")
    with pytest.raises(DataError, match="corpus/: holds no objects; list it with `aws s3 ls"):
        fetch(f"s3://{bucket.name}/corpus/", tmp_path, retry_minutes=15)


@pytest.mark.s3
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
    assert files_in(into) == {"changed": b"hallo", "damaged": b"hello", "same": b"hello"}
    assert [name for name in again if again[name] == first[name]] == ["same"]


@pytest.mark.s3
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


@pytest.mark.s3
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
    assert files_in(outside) == {"file": b"mine"}


@pytest.mark.s3
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


@pytest.mark.s3
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


# Refusals


# Publishing


@pytest.mark.s3
def test_a_published_run_lists_every_object_and_comes_back_the_same(
    store: BucketStore, run: Path, tmp_path: Path
) -> None:
    published = publish(run, store, "id")
    assert published.is_ours
    assert read_manifest(store, "id") == {
        "adapter/weights": Content(5, sha256(b"hello").hexdigest()),
        "report.html": Content(3, sha256(b"<p>").hexdigest()),
    }
    fetch_verified(store, "id", tmp_path / "back")
    assert files_in(tmp_path / "back") == files_in(run)


@pytest.mark.s3
@over_http
def test_a_finished_run_is_not_changed_by_publishing_again(
    bucket: Any, store: BucketStore, run: Path
) -> None:
    publish(run, store, "id")
    before = [(found.key, found.e_tag, found.last_modified) for found in bucket.objects.all()]
    (run / "report.html").write_bytes(b"another")
    assert not publish(run, store, "id").is_ours
    assert before == [(o.key, o.e_tag, o.last_modified) for o in bucket.objects.all()]


@pytest.mark.s3
@over_http
def test_of_many_publishers_one_writes_the_manifest(store: BucketStore, run: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(lambda _: publish(run, store, "id"), range(4)))
    assert [p.is_ours for p in published].count(True) == 1
    assert len({json.dumps(p.objects, default=vars) for p in published}) == 1


@pytest.mark.s3
@over_http
def test_an_object_that_is_not_the_manifests_is_named_and_not_kept(
    bucket: Any, store: BucketStore, run: Path, tmp_path: Path
) -> None:
    publish(run, store, "id")
    for content in (b"hallo", b"hello, longer"):
        put(bucket, "out/id/adapter/weights", content)
        with pytest.raises(JobError, match=f"s3://{bucket.name}/out/id/adapter/weights: is not"):
            fetch_verified(store, "id", tmp_path / "back", only_prefix="adapter/")
        assert files_in(tmp_path / "back") == {}


@pytest.mark.s3
@over_http
def test_without_a_manifest_there_is_no_finished_run(store: BucketStore, tmp_path: Path) -> None:
    store.write("id/adapter/weights", b"hello")
    with pytest.raises(DataError, match="there is no finished run"):
        fetch_verified(store, "id", tmp_path / "back")


@pytest.mark.s3
@over_http
def test_publishing_aborts_the_stale_uploads_of_its_run_only(
    bucket: Any, store: BucketStore, run: Path
) -> None:
    for key in ("out/id/adapter/weights", "out/id2/adapter/weights"):
        bucket.Object(key).initiate_multipart_upload()
    publish(run, store, "id")
    assert [up.object_key for up in bucket.multipart_uploads.all()] == ["out/id2/adapter/weights"]


# A server in trouble


@pytest.mark.s3
def test_publishing_that_breaks_off_leaves_no_finished_run(faults: Any, run: Path) -> None:
    faults.add(f"PUT /{faults.bucket.name}/id/report.html", "slowdown", times=3)
    store = BucketStore(faults.bucket.name, retry_minutes=0)
    with pytest.raises(UnreachableError, match=r"id/report\.html: .* answered SlowDown"):
        publish(run, store, "id")
    assert read_manifest(store, "id") is None
    assert publish(run, store, "id").is_ours
