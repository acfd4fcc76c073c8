"""A manifest says what is whole; a broken one is named."""

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import pytest

from trainer.errors import DataError
from trainer.storage import Content, FolderStore, manifest, read_manifest


@pytest.mark.parametrize(
    "broken",
    [b"", b"[]", b"{}", b'{"objects": []}', b'{"objects": {"a": 1}}', b"\xff", b"[" * 100_000],
)
def test_a_broken_manifest_is_a_data_error(store: FolderStore, broken: bytes) -> None:
    store.write("id/manifest.json", broken)
    with pytest.raises(DataError, match=r"manifest\.json is broken"):
        read_manifest(store, "id")


def test_a_manifest_is_what_was_encoded() -> None:
    objects = {"b/c": Content(5, "aa"), "a": Content(0, "bb")}
    assert manifest.decode(manifest.encode(objects)) == objects
    assert json.loads(manifest.encode(objects))["objects"]["b/c"] == {"size": 5, "sha256": "aa"}


def test_a_sealed_folder_lists_all_but_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    for _ in range(2):  # sealed again, an old manifest is not listed
        manifest.seal(tmp_path)
        listed = manifest.decode((tmp_path / manifest.MANIFEST).read_bytes())
        assert listed == {"a": Content(5, sha256(b"hello").hexdigest())}
        assert listed == manifest.contents_of(tmp_path)


def test_of_two_manifests_the_first_decides(
    store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = {"a": Content(1, "1")}, {"a": Content(2, "2")}
    assert manifest.write_manifest(store, "id", first).is_ours
    for mine in (first, second):
        found = manifest.write_manifest(store, "id", mine)
        assert (found.is_ours, found.objects) == (False, first)
    assert caplog.text.count("another process published a different run first") == 1


def test_manifests_are_deleted_before_what_they_list(tmp_path: Path) -> None:
    deleted: list[str] = []

    class Watched(FolderStore):
        def delete(self, names: Iterable[str]) -> None:
            names = list(names)
            deleted.extend(sorted(names))
            super().delete(names)

    store = Watched(tmp_path)
    for name in ("id/a", "id/deep/a", "id/deep/manifest.json", "id/manifest.json", "id2/a"):
        store.write(name, b"")
    manifest.delete_with_manifests(store, "id")
    assert deleted == ["id/deep/manifest.json", "id/manifest.json", "id/a", "id/deep/a"]
    assert [stored.name for stored in store.list()] == ["id2/a"]


def test_without_its_manifest_the_rest_stays_and_is_no_run(store: FolderStore) -> None:
    store.write("id/a", b"")
    manifest.write_manifest(store, "id", {"a": Content(0, "")})
    manifest.delete_manifest(store, "id")
    assert read_manifest(store, "id") is None
    assert store.read("id/a") == b""
