"""Some of what is trained as the model will see it: its tokens, written out again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainer.corpus.formats import kind_of
from trainer.dataset.selection import Selection
from trainer.tokenization.encode import ids_of, trained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_CHARS = 2_000  # of a record in a report or on a screen
_HEAD = 0.7  # of them: how a record begins says more than how it ends


@dataclass(frozen=True)
class Piece:
    """Text whose tokens are alike: trained or given, special or not."""

    text: str
    trained: bool
    special: bool


@dataclass(frozen=True)
class SeenRecord:
    """The first sequence of a record or document, which is the `number`-th of `count` in `file`.

    `cut` says that it lost its end to QLORA_MAX_LENGTH; a document has several `sequences`
    instead. `spelt_out` are special tokens that stand in it as plain text.
    """

    file: str
    number: int
    count: int
    tokens: int
    trained_tokens: int
    sequences: int
    cut: bool
    pieces: Sequence[Piece]
    spelt_out: Sequence[str] = ()


def seen_records(
    chosen: Selection, tokenizer: "PreTrainedTokenizerBase", most: int
) -> list[SeenRecord]:
    """At most `most` of the `chosen` examples: of each kind of file one, of cut records one, and
    others at equal distances."""
    return [_seen(chosen, int(number), tokenizer) for number in _some(chosen, most)]


def shortened(pieces: Sequence[Piece], most: int = MOST_CHARS) -> list[Piece]:
    """Without the middle of what is longer than `most` characters, whose length is said."""
    chars = sum(len(piece.text) for piece in pieces)
    if chars <= most:
        return list(pieces)
    head = int(most * _HEAD)
    left_out = Piece(f"\n[… {chars - most:,} characters …]\n", trained=False, special=False)
    return [*_part(pieces, 0, head), left_out, *_part(pieces, chars - most + head, chars)]


def _part(pieces: Sequence[Piece], start: int, end: int) -> Iterator[Piece]:
    """What stands between two characters of the text of all."""
    at = 0
    for piece in pieces:
        text = piece.text[max(start - at, 0) : max(end - at, 0)]
        if text:
            yield Piece(text, piece.trained, piece.special)
        at += len(piece.text)


def _some(chosen: Selection, most: int) -> npt.NDArray[np.int64]:
    rows = chosen.corpus.cache.rows
    numbers = np.flatnonzero(chosen.chosen & (rows["sequences"] > 0))
    if len(numbers) <= most:
        return numbers
    names = [kind_of(file.name) for file in chosen.corpus.files]
    kinds = np.unique(names, return_inverse=True)[1]
    _, first = np.unique(kinds[rows["source"][numbers]], return_index=True)
    cut = np.flatnonzero(rows["truncated"][numbers])[:1]
    spread = np.linspace(0, len(numbers) - 1, most).astype(int)
    wanted = dict.fromkeys([*sorted(first), *cut, *spread])
    return numbers[sorted(list(wanted)[:most])]


def _seen(chosen: Selection, number: int, tokenizer: Any) -> SeenRecord:
    cache = chosen.corpus.cache
    row, usable = cache.rows[number], cache.usable
    alone = np.zeros(len(usable), bool)
    alone[number] = True
    starts, lengths = cache.sequences(alone)
    tokens = np.array(cache.tokens[starts[0] : starts[0] + lengths[0]])
    pieces = list(_pieces(tokens, tokenizer))
    special = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    same_file = np.flatnonzero(usable & (cache.rows["source"] == row["source"]))
    return SeenRecord(
        file=chosen.corpus.files[row["source"]].name,
        number=int(np.searchsorted(same_file, number)) + 1,
        count=len(same_file),
        tokens=len(tokens),
        trained_tokens=trained(tokens),
        sequences=len(starts),
        cut=bool(row["truncated"]),
        pieces=pieces,
        spelt_out=[s for s in special if any(s in p.text and not p.special for p in pieces)],
    )


def _pieces(tokens: npt.NDArray[np.int32], tokenizer: Any) -> Iterator[Piece]:
    """Neighbours that are alike together."""
    ids = ids_of(tokens)
    is_trained = tokens >= 0
    is_trained[0] = False  # nothing stands before it that could predict it
    is_special = np.isin(ids, list(tokenizer.added_tokens_decoder))
    differs = (is_trained[1:] != is_trained[:-1]) | (is_special[1:] != is_special[:-1])
    borders = [0, *(np.flatnonzero(differs) + 1).tolist(), len(ids)]
    before = ""
    for start, end in pairwise(borders):
        text = _decoded(ids[:end], tokenizer)
        # A tokenizer may take a space off the start of what it decodes, so all before is decoded
        # with it; where a character was cut in two, what stood for its half is not there any more.
        own = (
            text[len(before) :] if text.startswith(before) else _decoded(ids[start:end], tokenizer)
        )
        before = text
        yield Piece(own, bool(is_trained[start]), bool(is_special[start]))


def _decoded(ids: npt.NDArray[np.int32], tokenizer: Any) -> str:
    return str(
        tokenizer.decode(
            ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
    )
