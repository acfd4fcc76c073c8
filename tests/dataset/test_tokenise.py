"""Files become tokens on disk once; another setting makes others."""

from pathlib import Path
from typing import Any

import pytest
from support.token_caches import content, prepare, write_prose

from trainer.tokenization import token_cache_writer


def test_a_second_start_tokenises_nothing_and_finds_the_same(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prose(tmp_path, 30)
    first = prepare(tmp_path, tokenizer)

    def never(*_: Any) -> None:
        raise AssertionError("it tokenises again")

    monkeypatch.setattr(token_cache_writer, "write", never)
    second = prepare(tmp_path, tokenizer)
    assert content(second) == content(first)
    assert second.counts == first.counts


@pytest.mark.parametrize(
    "change",
    [{"MAX_LENGTH": "32"}, {"TEXT_COLUMN": "words"}],
)
def test_another_setting_that_decides_the_tokens_makes_others(
    tmp_path: Path, tokenizer: Any, change: dict[str, str]
) -> None:
    write_prose(tmp_path, 3)
    prepare(tmp_path, tokenizer)
    prepare(tmp_path, tokenizer, **change)
    assert len(list((tmp_path / "scratch/tokens").glob("*/shelf.json"))) == 2
