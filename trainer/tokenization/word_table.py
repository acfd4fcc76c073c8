"""Tokens of running text from a table of the words that were seen before.

Most tokenizers never make a token that reaches over the border between a word and the space behind
it. For those a text's tokens are those of its words, end to end, and a table of words is several
times as fast as the tokenizer. Whether it holds for a tokenizer is tried out when one is opened,
on every pair of kinds of characters around a border and on every entry of its vocabulary that
reaches over one; for one that fails, texts are tokenised whole.
"""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise, product
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Int32 = npt.NDArray[np.int32]
Encode = Callable[[list[str]], "list[Encoding]"]

# A word is what follows white space, with it. SentencePiece writes a space as \u2581.
_GAP, _SOLID = "[\\s\u2581]", "[^\\s\u2581]"
_IS_GAP = np.array([chr(at).isspace() or at == 0x2581 for at in range(0x3002)])


@dataclass(frozen=True)
class Border:
    """What begins a word: white space behind something else."""

    pattern: re.Pattern[str]
    """of one word"""
    is_space_only: bool
    """not where the white space begins with something else than a space"""


_BORDERS = (
    Border(re.compile(f"{_GAP}*{_SOLID}+|{_GAP}+"), is_space_only=False),
    # some tokenizers join punctuation with the line break behind it
    Border(
        re.compile(f"{_GAP}*{_SOLID}+(?:(?! ){_GAP}+(?:{_SOLID}+|$))*|{_GAP}+"), is_space_only=True
    ),
)
_KINDS = (
    *("a", "Z", "on't", "'", "'s", "1", "12", "123", "1234", "a1", ".", "...", "!?", ",", ":", "#"),
    *("##", '"', ")", "(", "]", "{", "-", "--", "_", "__", "/", "\\", "$", "\u20ac", "\u00e9"),
    *("e\u0301", "\u0301", "\u4e2d", "\u3042\u3044", "\ud55c", "\u0434", "\u0e01", "\u0937\u093f"),
    *("\U0001f600", "\u200b", "\u200d", "\ufeff", "\u00ad", "\u2019", "\u2026", "\x7f", "\x1b"),
    *("\u00b2", "\u2167", "\ufb01", "\u0130", "\u03a3", "\ufffd", "=>", "a.", "1.", "a_", "a-"),
)
_MAIN_KINDS = ("a", "1", ".", "'s", '"', "_", "\u00e9", "\u4e2d", "\U0001f600")
_GAPS = (
    *(" ", "  ", "    ", "\n", "\n\n", " \n", "\n ", "\t", "\r\n", "\n\n\n  "),
    *("\u00a0", " \u3000"),
)
_WORTH_IT_CHARS = 1 << 20  # trying a tokenizer out takes as long as some MiB of text
_MOST_CHARS = 2 << 20  # of the table, `_ENTRY_CHARS` counted for each word
_ENTRY_CHARS = 24
_FEW_CHARS = 1 << 12  # a pattern finds the words of so few sooner


@dataclass(frozen=True, eq=False)
class TokenizedText:
    """Of one text: its tokens, and the character at which each starts. Both [T]."""

    ids: Int32
    starts: Int32


class WordTable:
    """Tokenises texts; several threads may use it together.

    `encode` gives the tokens of whole texts, nothing added, by `tokenizer`.
    """

    def __init__(self, encode: Encode, tokenizer: "Tokenizer") -> None:
        self._encode = encode
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._chars = 0
        self._table = _Table()

    def __call__(self, texts: list[str]) -> list[TokenizedText]:
        with self._lock:
            self._chars += sum(map(len, texts))
            border = self.border if self._chars > _WORTH_IT_CHARS else None
        if border is None:
            return [_whole(encoding) for encoding in self._encode(texts)]
        return self._from_words(_words(texts, border))

    @cached_property
    def border(self) -> Border | None:
        """What the words of a text are; None where only the whole will do."""
        vocabulary = _vocabulary(self._tokenizer)
        return next((border for border in _BORDERS if self._is_exact(border, vocabulary)), None)

    @property
    def known_chars(self) -> int:
        """Of the table, as they are counted for its limit."""
        return self._table.chars

    def _from_words(self, words: "_Words") -> list[TokenizedText]:
        with self._lock:
            if self._table.chars > _MOST_CHARS:
                self._table = _Table()
            table = self._table
            known = np.fromiter(
                map(table.__getitem__, words.distinct), np.int64, len(words.distinct)
            )
            if table.unknown:
                table.learn(self._encode(table.unknown))
            tokens = table.tokens
        numbers = known[words.numbers]
        return [tokens.joined(numbers[begin:end]) for begin, end in pairwise(words.bounds)]

    def _is_exact(self, border: Border, vocabulary: Sequence[str]) -> bool:
        """Whether texts are their words end to end."""
        sides = [*product(_KINDS, _MAIN_KINDS), *product(_MAIN_KINDS, _KINDS)]
        probes = [f"{before}{gap}{behind}" for (before, behind), gap in product(sides, _GAPS)]
        probes += [f"x{gap}" for gap in _GAPS] + [f"{gap}x" for gap in _GAPS]
        probes += [entry for entry in vocabulary if len(border.pattern.findall(entry)) > 1]
        words = [border.pattern.findall(probe) for probe in probes]
        distinct = list(dict.fromkeys(word for found in words for word in found))
        alone = dict(zip(distinct, map(_tokens, self._encode(distinct)), strict=True))
        return all(
            _tokens(whole) == _end_to_end([(word, *alone[word]) for word in found])
            for found, whole in zip(words, self._encode(probes), strict=True)
        )


@dataclass(frozen=True, eq=False)
class _Words:
    """Text n is the words `distinct[m]` for m in `numbers[bounds[n] : bounds[n + 1]]`, joined."""

    distinct: list[str]
    numbers: npt.NDArray[np.integer]
    bounds: list[int]


def _words(texts: list[str], border: Border) -> _Words:
    if sum(map(len, texts)) < _FEW_CHARS:
        return _matched(texts, border)
    return _encoded(texts, border)


def _matched(texts: list[str], border: Border) -> _Words:
    found = [border.pattern.findall(text) for text in texts]
    bounds = np.cumsum([0, *map(len, found)])
    return _Words([*chain(*found)], np.arange(bounds[-1]), bounds.tolist())


def _encoded(texts: list[str], border: Border) -> _Words:
    """As `_matched`, each word once, by numpy and pyarrow: other threads run meanwhile."""
    import pyarrow as pa
    from pyarrow import compute

    data = "".join(texts).encode("utf-32-le")
    chars = np.frombuffer(data, "<u4")
    is_gap = _IS_GAP.take(chars, mode="clip")
    begins = np.zeros(len(chars) + 1, bool)
    np.greater(is_gap[1:], is_gap[:-1], out=begins[1:-1])
    if border.is_space_only:
        begins[:-1] &= chars == ord(" ")
    text_bounds = np.cumsum([0, *map(len, texts)])
    begins[text_bounds] = True
    starts = np.flatnonzero(begins)
    buffers = [None, pa.py_buffer((starts * 4).astype(np.int32)), pa.py_buffer(data)]
    words = pa.Array.from_buffers(pa.binary(), len(starts) - 1, buffers)
    # arrow's own pool would keep what every batch took
    found = compute.dictionary_encode(words, memory_pool=pa.system_memory_pool())
    return _Words(
        [word.decode("utf-32-le") for word in found.dictionary.to_pylist()],
        np.frombuffer(found.indices.buffers()[1], np.int32, len(starts) - 1),  # no pandas
        np.searchsorted(starts, text_bounds).tolist(),
    )


def _vocabulary(tokenizer: "Tokenizer") -> list[str]:
    """What each entry looks like as text, byte-level or SentencePiece's: their decoder drops the
    spaces of a token that stands alone. Added ones may take the white space beside them."""
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    entries = tokenizer.get_vocab()
    decoded = tokenizer.decode_batch([[n] for n in entries.values()], skip_special_tokens=False)
    return [
        *decoded,
        *(entry.replace("\u2581", " ") for entry in entries),
        *(f"a {token} {token} a" for token in added),
    ]


def _tokens(encoding: "Encoding") -> tuple[list[int], list[int]]:
    """(ids, the character at which each starts)."""
    return encoding.ids, [start for start, _ in encoding.offsets]


def _end_to_end(words: list[tuple[str, list[int], list[int]]]) -> tuple[list[int], list[int]]:
    joined: tuple[list[int], list[int]] = [], []
    at = 0
    for word, ids, starts in words:
        joined[0].extend(ids)
        joined[1].extend(at + start for start in starts)
        at += len(word)
    return joined


def _whole(encoding: "Encoding") -> TokenizedText:
    return TokenizedText(*(np.array(column, np.int32) for column in _tokens(encoding)))


@dataclass(frozen=True, eq=False)
class _WordTokens:
    """Tokens of all words of a table: word n is `chars[n]` long and has those from `first[n]` on,
    `count[n]` of them. `starts` counts from the start of the word.
    """

    ids: Int32
    starts: Int32
    first: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    chars: npt.NDArray[np.int64]

    def joined(self, numbers: npt.NDArray[np.int64]) -> TokenizedText:
        """Of the words with these `numbers` [W], end to end."""
        count, chars = self.count[numbers], self.chars[numbers]
        before = np.cumsum(count) - count
        at = np.arange(int(count.sum())) + np.repeat(self.first[numbers] - before, count)
        offsets = np.repeat((np.cumsum(chars) - chars).astype(np.int32), count)
        return TokenizedText(self.ids[at], self.starts[at] + offsets)


class _Table(dict[str, int]):
    """Word -> its number. One that is asked for the first time waits in `unknown`."""

    def __init__(self) -> None:
        super().__init__()
        none = np.empty(0, np.int32)
        self.tokens = _WordTokens(none, none, *(none.astype(np.int64) for _ in range(3)))
        self.unknown: list[str] = []
        self.chars = 0

    def __missing__(self, word: str) -> int:
        number = len(self)
        self[word] = number
        self.unknown.append(word)
        return number

    def learn(self, encodings: "Sequence[Encoding]") -> None:
        """Those of `unknown`, in order."""
        known = self.tokens
        found = [_whole(encoding) for encoding in encodings]
        count = np.array([len(word.ids) for word in found], np.int64)
        self.tokens = _WordTokens(
            np.concatenate([known.ids, *(word.ids for word in found)]),
            np.concatenate([known.starts, *(word.starts for word in found)]),
            np.concatenate([known.first, len(known.ids) + np.cumsum(count) - count]),
            np.concatenate([known.count, count]),
            np.concatenate([known.chars, list(map(len, self.unknown))]),
        )
        self.chars += sum(map(len, self.unknown)) + _ENTRY_CHARS * len(self.unknown)
        self.unknown = []
