"""A finished adapter is found from its run, its folder or its output, with its base."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from support.small_adapters import TINY, edit, random_adapter

from trainer.errors import DataError, SettingsError
from trainer.models.adapter_files import QUANTISATION
from trainer.models.adapters import find_adapter
from trainer.settings import Settings

SETTINGS = Settings.read({}, {}, trains=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("below", ["", "/", "/adapter", "/adapter/"])
def test_a_run_and_its_adapter_folder_stand_for_it(run: Path, below: str) -> None:
    adapter = find_adapter(f"{run}{below}", SETTINGS)
    assert adapter.folder == run / "adapter"
    assert adapter.weights.is_file()
    assert (adapter.base.name, adapter.base.folder) == ("builtin:tiny", TINY)


def test_an_output_stands_for_the_newest_run_in_it(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "one")
    (tmp_path / "latest.json").write_text('{"run_id": "one", "finished": 1}')
    assert find_adapter(str(tmp_path), SETTINGS).folder == tmp_path / "one" / "adapter"
    (tmp_path / "latest.json").write_text("no JSON")
    with pytest.raises(DataError, match="name a run, its adapter folder, or an output"):
        find_adapter(str(tmp_path), SETTINGS)


def test_an_adapter_that_was_rejected_is_named_so(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "one" / "rejected")
    with pytest.raises(DataError, match=r"was rejected, rejected/report\.html there says why"):
        find_adapter(str(tmp_path / "one"), SETTINGS)
    found = find_adapter(str(tmp_path / "one" / "rejected"), SETTINGS)
    assert found.folder == tmp_path / "one" / "rejected" / "adapter"


def test_a_base_that_was_in_a_folder_has_to_be_named(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    edit(moved / "adapter" / "adapter_config.json", base_model_name_or_path="mine")
    with pytest.raises(SettingsError, match="a folder named 'mine'; say where it is with --base-m"):
        find_adapter(str(moved), SETTINGS)
    assert find_adapter(str(moved), SETTINGS, str(TINY)).base.folder == TINY


def test_a_base_of_another_revision_is_warned_of(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        find_adapter(str(run), SETTINGS)
        assert not caplog.messages
        moved = shutil.copytree(run, tmp_path / "run")
        edit(moved / "adapter" / "adapter_config.json", revision="sha256:0")
        revision = find_adapter(str(moved), SETTINGS).base.revision
    assert caplog.messages == [
        f"the adapter was trained on builtin:tiny sha256:0, not {revision}",
    ]


def test_the_tokenizer_is_the_base_s_where_none_is_saved(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run, tmp_path / "run")
    assert find_adapter(str(moved), SETTINGS).tokenizer().name_or_path == str(moved / "adapter")
    (moved / "adapter" / "tokenizer_config.json").unlink()
    assert find_adapter(str(moved), SETTINGS).tokenizer().name_or_path == str(TINY)


def test_the_precision_it_was_trained_in_is_read_or_taken_from_the_base(tmp_path: Path) -> None:
    adapter = find_adapter(str(random_adapter(tmp_path)), Settings.read({}, {}, trains=False))
    assert adapter.compute_dtype() == torch.float32
    (file := adapter.folder / QUANTISATION).unlink()
    assert adapter.compute_dtype() == torch.bfloat16  # the built-in model's own
    file.write_text('{"bnb_4bit_compute_dtype": "float16"}')
    assert adapter.compute_dtype() == torch.float16
    for damaged in ("{", "[]", "{}", '{"bnb_4bit_compute_dtype": "int8"}'):
        file.write_text(damaged)
        with pytest.raises(DataError, match=r"quantization_config.json is damaged"):
            adapter.compute_dtype()
