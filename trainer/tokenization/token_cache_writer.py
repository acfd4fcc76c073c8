"""Examples -> a shelf: tokenised by several threads and written in their order.

Memory holds a few batches and never a corpus. A start that was killed is gone on with.
"""

import hashlib
import heapq
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.corpus.dedup import signatures_of
from trainer.corpus.examples import Conversation, Example
from trainer.corpus.reader import Tally
from trainer.runtime import malloc
from trainer.tokenization.encode import Tokens, chars_of, encode
from trainer.tokenization.record_tokenizer import RecordTokenizer
from trainer.tokenization.token_cache import (
    COLUMNS,
    INDEX,
    KINDS,
    ROW,
    TokenCache,
    WriteProgress,
    in_hex,
    mark_of,
    sums_of,
)

log = logging.getLogger(__name__)

Batch = list[tuple[int, Example]]  # with the number of its source
BySource = Iterable[tuple[int, Iterable[Example]]]

KEPT_CONVERSATIONS = 256  # those with the smallest keys, whole: what is held out has small keys

_BATCH_CHARS = 1 << 19
_SAY_AFTER_S = 30.0
_MARK_BYTES = 64 << 20  # of tokens: what a start after a kill may have to do again
_MARK = "mark.json"
_APPENDED = 1 << 16  # entries of a column at a time


def write(
    start: Callable[[int, Tally], BySource], words: RecordTokenizer, max_length: int, folder: Path
) -> None:
    """Tokenise into `folder`, from where a start before this one was stopped.

    `start` gives the sources from the one of this number on, and counts them into the tally.
    """
    writer = _Writer(folder)
    under_way = _UnderWay(writer, lambda batch: _part(batch, words, max_length))
    try:
        for source, examples in start(writer.mark.source, writer.mark.tally):
            for example in examples:
                under_way.add(source, example)
            if writer.is_mark_due:
                under_way.finish()
                writer.save(source + 1)
        under_way.finish()
    finally:
        under_way.close()
        writer.close()
    writer.index()


def join(shelves: Iterable[tuple[int, Callable[[], TokenCache]]], folder: Path) -> None:
    """Put shelves end to end into `folder`, from where a start before this one was stopped: what
    `write` makes of all their sources.

    Each is given with the number of the source behind its last, and opened when it is needed.
    """
    writer = _Writer(folder)
    try:
        for source, opened in shelves:
            if source > writer.mark.source:
                writer.append(opened())
                writer.save(source)
    finally:
        writer.close()
    writer.index()


class _UnderWay:
    """Batches of examples on their way through the threads to the writer, in order."""

    def __init__(self, writer: "_Writer", tokenise: Callable[[Batch], "_Part"]) -> None:
        self._writer, self._tokenise = writer, tokenise
        self._threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        self._pool = ThreadPoolExecutor(self._threads)
        self._waiting: deque[Future[_Part]] = deque()
        self._batch: Batch = []
        self._chars = 0

    def add(self, source: int, example: Example) -> None:
        self._batch.append((source, example))
        self._chars += chars_of(example)
        if self._chars >= _BATCH_CHARS:
            self._send()

    def _send(self) -> None:
        self._waiting.append(self._pool.submit(self._tokenise, self._batch))
        self._batch, self._chars = [], 0
        while len(self._waiting) > self._threads:
            self._writer.add(self._waiting.popleft().result())

    def finish(self) -> None:
        """All that was added is written."""
        if self._batch:
            self._send()
        while self._waiting:
            self._writer.add(self._waiting.popleft().result())

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class _Writer:
    """The files of a shelf that is being written, and the last mark that was saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.mark = WriteProgress(0, Tally(), dict.fromkeys(COLUMNS, 0), {}, [])
        self._sums = {name: hashlib.sha256() for name in COLUMNS}
        self._resume()
        self._files = {name: (folder / name).open("ab") for name in COLUMNS}
        for name, file in self._files.items():
            file.truncate(self.mark.sizes[name])
            file.seek(0, os.SEEK_END)
        self._marked_bytes = self._files["tokens"].tell()
        self._said = time.monotonic()
        if self.mark.source:
            log.info("tokenising goes on with file %d", self.mark.source + 1)

    def _resume(self) -> None:
        """Not where there is no mark, or where it is not true of the files."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            mark = mark_of((self._folder / _MARK).read_text())
            sums = sums_of(self._folder, mark.sizes)
            if in_hex(sums) == mark.sums:
                self.mark, self._sums = mark, sums

    @property
    def is_mark_due(self) -> bool:
        return self._files["tokens"].tell() - self._marked_bytes > _MARK_BYTES

    def add(self, part: "_Part") -> None:
        number = self._files["rows"].tell() // ROW.itemsize
        part.columns["documents"] += number
        for name, file in self._files.items():
            data = part.columns[name].tobytes()
            file.write(data)
            self._sums[name].update(data)
        self._keep([(-key, number + at, example) for key, at, example in part.conversations])
        if time.monotonic() - self._said > _SAY_AFTER_S:
            self._said = time.monotonic()
            log.info("tokenised %s tokens", f"{self._files['tokens'].tell() // 4:,}")

    def append(self, shelf: TokenCache) -> None:
        """The examples of another shelf, whose sources are numbered on already."""
        number = self._files["rows"].tell() // ROW.itemsize
        for name, file in self._files.items():
            column = shelf.column(name)
            for first in range(0, len(column), _APPENDED):
                part = column[first : first + _APPENDED]
                data = (part + number if name == "documents" else part).tobytes()
                file.write(data)
                self._sums[name].update(data)
        self.mark.tally.add(shelf.tally)
        self._keep([(-int(e.key, 16), number + at, e) for at, e in shelf.conversations])

    def _keep(self, found: list[tuple[int, int, Conversation]]) -> None:
        self.mark.conversations = heapq.nlargest(
            KEPT_CONVERSATIONS, self.mark.conversations + found, key=lambda kept: kept[:2]
        )

    def save(self, source: int) -> None:
        """All before `source` is written and on the disk, and nothing else is under way."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self.mark.source = source
        self._measure()
        self._marked_bytes = self.mark.sizes["tokens"]
        new = self._folder / (_MARK + ".new")
        new.write_text(self.mark.as_text())
        new.rename(self._folder / _MARK)
        malloc.trim()

    def _measure(self) -> None:
        self.mark.sizes = {name: (self._folder / name).stat().st_size for name in COLUMNS}
        self.mark.sums = in_hex(self._sums)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def index(self) -> None:
        """All is written."""
        self._measure()
        (self._folder / INDEX).write_text(self.mark.as_text())
        (self._folder / _MARK).unlink(missing_ok=True)
        malloc.trim()


@dataclass(frozen=True)
class _Part:
    """A batch of examples, tokenised."""

    columns: dict[str, Any]
    conversations: list[tuple[int, int, Conversation]]
    """(key, number in the batch, itself) of those of one question and one answer"""


def _part(batch: Batch, words: RecordTokenizer, max_length: int) -> _Part:
    examples = [example for _, example in batch]
    encoded = encode(examples, words, max_length)
    sequences = [tokens for example in encoded for tokens in example.sequences]
    signatures = signatures_of(examples, [chars_of(example) for example in examples])
    rows = np.zeros(len(batch), ROW)
    rows["key"] = [int(example.key[:16], 16) for example in examples]
    rows["exact"], rows["chars"] = signatures.exact, signatures.chars
    rows["source"] = [source for source, _ in batch]
    rows["kind"] = [KINDS.index(type(example)) for example in examples]
    rows["truncated"] = [example.truncated for example in encoded]
    rows["prompt"] = [example.prompt_tokens for example in encoded]
    rows["sequences"] = [len(example.sequences) for example in encoded]
    lengths = np.array([len(tokens) for tokens in sequences], np.int32)
    tokens = np.concatenate([np.empty(0, np.int32), *sequences])
    owner = np.repeat(np.arange(len(batch)), rows["sequences"])
    _count(rows, tokens, lengths, np.repeat(owner, lengths), words.stop_ids)
    columns = {
        "rows": rows,
        "lengths": lengths,
        "tokens": tokens,
        "documents": signatures.documents,
        "sketches": signatures.sketches,
    }
    return _Part(columns, _single_turns(examples))


def _count(rows: Any, tokens: Tokens, lengths: Tokens, owner: Any, stop_ids: list[int]) -> None:
    """Fill in what each example has of `tokens`; `owner` is the example of each token."""
    # The first token of a sequence is never predicted.
    trained = tokens >= 0
    trained[np.cumsum(lengths) - lengths] = False
    for name, counted in (
        ("tokens", slice(None)),
        ("trained", trained),
        ("ends", trained & np.isin(tokens, stop_ids)),
    ):
        rows[name] = np.bincount(owner[counted], minlength=len(rows))


def _single_turns(examples: list[Example]) -> list[tuple[int, int, Conversation]]:
    found = [
        (int(example.key, 16), at, example)
        for at, example in enumerate(examples)
        if isinstance(example, Conversation)
        and [m.role for m in example.messages] == ["user", "assistant"]
    ]
    return heapq.nsmallest(KEPT_CONVERSATIONS, found, key=lambda kept: kept[:2])
