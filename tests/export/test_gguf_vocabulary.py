"""A tokenizer in a GGUF file splits text as it did, or is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import TokenType
from support.gguf_files import exported, llama_cpp, with_llama_cpp
from support.small_adapters import random_adapter, tiny_as
from support.tokenizers import PROSE, make_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from trainer.errors import SettingsError
from trainer.export.gguf_vocabulary import vocabulary_of
from trainer.tokenization.record_tokenizer import question_ids

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
WORDS += r"|\s*[\r\n]+|\s+(?!\S)|\s+"
SEED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+"
SEED += r"|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
TEKKEN += r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
TEKKEN += r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@with_llama_cpp
@pytest.mark.parametrize("kind", ["bytes", "llama", "legacy"])
def test_llama_cpp_splits_text_as_the_tokenizer_does(kind: str, tmp_path: Path) -> None:
    base = tiny_as(tmp_path / "base", "float16")
    tokenizer = make_tokenizer(kind)
    tokenizer.save_pretrained(base)
    assert len(tokenizer) < 3072  # what is left of the embedding's rows is padding
    run = random_adapter(tmp_path / "run", base)
    folder = exported(tmp_path / "files", run, base)
    cpp = llama_cpp(folder / "merged.gguf", vocab_only=True)
    for text in (PROSE.strip(), "Über 1234 Öfen, 東京 🦊", "two  spaces", "a\n\n\nb", "don't"):
        expected = question_ids(tokenizer, text)
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}],
            chat_template=cpp.metadata["tokenizer.chat_template"],
            add_generation_prompt=True,
            tokenize=False,
        )
        assert cpp.tokenize(prompt.encode(), add_bos=False, special=True) == expected


@pytest.mark.parametrize(
    ("kind", "model", "pre_tokenizer"),
    [("bytes", "gpt2", "gpt-2"), ("llama", "llama", "default")],
)
def test_every_row_of_the_embedding_has_a_token(kind: str, model: str, pre_tokenizer: str) -> None:
    tokenizer = make_tokenizer(kind)
    size = len(tokenizer) + 5
    words = vocabulary_of(tokenizer, size)
    assert (words.model, words.pre_tokenizer) == (model, pre_tokenizer)
    assert len(words.tokens) == len(words.kinds) == size
    assert words.tokens[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert words.kinds[len(tokenizer) :] == [TokenType.UNUSED] * 5
    assert all(words.kinds[at] == TokenType.CONTROL for at in tokenizer.all_special_ids if at)
    assert bool(words.merges) == (model == "gpt2")
    assert len(words.scores) == (size if model == "llama" else 0)


@pytest.mark.parametrize(
    ("pattern", "whole", "name"),
    [
        (WORDS % r"\p{N}{1,3}", True, "llama-bpe"),  # Llama 3, SmolLM3
        (WORDS % r"\p{N}{1,3}", False, "dbrx"),  # Phi-4, OLMo 2
        (WORDS % r"\p{N}", False, "qwen2"),
        (SEED, False, "seed-coder"),
        (SEED.replace(r"\r\n", "\r\n"), False, "seed-coder"),
        (TEKKEN, True, "tekken"),  # Ministral 3
    ],
)
def test_how_a_byte_level_tokenizer_splits_is_named(pattern: str, whole: bool, name: str) -> None:
    tokenizer = make_tokenizer("bytes")
    record = json.loads(tokenizer.backend_tokenizer.to_str())
    record["model"]["ignore_merges"] = whole
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    last = record["pre_tokenizer"] | {"use_regex": False}
    record["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, last]}
    changed = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(record)))
    assert vocabulary_of(changed, 600).pre_tokenizer == name


def test_a_tokenizer_that_llama_cpp_could_not_follow_is_refused() -> None:
    tokenizer = make_tokenizer("bytes")
    from tokenizers import pre_tokenizers

    backend: Any = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(SettingsError, match=r"tokenizer \(Whitespace\) is not one"):
        vocabulary_of(tokenizer, 600)
