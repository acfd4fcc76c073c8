"""A tokenizer of anybody's makes no text endless; those of real models are what they were."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.small_adapters import TINY
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from trainer.errors import DataError
from trainer.models.tokenizer_files import load_tokenizer
from trainer.models.tokenizer_limits import refuse_bombs

Spoil = Callable[[dict[str, Any]], Any]
BOMB = {"type": "Replace", "pattern": {"Regex": "."}, "content": "x" * 1000}


def written(charsmap: bytes) -> dict[str, Any]:
    made = normalizers.Precompiled(charsmap)
    found: dict[str, Any] = json.loads(made.__getstate__())
    return found


def around(record: dict[str, Any], count: int) -> None:
    first = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    last = {"Sequence": {"id": "A", "type_id": 0}}
    record["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first] * count + [last],
        "pair": [last, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
    }


@pytest.mark.parametrize(
    ("spoil", "fact"),
    [
        (
            lambda r: r.update(normalizer={"type": "Sequence", "normalizers": [BOMB] * 3}),
            "the tokenizer's normalizer can make a text 1,003,003,001 times as long",
        ),
        (
            lambda r: r.update(normalizer=BOMB),
            "the tokenizer's normalizer can make a text 1,001 times",
        ),
        (
            lambda r: r.update(normalizer={"type": "Prepend", "prepend": "x" * 10**6}),
            "the tokenizer's normalizer can make a text 1,000,001 times",
        ),
        (
            lambda r: r["decoder"].update(
                type="Sequence", decoders=[{"type": "Fuse"}, BOMB | {"pattern": {"String": "a"}}]
            ),
            "the tokenizer's decoder can make a text 1,000 times",
        ),
        (
            lambda r: r["decoder"].update(
                type="Sequence", decoders=[BOMB | {"content": ""}, {"type": "Fuse"}]
            ),
            "the tokenizer's decoder looks for a pattern",
        ),
        (lambda r: around(r, 100_000), "more than 64 tokens around a text"),
        (lambda r: r["model"]["vocab"].update({"y" * 10**5: 3071}), "token of more than 16,384"),
    ],
)
def test_what_makes_a_text_endless_is_refused(spoil: Spoil, fact: str, tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "base")
    record = json.loads((folder / "tokenizer.json").read_text())
    spoil(record)
    (folder / "tokenizer.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=fact):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        normalizers.Replace("``", '"'),
        normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
        normalizers.BertNormalizer(),
    ],
)
def test_what_published_tokenizers_do_is_not_refused(normalizer: Any) -> None:
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokenizer.normalizer = normalizer
    refuse_bombs(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
