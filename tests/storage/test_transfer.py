"""Data in, a finished run out, and back in, with folders as stores."""

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from support.folders import HOSTILE_NAMES, files_in

from trainer.errors import DataError, DoesNotFitError, JobError, SettingsError
from trainer.storage import FolderStore, fetch, fetch_verified, open_store, publish, read_manifest
from trainer.storage.transfer import BUCKET_STORES
from trainer.uris import SCHEMES

HELLO = sha256(b"hello").hexdigest()


# Reading


def test_importing_storage_does_not_pay_for_boto3() -> None:
    code = "import sys, trainer.storage; print('boto3' in sys.modules, 'botocore' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False False\n"


def test_a_folder_is_read_in_place(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "b").mkdir(parents=True)
    (data / "b" / "2.txt").write_bytes(b"hello")
    (data / "a.txt").write_bytes(b"")
    fetched = fetch(str(data), tmp_path / "into", retry_minutes=0)
    assert [(f.name, f.path, f.size) for f in fetched] == [
        ("a.txt", data / "a.txt", 0),
        ("b/2.txt", data / "b" / "2.txt", 5),
    ]
    assert fetched[1].sha256 == HELLO
    assert not (tmp_path / "into").exists()


def test_a_single_file_is_read_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    (fetched,) = fetch(str(tmp_path / "a.txt"), tmp_path / "into", retry_minutes=0)
    assert (fetched.name, fetched.path, fetched.sha256) == ("a.txt", tmp_path / "a.txt", HELLO)


def test_a_missing_folder_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: No such file or directory; check the path"):
        fetch(str(tmp_path / "gone"), tmp_path / "into", retry_minutes=0)


def test_an_empty_folder_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no files"):
        fetch(str(tmp_path), tmp_path / "into", retry_minutes=0)


def test_a_pipe_is_not_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        fetch(str(tmp_path / "pipe"), tmp_path / "into", retry_minutes=0)


def test_a_local_name_that_cannot_be_published_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "new\nline").write_bytes(b"")
    with pytest.raises(DataError, match=r"'new\\nline' holds a control character"):
        fetch(str(tmp_path), tmp_path / "into", retry_minutes=0)


# A folder as a store


# Publishing


def test_a_published_run_lists_every_object_and_comes_back_the_same(
    store: FolderStore, run: Path, tmp_path: Path
) -> None:
    published = publish(run, store, "id")
    assert published.is_ours
    assert json.loads(store.read("id/manifest.json") or b"") == {
        "objects": {
            "adapter/weights": {"size": 5, "sha256": HELLO},
            "report.html": {"size": 3, "sha256": sha256(b"<p>").hexdigest()},
        }
    }
    fetch_verified(store, "id", tmp_path / "back")
    assert files_in(tmp_path / "back") == files_in(run)


def test_only_a_prefix_of_a_run_is_fetched(store: FolderStore, run: Path, tmp_path: Path) -> None:
    publish(run, store, "id")
    fetch_verified(store, "id", tmp_path / "back", only_prefix="adapter/")
    assert files_in(tmp_path / "back") == {"adapter/weights": b"hello"}
    with pytest.raises(DataError, match="lists nothing below 'none/'"):
        fetch_verified(store, "id", tmp_path / "back", only_prefix="none/")


def test_a_finished_run_is_not_changed_by_publishing_again(store: FolderStore, run: Path) -> None:
    first = publish(run, store, "id")
    before = files_in(Path(store.uri))
    (run / "report.html").write_bytes(b"another")
    again = publish(run, store, "id")
    assert (again.is_ours, again.objects) == (False, first.objects)
    assert files_in(Path(store.uri)) == before


def test_an_empty_run_is_not_published(store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(DataError, match="nothing to publish"):
        publish(tmp_path / "run", store, "id")


def test_without_a_manifest_there_is_no_finished_run(store: FolderStore, tmp_path: Path) -> None:
    store.write("id/adapter/weights", b"hello")
    assert read_manifest(store, "id") is None
    with pytest.raises(DataError, match="no finished run"):
        fetch_verified(store, "id", tmp_path / "back")


@pytest.mark.parametrize("content", [b"hallo", b"", b"longer than hello"])
def test_an_object_that_is_not_the_manifests_is_named_and_not_kept(
    store: FolderStore, run: Path, tmp_path: Path, content: bytes
) -> None:
    publish(run, store, "id")
    store.write("id/adapter/weights", content)
    with pytest.raises(JobError, match=r"id/adapter/weights: is not what its manifest\.json lists"):
        fetch_verified(store, "id", tmp_path / "back", only_prefix="adapter/")
    assert files_in(tmp_path / "back") == {}


@pytest.mark.parametrize("name", [name for name in HOSTILE_NAMES if name != "\ud800"])
def test_a_manifest_cannot_write_outside_of_the_folder(
    store: FolderStore, tmp_path: Path, name: str
) -> None:
    manifest = {"objects": {name: {"size": 5, "sha256": HELLO}}}
    store.write("id/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DataError, match="rename or remove it"):
        fetch_verified(store, "id", tmp_path / "deep" / "into")
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize(
    "pair",
    [("a", "A"), ("\u00e9", "e\u0301"), ("Stra\u00dfe", "STRASSE"), ("a", "a/b"), ("A", "a/b")],
)
def test_names_that_would_be_one_file_are_refused(
    store: FolderStore, tmp_path: Path, pair: tuple[str, str]
) -> None:
    manifest = {"objects": {name: {"size": 5, "sha256": HELLO} for name in pair}}
    store.write("id/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DataError, match=r"on a disk that folds|where .* is a file"):
        fetch_verified(store, "id", tmp_path / "into")
    assert not (tmp_path / "into").exists()


# Many at once


# Servers that are not what they should be


def test_a_run_that_does_not_fit_the_disk_is_refused_before_it_is_fetched(
    store: FolderStore, run: Path, tiny_disk: Path
) -> None:
    (run / "adapter" / "weights").write_bytes(bytes(1 << 20))
    publish(run, store, "id")
    with pytest.raises(DoesNotFitError, match=r"id: 1\.0 MiB are to be fetched"):
        fetch_verified(store, "id", tiny_disk / "back")
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.parametrize("uri", ["gs://data/", "s3://", "s3://Not_A_Bucket/"])
def test_any_other_uri_is_a_settings_error(uri: str) -> None:
    with pytest.raises(SettingsError, match="correct the URI"):
        open_store(uri, retry_minutes=0)


def test_every_scheme_has_its_store() -> None:
    assert BUCKET_STORES.keys() == SCHEMES.keys()


@pytest.mark.parametrize("size", [10**15, 6])
def test_a_manifest_that_is_wrong_about_sizes_is_no_lack_of_room(
    store: FolderStore, run: Path, tiny_disk: Path, size: int
) -> None:
    (run / "adapter" / "weights").write_bytes(bytes(1 << 20))
    publish(run, store, "id")
    manifest = json.loads(store.read("id/manifest.json") or b"")
    manifest["objects"]["report.html"]["size"] = size
    store.write("id/manifest.json", json.dumps(manifest).encode())
    with pytest.raises(DataError, match=r"id/report\.html: is not what its manifest\.json lists"):
        fetch_verified(store, "id", tiny_disk / "back")


def test_what_an_earlier_run_left_is_not_read_with_what_is_fetched(
    store: FolderStore, run: Path, tmp_path: Path
) -> None:
    publish(run, store, "id")
    into = FolderStore(tmp_path / "back")
    into.write("adapter/chat_template.jinja", b"of another")
    into.write("beside", b"kept")
    fetch_verified(store, "id", tmp_path / "back", only_prefix="adapter/")
    assert files_in(tmp_path / "back") == {"adapter/weights": b"hello", "beside": b"kept"}
