"""A tokenizer is read from its own folder, whatever its config says."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.small_adapters import TINY, edit

from trainer.errors import DataError
from trainer.models.tokenizer_files import load_tokenizer

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCY"
READS_A_FILE = {"tokenizer_class": "BertTokenizer", "unk_token": "[default]"}


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A file of this machine that no model may read."""
    (path := tmp_path / "credentials").write_text(f"[default]\n{SECRET}\n")
    return path


def named(path: Path) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("tokenizer_config.json", {"vocab": str(path)}),
        ("tokenizer_config.json", {"init_inputs": [str(path)]}),
        ("tokenizer_config.json", {"vocab_file": str(path), "vocab": str(path)}),
        ("special_tokens_map.json", {"vocab": str(path)}),
    ]


@pytest.mark.parametrize("way", range(4))
def test_no_config_makes_tokens_of_a_file_elsewhere(tmp_path: Path, held: Path, way: int) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    shutil.copy(TINY / "config.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(READS_A_FILE))
    name, config = named(held)[way]
    old = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps(old | config))
    try:
        vocabulary = load_tokenizer(folder).get_vocab()
    except Exception:  # nothing else is there to make one of
        return
    assert SECRET not in " ".join(vocabulary)
    assert SECRET.lower() not in " ".join(vocabulary)


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/one.jinja"])
def test_no_link_makes_a_template_of_a_file_elsewhere(
    tmp_path: Path, held: Path, name: str
) -> None:
    folder = shutil.copytree(TINY, tmp_path / "base")
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(held)
    with pytest.raises(DataError, match=f"{name} is no file of the model but leads elsewhere"):
        load_tokenizer(folder)
    Path(folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DataError, match=f"{name} is no file of the model"):
        load_tokenizer(folder)


def test_links_of_the_hubs_cache_and_of_weights_are_followed(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "model/blobs", tmp_path / "model/snapshots/abc"
    shutil.copytree(TINY, blobs)
    folder.mkdir(parents=True)
    for path in blobs.iterdir():
        (folder / path.name).symlink_to(f"../../blobs/{path.name}")
    (folder / "elsewhere.safetensors").symlink_to(TINY / "model.safetensors")
    assert load_tokenizer(folder).get_vocab() == load_tokenizer(TINY).get_vocab()


def test_what_is_no_name_of_a_file_is_read_as_before(tmp_path: Path) -> None:
    """And the rest costs the tokenizer nothing."""
    folder = shutil.copytree(TINY, tmp_path / "base")
    edit(
        folder / "tokenizer_config.json",
        vocab_file="/home/author/vocab.txt",
        tokenizer_file="/home/author/tokenizer.json",
        extra_special_tokens=["<one>"],
        chat_template="{{ messages[0].content }}",
        model_max_length=77,
    )
    (folder / "chat_template.jinja").unlink()
    tokenizer, plain = load_tokenizer(folder), load_tokenizer(TINY)
    assert tokenizer("a sentence").input_ids == plain("a sentence").input_ids
    assert tokenizer.eos_token == plain.eos_token
    assert tokenizer.convert_tokens_to_ids("<one>") == len(plain)
    assert (tokenizer.model_max_length, tokenizer.name_or_path) == (77, str(folder))
    assert tokenizer.chat_template == "{{ messages[0].content }}"
    tokenizer.save_pretrained(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved")("a <one>").input_ids == tokenizer("a <one>").input_ids


@pytest.mark.parametrize("broken", ["[]", "{", "null", '"a"'])
def test_a_config_that_is_none_is_an_error(tmp_path: Path, broken: str) -> None:
    folder = shutil.copytree(TINY, tmp_path / "base")
    (folder / "tokenizer_config.json").write_text(broken)
    with pytest.raises(ValueError, match=r"config.json is no JSON object|Expecting"):
        load_tokenizer(folder)
