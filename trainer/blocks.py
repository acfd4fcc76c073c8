"""Examples -> tokens -> blocks of one length: hold out, tokenise, mask, cut and pack.

No files and no GPU. Labels follow Hugging Face: `labels[i]` belongs to `input_ids[i]` and the
model shifts them, so a sequence's first label is never predicted.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainer.corpus import Completion, Conversation, Example, Heading, Outline, Text
from trainer.cuts import best_cut, text_boundary
from trainer.errors import DataError, SettingsError
from trainer.prompts import IGNORED, RecordTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Characters of one tokenizer call, and of one stretch of a document: bounds the memory that
# character offsets take, and lets one long book use all cores.
_BATCH_CHARS = 1_000_000
_SLICE_CHARS = 50_000
# The share of a sequence that the headings above it may take.
_CONTEXT = 1 / 8


@dataclass(frozen=True)
class Encoded:
    """A record, or a piece of a document. Both lists are [T], 2 <= T <= max_length.

    `key` is the key of the example it comes from; a label is the token itself or -100.
    """

    input_ids: list[int]
    labels: list[int]
    key: str


@dataclass
class Counts:
    """What `encode` saw and made; `dataclasses.asdict` of it is JSON-ready.

    `tokens` and `trained_tokens` are those of the encoded sequences, without padding.
    """

    records: int = 0
    documents: int = 0
    sequences: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    truncated: int = 0
    fully_masked: int = 0
    padding_share: float = 0.0

    def packed(self, blocks: "Sequence[Block]") -> "Counts":
        """The same counts with the share of padding in `blocks`, 0 to 1."""
        size = sum(len(block.input_ids) for block in blocks)
        return replace(self, padding_share=1 - self.tokens / size if size else 0.0)


@dataclass(frozen=True, eq=False)
class Block:
    """Several sequences and padding, each array int64 [max_length].

    Pass these three and no attention mask: transformers keeps attention inside a sequence
    because the positions start again at 0 with each.
    """

    input_ids: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    position_ids: npt.NDArray[np.int64]


# -- hold out -----------------------------------------------------------------------------


def hold_out(
    examples: Sequence[Example], share: float = 0.1
) -> tuple[list[Example], list[Example]]:
    """(train, held out), about `share` of the examples held out, both in their order.

    An example is held out when its key, read as a number in [0, 1), is below `share`: adding
    data moves no example to the other side. With two or more examples neither side is empty:
    the smallest key is held out, or the largest trained, where chance left nothing. A single
    document is cut in two near its end, at a paragraph, line or word; a single record, and a
    document of one word, are trained and nothing is held out.
    """
    if len(examples) == 1 and isinstance(examples[0], Text):
        return _hold_out_tail(examples[0], share)
    keys = sorted({example.key for example in examples})
    held = {key for key in keys if int(key[:16], 16) / 2**64 < share} | set(keys[:1])
    if len(held) == len(keys):
        held -= set(keys[-1:])
    return [e for e in examples if e.key not in held], [e for e in examples if e.key in held]


def _hold_out_tail(document: Text, share: float) -> tuple[list[Example], list[Example]]:
    text = document.text.strip()
    cut = text_boundary(text, 0, round(len(text) * (1 - share)), near_share=1 / 8)
    head, tail = text[:cut].strip(), text[cut:].strip()
    if not head or not tail or not text[cut - 1].isspace():
        return [document], []
    begins = document.text.index(text)
    split = begins + len(text) - len(tail)
    return (
        [Text(head, _moved([h for h in document.headings if h.at < split], -begins))],
        [Text(tail, _moved([h for h in document.headings if h.at >= split], -split))],
    )


def _moved(headings: Iterable[Heading], by: int) -> tuple[Heading, ...]:
    return tuple(replace(heading, at=heading.at + by) for heading in headings)


# -- tokenise -----------------------------------------------------------------------------


def encode(
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    *,
    max_masked_share: float = 0.1,
) -> tuple[list[Encoded], Counts]:
    """Tokenise `examples`, each sequence at most `max_length` tokens long.

    A document ends with eos and begins with bos if the tokenizer uses one; a long one becomes
    several sequences that begin at a section, paragraph, line, sentence or word, each with bos,
    since models lean on it, and the last with eos. One that begins inside a section is preceded
    by the headings above it, which are not trained. Of a conversation the answers and the token
    that ends each are trained, of a completion itself and eos. A long record loses its end; one
    that has no trained token left is dropped.

    Raises DataError if more than `max_masked_share` of the records are dropped, SettingsError
    if the tokenizer has no end token or no character offsets.
    """
    if not tokenizer.is_fast:
        raise SettingsError(
            "the base model's tokenizer gives no character offsets; "
            "choose a BASE_MODEL with a tokenizer.json"
        )
    words = RecordTokenizer(tokenizer)
    counts = Counts()
    encoded: list[Encoded] = []
    longest_prompt = 0
    for batch in _batches(examples):
        pieces = _encode_slices([s for s in batch if isinstance(s, _Slice)], words, max_length)
        tokens = iter(words.encode([r for r in batch if not isinstance(r, _Slice)]))
        for item in batch:
            if isinstance(item, _Slice):
                counts.documents += item.is_last
                encoded += next(pieces)
                continue
            counts.records += 1
            whole = next(tokens)
            sequence = Encoded(whole.input_ids[:max_length], whole.labels[:max_length], item.key)
            if _trained(sequence):
                counts.truncated += len(whole.input_ids) > max_length
                encoded.append(sequence)
            else:
                counts.fully_masked += 1
                longest_prompt = max(longest_prompt, _prompt_length(whole.labels))
    _check_masked(counts, longest_prompt, max_length, max_masked_share)
    counts.sequences = len(encoded)
    counts.tokens = sum(len(sequence.input_ids) for sequence in encoded)
    counts.trained_tokens = sum(_trained(sequence) for sequence in encoded)
    return encoded, counts


def _trained(sequence: Encoded) -> int:
    """Labels with a loss; the first is never predicted."""
    return len(sequence.labels) - 1 - sequence.labels[1:].count(IGNORED)


def _prompt_length(labels: list[int]) -> int:
    return next((at for at, label in enumerate(labels) if label != IGNORED), len(labels))


def _check_masked(counts: Counts, longest: int, max_length: int, max_share: float) -> None:
    if counts.fully_masked > max_share * counts.records:
        raise DataError(
            f"{counts.fully_masked} of {counts.records} records have no trained token within "
            f"MAX_LENGTH={max_length} (the limit is {max_share:.0%}): their prompts alone fill it, "
            f"the longest with {longest} tokens; raise MAX_LENGTH or shorten the prompts"
        )


@dataclass(frozen=True)
class _Slice:
    """A stretch of a document from character `start`, short enough for one tokenizer call."""

    text: str
    key: str
    is_last: bool
    start: int = 0
    outline: Outline = field(default_factory=lambda: Outline(()))


def _batches(
    examples: Iterable[Example],
) -> Iterator[list["_Slice | Completion | Conversation"]]:
    """Examples in order, documents sliced, about `_BATCH_CHARS` in each batch."""
    batch: list[_Slice | Completion | Conversation] = []
    chars = 0
    for example in examples:
        for item in _slices(example) if isinstance(example, Text) else [example]:
            batch.append(item)
            chars += _chars(item)
            if chars >= _BATCH_CHARS:
                yield batch
                batch, chars = [], 0
    if batch:
        yield batch


def _chars(item: "_Slice | Completion | Conversation") -> int:
    if isinstance(item, _Slice):
        return len(item.text)
    if isinstance(item, Completion):
        return len(item.prompt) + len(item.completion)
    return sum(len(message.content) for message in item.messages)


def _slices(document: Text) -> Iterator[_Slice]:
    text = document.text
    outline = Outline(document.headings)
    start = 0
    while len(text) - start > _SLICE_CHARS:
        end = text_boundary(text, start, start + _SLICE_CHARS)
        if text[end:].strip() == "":
            break
        yield _Slice(text[start:end], document.key, False, start, outline)
        start = end
    yield _Slice(text[start:], document.key, True, start, outline)


def _encode_slices(
    slices: Sequence[_Slice], words: RecordTokenizer, max_length: int
) -> Iterator[list[Encoded]]:
    """The sequences of each slice, one list a slice."""
    if not slices:
        return
    ids, starts = words.offsets([piece.text for piece in slices])
    context = _Context(words, max_length)
    for piece, piece_ids, piece_starts in zip(slices, ids, starts, strict=True):
        end = [words.eos_id] if piece.is_last else []
        sequences = [
            _document_sequence(
                words.bos_ids + above,
                piece_ids[begin:stop] + (end if stop == len(piece_ids) else []),
                piece.key,
            )
            for above, begin, stop in _cuts(piece, piece_starts, context, len(end))
        ]
        yield [sequence for sequence in sequences if _trained(sequence)]


def _document_sequence(given: list[int], ids: list[int], key: str) -> Encoded:
    return Encoded(given + ids, [IGNORED] * len(given) + ids, key)


class _Context:
    """Tokens of the headings above a place; keeps those it has made."""

    def __init__(self, words: RecordTokenizer, max_length: int) -> None:
        self._words = words
        self._most = int(max_length * _CONTEXT)
        self._known: dict[tuple[str, ...], list[int]] = {(): []}
        self.room = max_length - len(words.bos_ids)

    def above(self, piece: _Slice, at: int) -> list[int]:
        """`Guide > Install` and an empty line; without outer headings where it gets too long."""
        while piece.text[at : at + 1].isspace():
            at += 1
        path = piece.outline.path(piece.start + at)
        if path not in self._known:
            self._known[path] = self._tokens(path)
        return self._known[path]

    def _tokens(self, path: tuple[str, ...]) -> list[int]:
        while path:
            (ids,), _ = self._words.offsets([" > ".join(path) + "\n\n"])
            if len(ids) <= self._most:
                return ids
            path = path[1:]
        return []


def _cuts(
    piece: _Slice, starts: Sequence[int], context: _Context, end_tokens: int
) -> Iterator[tuple[list[int], int, int]]:
    """(context tokens, first token, token behind the last) of each sequence of a slice.

    `starts` is the character at which each token starts; `end_tokens` still follow the last.
    """
    begin = 0
    while True:
        above = context.above(piece, starts[begin]) if starts else []
        room = context.room - len(above)
        if len(starts) + end_tokens - begin <= room:
            yield above, begin, len(starts)
            return
        # The last token stays with what follows it: a sequence of eos alone teaches nothing.
        most = min(begin + room, len(starts) - 1)
        stop = best_cut(piece.text, starts, begin, most, piece.outline, piece.start)
        yield above, begin, stop
        begin = stop


# -- pack ---------------------------------------------------------------------------------


@dataclass
class _Shelves:
    """Open blocks by the room they have left; finds the smallest sufficient room in O(log n)."""

    rooms: list[int] = field(default_factory=list)  # sorted, distinct
    blocks: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def take(self, needed: int) -> tuple[int, int] | None:
        """(block, room) of the tightest block that has `needed` tokens left."""
        at = bisect_left(self.rooms, needed)
        if at == len(self.rooms):
            return None
        room = self.rooms[at]
        block = self.blocks[room].pop()
        if not self.blocks[room]:
            self.rooms.pop(at)
        return block, room

    def put(self, block: int, room: int) -> None:
        if not self.blocks[room]:
            insort(self.rooms, room)
        self.blocks[room].append(block)


def pack(encoded: Sequence[Encoded], max_length: int, pad_id: int) -> list[Block]:
    """Best-fit decreasing: longest sequence first, each into the fullest block that takes it.

    Deterministic. No sequence is cut; blocks come longest content first, so shuffle them.
    Raises ValueError if a sequence is longer than `max_length`.
    """
    contents: list[list[Encoded]] = []
    shelves = _Shelves()
    for sequence in sorted(encoded, key=lambda s: -len(s.input_ids)):
        length = len(sequence.input_ids)
        if length > max_length:
            raise ValueError(f"a sequence of {length} tokens does not fit a block of {max_length}")
        found = shelves.take(length)
        if found is None:
            contents.append([])
            found = len(contents) - 1, max_length
        block, room = found
        contents[block].append(sequence)
        shelves.put(block, room - length)
    return [_block(sequences, max_length, pad_id) for sequences in contents]


def _block(sequences: Sequence[Encoded], max_length: int, pad_id: int) -> Block:
    columns: dict[str, Any] = {
        "input_ids": np.full(max_length, pad_id, dtype=np.int64),
        "labels": np.full(max_length, IGNORED, dtype=np.int64),
        "position_ids": np.zeros(max_length, dtype=np.int64),
    }
    start = 0
    for sequence in sequences:
        end = start + len(sequence.input_ids)
        columns["input_ids"][start:end] = sequence.input_ids
        columns["labels"][start + 1 : end] = sequence.labels[1:]  # the first has no context
        columns["position_ids"][start:end] = np.arange(end - start)
        start = end
    columns["position_ids"][start:] = np.arange(max_length - start)
    return Block(**columns)


def trained_ends(blocks: Iterable[Block], ends: Sequence[int]) -> int:
    """How many of the trained tokens in `blocks` are in `ends`: they end an answer or document."""
    return sum(int(np.isin(block.labels[1:], list(ends)).sum()) for block in blocks)
