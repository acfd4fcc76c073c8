"""A base is found where its name says, with a revision that changes with its bytes."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.bases import settings_for
from support.small_adapters import TINY

from trainer.errors import SettingsError
from trainer.models.locate import LARGEST_FILE_BYTES, local_base, locate_base


def test_the_built_in_model_needs_nothing(tmp_path: Path) -> None:
    base = locate_base(settings_for("builtin:tiny", tmp_path))
    assert (base.folder, base.name, base.is_from_hub) == (TINY, "builtin:tiny", False)


def test_a_folder_s_name_is_all_of_its_path_that_may_be_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(TINY, tmp_path / "mine")
    monkeypatch.chdir(folder)
    base = locate_base(settings_for(".", tmp_path))
    assert base.name == "mine"
    assert base.folder.resolve() == folder


def test_an_adapter_is_no_base_and_told_so(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").touch()
    with pytest.raises(SettingsError, match="is an adapter; `ask --adapter` asks it"):
        local_base(tmp_path, "mine")


def test_a_tokenizer_of_any_size_is_not_read(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "mine")
    with (folder / "tokenizer.json").open("r+b") as file:
        file.truncate(LARGEST_FILE_BYTES + 1)  # without taking the place
    with pytest.raises(SettingsError, match=r"its tokenizer.json has more than 256 MiB"):
        local_base(folder, "mine")


def test_the_revision_of_a_folder_is_that_of_its_config_and_its_weights(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "mine")
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    digests = "".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
    expected = f"sha256:{hashlib.sha256(digests.encode()).hexdigest()[:16]}"
    assert local_base(folder, "mine").revision == expected
    (folder / "README.md").write_text("decides nothing")
    assert local_base(folder, "mine").revision == expected
    with files[-1].open("ab") as stream:
        stream.write(b"\0")
    assert local_base(folder, "mine").revision != expected


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (None, r"no config\.json there; name the folder that holds the model"),
        ("<html>", r"its config\.json is not JSON"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(
    config: str | None, sentence: str, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(SettingsError, match=sentence):
        locate_base(settings_for(tmp_path, tmp_path / "scratch"))


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_weights_that_are_no_file_are_named(make: Callable[[Path], None], tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "mine")
    make(folder / "extra.safetensors")
    with pytest.raises(SettingsError, match=r"extra\.safetensors is a folder, a pipe or a device"):
        local_base(folder, "mine")


@pytest.mark.parametrize("name", ["a/" + "b" * 5000, "/" + "é" * 200])
def test_a_name_that_no_disk_has_is_refused_shortly(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no model and no folder has so long a name") as refused:
        locate_base(settings_for(name, tmp_path))
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere"])
def test_a_path_that_leads_nowhere_is_no_model_of_the_hub(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"QLORA_BASE_MODEL={name}: no such folder"):
        locate_base(settings_for(name, tmp_path))


@pytest.mark.s3
def test_a_bucket_gives_the_small_files_and_a_revision_of_them_all(
    bucket: Any, tmp_path: Path
) -> None:
    for path in TINY.iterdir():
        bucket.upload_file(str(path), f"models/tiny/{path.name}")
    bucket.put_object(Key="models/tiny/original/params.json", Body=b"{}")
    settings = settings_for(f"s3://{bucket.name}/models/tiny/", tmp_path)
    base = locate_base(settings)
    brought = {path.name for path in base.folder.iterdir()}
    assert brought == {p.name for p in TINY.iterdir() if not p.name.endswith(".safetensors")}
    assert "model.safetensors" in {one.name for one in base.stored}
    bucket.put_object(Key="models/tiny/model.safetensors", Body=b"others")
    assert locate_base(settings).revision != base.revision


@pytest.mark.s3
def test_a_prefix_without_a_config_is_refused(bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Key="models/tiny/readme.txt", Body=b"")
    with pytest.raises(SettingsError, match=r"no config\.json there; name the prefix"):
        locate_base(settings_for(f"s3://{bucket.name}/models/tiny/", tmp_path))


@pytest.mark.parametrize("name", ["builtin:..", "builtin:../storage", "builtin:", "builtin:/etc"])
def test_a_built_in_model_is_no_way_to_another_folder(tmp_path: Path, name: str) -> None:
    """An adapter's config may name it, which no setting's check has seen."""
    settings = replace(settings_for("builtin:tiny", tmp_path), base_model=name)
    with pytest.raises(SettingsError, match="the only built-in model is builtin:tiny"):
        locate_base(settings)
