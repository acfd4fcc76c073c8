"""Examples -> sequences of tokens of limited length: tokenise, mask, divide into chunks. No GPU.

A sequence is one int32 array [T], 2 <= T <= max_length: a trained token is its id, a given one
the complement `~id`, which is negative.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from trainer.corpus.examples import Completion, Conversation, Example, Text
from trainer.corpus.headings import Outline
from trainer.labels import IGNORED
from trainer.tokenization.chunking import best_boundary, text_boundary
from trainer.tokenization.record_tokenizer import EncodedRecord, LabelledTokens, RecordTokenizer

Tokens = npt.NDArray[np.int32]

# Characters of one tokenizer call, and of one stretch of a document: bounds the memory that
# character offsets take, and lets one long book use all cores.
_BATCH_CHARS = 1_000_000
_SLICE_CHARS = 50_000
_NO_SPACE = re.compile(r"\S")
# The share of a sequence that the headings above it may take.
_CONTEXT = 1 / 8


@dataclass(frozen=True, eq=False)
class Encoded:
    """An example as sequences. A record has one, or none where no trained token was left; several
    where its template leaves out the thoughts of earlier answers."""

    sequences: list[Tokens]
    truncated: bool = False
    whole_tokens: int = 0
    """of a record that was cut, before that"""
    prompt_tokens: int = 0
    """of a record that has no sequence"""
    refused: str = ""
    """why the chat template cannot word a record"""


def ids_of(tokens: Tokens) -> Tokens:
    return np.where(tokens < 0, ~tokens, tokens)


def labels_of(tokens: Tokens) -> Tokens:
    """As Hugging Face has them: `labels[i]` belongs to `input_ids[i]`, and the model shifts."""
    return np.where(tokens < 0, np.int32(IGNORED), tokens)


def trained(tokens: Tokens) -> int:
    """Tokens with a loss; the first is never predicted."""
    return int(np.count_nonzero(tokens[1:] >= 0))


def encode(examples: Sequence[Example], records: RecordTokenizer, max_length: int) -> list[Encoded]:
    """Tokenise `examples`, each sequence at most `max_length` tokens long.

    A document ends with eos, unless it goes on, and begins with bos if the tokenizer uses one; a
    long one becomes several sequences that begin at a section, paragraph, line, sentence or word,
    each with bos, since models lean on it, and the last with eos. One that begins inside a section
    is preceded by the headings above it, which are not trained. Of a conversation the answers and
    the token that ends each are trained, of a completion itself and eos. A long record loses its
    end; one that has no trained token left has no sequence.
    """
    encoded = [Encoded([]) for _ in examples]
    for batch in _batches(examples):
        sliced = _encode_slices([s for _, s in batch if isinstance(s, _Slice)], records, max_length)
        whole = iter(records.encode([r for _, r in batch if not isinstance(r, _Slice)]))
        for at, item in batch:
            if isinstance(item, _Slice):
                encoded[at].sequences.extend(next(sliced))
            else:
                encoded[at] = _record(next(whole), max_length)
    return encoded


def _record(record: EncodedRecord, max_length: int) -> Encoded:
    whole = [_signed(sequence) for sequence in record.sequences]
    longest = max(map(len, whole), default=0)
    kept = [sequence[:max_length] for sequence in whole]
    usable = [sequence for sequence in kept if trained(sequence)]
    if usable:
        cut = longest > max_length
        return Encoded(usable, truncated=cut, whole_tokens=longest if cut else 0)
    prompts = [int(np.argmax(s >= 0)) if (s >= 0).any() else len(s) for s in whole]
    return Encoded(
        [], whole_tokens=longest, prompt_tokens=max(prompts, default=0), refused=record.refused
    )


def _signed(record: LabelledTokens) -> Tokens:
    ids = np.array(record.input_ids, np.int32)
    return np.where(np.array(record.labels, np.int32) == IGNORED, ~ids, ids)


@dataclass(frozen=True)
class _Slice:
    """A stretch of a document from character `start`, short enough for one tokenizer call."""

    text: str
    ends: bool
    """whether the document does with it"""
    start: int = 0
    outline: Outline = field(default_factory=lambda: Outline(()))


def _batches(
    examples: Iterable[Example],
) -> Iterator[list[tuple[int, "_Slice | Completion | Conversation"]]]:
    """(number of the example, it or a slice of it) in order, about `_BATCH_CHARS` in each batch."""
    batch: list[tuple[int, _Slice | Completion | Conversation]] = []
    chars = 0
    for number, example in enumerate(examples):
        for item in _slices(example) if isinstance(example, Text) else [example]:
            batch.append((number, item))
            chars += chars_of(item)
            if chars >= _BATCH_CHARS:
                yield batch
                batch, chars = [], 0
    if batch:
        yield batch


def chars_of(item: "_Slice | Example") -> int:
    """Characters of an example's contents."""
    if isinstance(item, _Slice | Text):
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
        yield _Slice(text[start:end], False, start, outline)
        start = end
    yield _Slice(text[start:], not document.goes_on, start, outline)


def _encode_slices(
    slices: Sequence[_Slice], records: RecordTokenizer, max_length: int
) -> Iterator[list[Tokens]]:
    """The sequences of each slice, one list a slice."""
    if not slices:
        return
    context = _Context(records, max_length)
    found = records.plain.documents([stretch.text for stretch in slices])
    for stretch, tokens in zip(slices, found, strict=True):
        end = np.array([records.eos_id] if stretch.ends else [], np.int32)
        body = np.concatenate([tokens.ids, end])
        starts = memoryview(tokens.starts)  # type: ignore[arg-type]  # numpy's stubs before 3.12
        sequences = [
            np.concatenate([above, body[begin:stop]])
            for above, begin, stop in _chunks(stretch, starts, context, len(end))
            if stop > begin
        ]
        yield [sequence for sequence in sequences if len(sequence) > 1]


class _Context:
    """What stands before a sequence, untrained: bos and the headings above it. Keeps those it has
    made."""

    def __init__(self, records: RecordTokenizer, max_length: int) -> None:
        self._records = records
        self._most = int(max_length * _CONTEXT)
        self._bos = ~np.array(records.bos_ids, np.int32)
        self._known: dict[tuple[str, ...], Tokens] = {(): self._bos}
        self._spaces: tuple[_Slice | None, int, int] = (None, 0, 0)
        self.max_length = max_length

    def above(self, stretch: _Slice, at: int) -> Tokens:
        """`Guide > Install` and an empty line; without outer headings where it gets too long."""
        path = stretch.outline.path(stretch.start + self._first_word(stretch, at))
        if path not in self._known:
            self._known[path] = np.concatenate([self._bos, self._tokens(path)])
        return self._known[path]

    def _first_word(self, stretch: _Slice, at: int) -> int:
        """The first character from `at` on that is no space, found once for all sequences of what
        may be megabytes of spaces."""
        known, begin, end = self._spaces
        if known is not stretch or not begin <= at <= end:
            found = _NO_SPACE.search(stretch.text, at)
            end = found.start() if found else len(stretch.text)
            self._spaces = (stretch, at, end)
        return end

    def _tokens(self, path: tuple[str, ...]) -> Tokens:
        while path:
            (found,) = self._records.plain.documents([" > ".join(path) + "\n\n"])
            if len(found.ids) <= self._most:
                return ~found.ids
            path = path[1:]
        return np.empty(0, np.int32)


def _chunks(
    stretch: _Slice, starts: Sequence[int], context: _Context, end_tokens: int
) -> Iterator[tuple[Tokens, int, int]]:
    """(what stands before it, first token, token behind the last) of each sequence of a slice.

    `starts` is the character at which each token starts; `end_tokens` still follow the last.
    """
    begin = 0
    while True:
        above = context.above(stretch, starts[begin] if starts else 0)
        room = context.max_length - len(above)
        if len(starts) + end_tokens - begin <= room:
            yield above, begin, len(starts) + end_tokens
            return
        # The last token stays with what follows it: a sequence of eos alone teaches nothing.
        most = min(begin + room, len(starts) - 1)
        stop = best_boundary(stretch.text, starts, begin, most, stretch.outline, stretch.start)
        yield above, begin, stop
        begin = stop
