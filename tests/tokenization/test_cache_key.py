"""Whatever decides the tokens decides the name of their cache."""

import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from support.imports import TRAINER, modules_below
from support.jobs import ROOT

from trainer.corpus import formats
from trainer.settings import Settings
from trainer.storage import Fetched
from trainer.tokenization.cache_key import (
    CODE,
    LIBRARIES,
    Software,
    cache_key,
    installed_software,
    source_files,
)

FILES = [Fetched("a.txt", Path("a.txt"), 1, "0" * 64), Fetched("b.txt", Path("b.txt"), 1, "1" * 64)]
HERE = installed_software()
# These wings of trainer/ open files, and say what went wrong; they make no tokens.
MAKES_NO_TOKENS = {"errors", "settings", "uris", "runtime", "storage", "distributed"}


def wing_of(path: Path) -> str:
    return path.relative_to(TRAINER).parts[0].removesuffix(".py")


def key(
    tokenizer: Any,
    software: Software = HERE,
    files: list[Fetched] = FILES,
    part: str = "whole",
    **changes: str,
) -> str:
    given = {"DATA_URI": "unused", "OUTPUT_URI": "unused"} | changes
    settings = Settings.read({}, {f"QLORA_{name}": value for name, value in given.items()})
    return cache_key(settings, files, tokenizer, part, software)


def test_the_same_data_and_software_find_the_same_tokens(tokenizer: Any) -> None:
    assert key(tokenizer) == key(tokenizer, installed_software(), LEARNING_RATE="1e-3")
    assert len(key(tokenizer)) == 24


@pytest.mark.parametrize(
    "change",
    [
        {"MAX_LENGTH": "77"},
        {"QUESTION_COLUMN": "q"},
        {"ANSWER_COLUMN": "a"},
        {"TEXT_COLUMN": "t"},
        {"part": "divided"},
        {"files": FILES[:1]},
        {"files": FILES[::-1]},
        {"files": [replace(FILES[0], sha256="f" * 64), FILES[1]]},
    ],
)
def test_other_data_or_settings_make_other_tokens(tokenizer: Any, change: dict[str, Any]) -> None:
    assert key(tokenizer, **change) != key(tokenizer)


@pytest.mark.parametrize(
    "path",
    [
        *("corpus/documents.py", "corpus/dedup.py", "corpus/sandbox_child.py", "labels.py"),
        *("tokenization/chunking.py", "tokenization/encode.py", "tokenization/chat_template.py"),
        *("tokenization/loss_mask.py", "tokenization/word_table.py", "dataset/holdout.py"),
    ],
)
def test_a_changed_source_makes_other_tokens(tmp_path: Path, tokenizer: Any, path: str) -> None:
    shutil.copytree(TRAINER, tmp_path / "trainer", ignore=shutil.ignore_patterns("builtin"))
    assert key(tokenizer, installed_software(tmp_path / "trainer")) == key(tokenizer)
    with (tmp_path / "trainer" / path).open("a") as file:
        file.write("# another version\n")
    assert key(tokenizer, installed_software(tmp_path / "trainer")) != key(tokenizer)


@pytest.mark.parametrize("library", LIBRARIES)
def test_another_version_of_a_parser_makes_other_tokens(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    installed = tmp_path / f"{library.replace('-', '_')}-99.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {library}\nVersion: 99.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert version(library) == "99.0"
    assert key(tokenizer, installed_software()) != key(tokenizer)


@pytest.mark.parametrize("pattern", ["corpus/*.pyx", "dataset/hold_out.py"])
def test_a_pattern_that_finds_no_source_is_an_error(pattern: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"decides the tokens; name where it is now in CODE"
    ):
        source_files(patterns=[*CODE, pattern])


def test_every_module_that_makes_tokens_is_in_the_key() -> None:
    """What reading, tokenising and dividing import, file by file."""
    deciding = modules_below(
        "trainer.corpus.sandbox_child",
        "trainer.dataset.holdout",
        "trainer.tokenization.token_cache_writer",
    )
    needed = {path for path in deciding if wing_of(path) not in MAKES_NO_TOKENS}
    assert needed <= set(source_files())
    assert len(needed) > 20


def test_every_format_names_libraries_that_are_installed_and_pinned() -> None:
    pinned = (ROOT / "docker/requirements-cpu.lock").read_text()
    for name in formats.LIBRARIES:
        assert f"\n{name}=={version(name)} " in pinned
    by_us = {form for form, kind in formats.FILE_TYPES.items() if not kind.libraries}
    # What the standard library reads; Python's version is in the key. JSON could exhaust it.
    assert {form for form in by_us if not formats.FILE_TYPES[form].is_harmless} == {".json"}
