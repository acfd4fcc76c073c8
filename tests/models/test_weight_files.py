"""The files of a base's weights: which they are, brought whole, and never a pickle."""

import shutil
from pathlib import Path

import pytest
from support import stand_in_hub
from support.bases import settings_for

from trainer.errors import DataError, SettingsError
from trainer.models.locate import locate_base
from trainer.models.safetensors_stream import Shard
from trainer.models.weight_files import WEIGHTS, fetch_weights, open_shards


def open_shards_of(base: Path | str, tmp_path: Path) -> list[Shard]:
    settings = settings_for(base, tmp_path / "scratch")
    return open_shards(locate_base(settings), settings)


def test_the_files_are_those_of_the_index_whatever_else_lies_there(
    llama: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(llama, tmp_path / "base")
    (base / "consolidated.safetensors").write_bytes(b"the same once more, as Mistral's folders do")
    names = sorted(path.name for path in llama.glob("*.safetensors"))
    assert len(names) > 1
    shards = open_shards_of(base, tmp_path)
    assert [shard.name for shard in shards] == [str(base / name) for name in names]
    for shard, name in zip(shards, names, strict=True):
        content = (llama / name).read_bytes()
        assert (shard.size, b"".join(shard.read())) == (len(content), content)


def test_a_base_without_safetensors_is_refused_whatever_pickles_are_there(
    llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    shutil.copy(llama / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(SettingsError, match="pickled weights are never read"):
        open_shards_of(folder, tmp_path)


@pytest.mark.parametrize(
    "index", ["{}", "[", '{"weight_map": {"a": "../../up.safetensors"}}', '{"weight_map": {}}']
)
def test_an_index_that_leads_elsewhere_is_refused(llama: Path, tmp_path: Path, index: str) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    shutil.copy(llama / "config.json", folder)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(DataError, match=r"model\.safetensors\.index\.json is broken"):
        open_shards_of(folder, tmp_path)


def test_whoever_reads_the_files_themselves_gets_them_checked(
    hub: stand_in_hub.Hub, tmp_path: Path
) -> None:
    settings = settings_for("owner/name", tmp_path)
    base = locate_base(settings)
    hub.spoils[WEIGHTS] = 1
    (path,) = fetch_weights(base, settings)
    assert path.read_bytes() == hub.files[WEIGHTS]
    hub.spoils[WEIGHTS] = 2
    path.unlink()
    shutil.rmtree(tmp_path / "hub" / "models--owner--name" / "blobs")
    with pytest.raises(DataError, match=WEIGHTS):
        fetch_weights(base, settings)


def test_pickled_weights_are_not_fetched(hub: stand_in_hub.Hub, tmp_path: Path) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop(WEIGHTS)
    with pytest.raises(SettingsError, match="pickled weights are never read"):
        open_shards_of("owner/name", tmp_path)
    assert "pytorch_model.bin" not in hub.sent
