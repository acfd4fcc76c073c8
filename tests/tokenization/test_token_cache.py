"""Tokens on disk are what was written, or are made again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.token_caches import content, flip, prepare, write_prose

from trainer.tokenization import token_cache

FILES = ("shelf.json", *token_cache.COLUMNS)


@pytest.mark.parametrize(
    "harm", ["cut off", "no index", "half an index", *(f"flipped {name}" for name in FILES)]
)
def test_damaged_tokens_are_made_again(
    tmp_path: Path, tokenizer: Any, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_prose(tmp_path, 3)
    first = prepare(tmp_path, tokenizer)
    before = content(first)
    (index,) = (tmp_path / "scratch/tokens").glob("*/shelf.json")
    if harm == "cut off":
        with (index.parent / "tokens").open("r+b") as file:
            file.truncate(100)
    elif harm == "no index":
        index.unlink()
    elif harm == "half an index":
        index.write_text(index.read_text()[:50])
    else:
        flip(index.parent / harm.removeprefix("flipped "))
    again = prepare(tmp_path, tokenizer)
    assert content(again) == before and again.counts == first.counts
    assert "what was tokenised is damaged; it is made again" in caplog.text


def test_only_the_newest_token_folders_are_kept(tmp_path: Path, tokenizer: Any) -> None:
    write_prose(tmp_path, 2)
    for length in range(32, 32 + token_cache.KEPT_CACHES + 2):
        prepare(tmp_path, tokenizer, MAX_LENGTH=str(length))
    assert len(list((tmp_path / "scratch/tokens").glob("*/"))) == token_cache.KEPT_CACHES


def test_sequences_are_looked_up_a_few_at_a_time_and_none_is_lost(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prose(tmp_path, 30)
    at_once = content(prepare(tmp_path, tokenizer))
    assert len(at_once) > 3 * 7
    monkeypatch.setattr(token_cache, "_SEQUENCES_AT_ONCE", 7)
    assert content(prepare(tmp_path, tokenizer)) == at_once


def test_blocks_are_read_from_the_disk_and_not_from_memory(tmp_path: Path, tokenizer: Any) -> None:
    write_prose(tmp_path, 3)
    found = prepare(tmp_path, tokenizer)
    (index,) = (tmp_path / "scratch/tokens").glob("*/shelf.json")
    assert isinstance(found.train._tokens, np.memmap)  # type: ignore[attr-defined]
    sizes = token_cache.WriteProgress.parse(index.read_text()).sizes
    assert sizes["tokens"] == 4 * found.train._tokens.size  # type: ignore[attr-defined]
