"""A table of words gives the tokens of the whole text, or is not used."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.jobs import ROOT
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from trainer.tokenization import word_table
from trainer.tokenization.word_table import WordTable

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PROSE = "\n".join(p.read_text() for p in sorted((ROOT / "examples/data/handbook").glob("*.md")))
CODE = "def f(x):\n    return {'a': x}  # it's\n\n\tif x:\n        y = 1;\r\n" * 20


def trained(pre_tokenizer: Any, normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        [PROSE, CODE],
        trainers.BpeTrainer(
            vocab_size=1500,
            special_tokens=["</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def metaspace(text: str = "") -> Tokenizer:
    """As Llama-2's; `text` is what its words may reach over."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=not text)
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<unk>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator([text or PROSE], trainer)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def split(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def with_added(content: str, **how: bool) -> Tokenizer:
    tokenizer = trained(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_tokens([AddedToken(content, special=False, normalized=False, **how)])
    return tokenizer


WORD_BY_WORD: dict[str, Callable[[], Tokenizer]] = {
    "gpt-2": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "llama-3": lambda: trained(split(LLAMA_3)),
    "qwen": lambda: trained(split(LLAMA_3.replace("{1,3}", "")), normalizers.NFC()),
    "llama-2": metaspace,
    "always a space first": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "runs of spaces": lambda: with_added("    "),
}
WHOLE: dict[str, Callable[[], Tokenizer]] = {
    "words across spaces": lambda: trained(
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ),
    "SentencePiece across spaces": lambda: metaspace(
        ". ".join(["of the thing", "of the word", "it is"] * 9)
    ),
    "an entry across spaces": lambda: with_added("such a rare one"),
    "takes the space behind it": lambda: with_added("<br>", rstrip=True),
    "ends are stripped": lambda: trained(
        pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.Strip()
    ),
}


def opened(tokenizer: Tokenizer) -> WordTable:
    tokenizer.encode_special_tokens = True
    return WordTable(
        lambda texts: tokenizer.encode_batch(texts, add_special_tokens=False), tokenizer
    )


def assert_same(words: WordTable, tokenizer: Tokenizer, texts: list[str]) -> None:
    wholes = tokenizer.encode_batch(texts, add_special_tokens=False)
    for text, found, whole in zip(texts, words(texts), wholes, strict=True):
        assert found.ids.tolist() == whole.ids, text
        assert found.starts.tolist() == [start for start, _ in whole.offsets], text


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_table, "_WORTH_IT_CHARS", -1)


WORDS = st.sampled_from(
    PROSE.split()[:200]
    + CODE.split()
    + ["1234567", "naïve", "e\u0301", "日本語", "한국어", "😀", "</s>", "it's", "...", "\ufeff"]
    + ["\u2581", "a\u2581b", "\u200b", "\x1c", "\x85", "\u180e"]
)
GAPS = st.sampled_from(
    [" "] * 8 + ["  ", "\n", "\n\n", " \n", "\n    ", "\t", "\r\n", "\u00a0", "\u3000", ""]
)
TEXTS = st.lists(st.tuples(GAPS, WORDS), max_size=30).map(
    lambda parts: "".join(gap + word for gap, word in parts)
) | st.text(max_size=60)


@pytest.fixture(scope="module", params=WORD_BY_WORD)
def sound(request: pytest.FixtureRequest) -> tuple[WordTable, Tokenizer]:
    tokenizer = WORD_BY_WORD[request.param]()
    return opened(tokenizer), tokenizer


def test_words_end_to_end_are_the_text_for_usual_tokenizers(
    sound: tuple[WordTable, Tokenizer],
) -> None:
    words, tokenizer = sound
    assert words.border is not None
    assert_same(words, tokenizer, ["", " ", PROSE, CODE, PROSE + " ", f" {CODE}\n\n"])

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(st.lists(TEXTS, max_size=4))
    def on(texts: list[str]) -> None:
        assert_same(words, tokenizer, texts)

    on()


@pytest.mark.parametrize("kind", WHOLE)
def test_a_tokenizer_that_reaches_over_spaces_gets_whole_texts(kind: str) -> None:
    tokenizer = WHOLE[kind]()
    words = opened(tokenizer)
    assert words.border is None
    assert_same(words, tokenizer, [PROSE, CODE, "of the thing", "such a rare one", "a <br> b"])


def test_a_table_that_grew_too_large_starts_over(
    sound: tuple[WordTable, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, tokenizer = sound
    monkeypatch.setattr(word_table, "_MOST_CHARS", 2000)
    for start in range(0, 20_000, 1000):
        assert_same(words, tokenizer, [PROSE[start : start + 1000]])
    assert words.known_chars < 2000 + 1000 * (1 + word_table._ENTRY_CHARS)


def test_a_small_corpus_does_not_pay_for_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_table, "_WORTH_IT_CHARS", 1 << 20)
    tokenizer = WORD_BY_WORD["gpt-2"]()
    words = opened(tokenizer)
    assert_same(words, tokenizer, [PROSE[:1000]])
    assert words.known_chars == 0 and np.size(words([""])[0].ids) == 0


@pytest.mark.parametrize("border", word_table._BORDERS)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(texts=st.lists(TEXTS, max_size=4))
def test_words_are_found_in_arrays_as_by_their_pattern(
    border: word_table.Border, texts: list[str]
) -> None:
    for found in (word_table._matched(texts, border), word_table._encoded(texts, border)):
        words = [found.distinct[number] for number in found.numbers]
        assert words == [word for text in texts for word in border.pattern.findall(text)]
        ends = [len(border.pattern.findall(text)) for text in texts]
        assert found.bounds == np.cumsum([0, *ends]).tolist()
