"""A tokenizer is read from its own folder, whatever its config says."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.small_adapters import TINY, edit

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
