"""Examples -> a token cache: tokenised by several threads and written in their order.

Memory holds a few batches and never a corpus. A start that was killed is gone on with.
"""

import hashlib
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
from trainer.corpus.fact_keys import fact_keys
from trainer.corpus.reader import Tally
from trainer.runtime import malloc
from trainer.runtime.regular_files import open_unfollowed
from trainer.tokenization.encode import Tokens, chars_of, encode
from trainer.tokenization.framed_text import frame_in
from trainer.tokenization.record_tokenizer import RecordTokenizer
from trainer.tokenization.token_cache import (
    COLUMNS,
    EXAMPLE_ROW,
    INDEX,
    KINDS,
    TokenCache,
    WriteProgress,
    checksums_of,
    in_hex,
)
from trainer.tokenization.turns import has_thoughts

log = logging.getLogger(__name__)

Batch = list[tuple[int, Example]]  # with the number of its source
BySource = Iterable[tuple[int, Iterable[Example]]]

# Whole: those whose answer or question has the smallest key, which are held out first, and some
# that never are.
KEPT_BY_ANSWER, KEPT_BY_QUESTION, KEPT_LAST = 512, 256, 64
_Kept = tuple[int, int, int, Conversation]
"""(answer, question, number, itself): both keys are those of `fact_keys`"""

_BATCH_CHARS = 1 << 19
_LOG_EVERY_S = 30.0
_SAVE_EVERY_BYTES = 64 << 20  # of tokens: what a start after a kill may have to do again
_PROGRESS = "mark.json"
_APPENDED = 1 << 16  # entries of a column at a time


def write(
    read_from: Callable[[int, Tally], BySource],
    records: RecordTokenizer,
    max_length: int,
    folder: Path,
) -> None:
    """Tokenise into `folder`, from where a start before this one was stopped.

    `read_from` gives the sources from this number on, and counts them into the tally.
    """
    writer = _CacheWriter(folder)
    batches = _BatchQueue(writer, lambda batch: _encoded(batch, records, max_length))
    try:
        for source, examples in read_from(writer.progress.source, writer.progress.tally):
            for example in examples:
                batches.add(source, example)
            if writer.is_save_due:
                batches.finish()
                writer.save(source + 1)
        batches.finish()
    finally:
        batches.close()
        writer.close()
    writer.write_index()


def join(caches: Iterable[tuple[int, Callable[[], TokenCache]]], folder: Path) -> None:
    """Put token caches end to end into `folder`, from where a start before this one was stopped:
    what `write` makes of all their sources.

    Each is given with the number of the source behind its last, and opened when it is needed.
    """
    writer = _CacheWriter(folder)
    try:
        for source, open_cache in caches:
            if source > writer.progress.source:
                writer.append(open_cache())
                writer.save(source)
    finally:
        writer.close()
    writer.write_index()


class _BatchQueue:
    """Batches of examples on their way through the threads to the writer, in order."""

    def __init__(
        self, writer: "_CacheWriter", tokenise: Callable[[Batch], "_EncodedBatch"]
    ) -> None:
        self._writer, self._tokenise = writer, tokenise
        self._threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
        self._pool = ThreadPoolExecutor(self._threads)
        self._waiting: deque[Future[_EncodedBatch]] = deque()
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
        self._writer.count_refused()

    def close(self) -> None:
        """Nobody waits for what is still being tokenised: after a signal the process ends without
        it, and a chat template may loop for minutes."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class _CacheWriter:
    """The files of a cache that is being written, and how far that has come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.progress = WriteProgress(0, Tally(), dict.fromkeys(COLUMNS, 0), {}, [])
        self._sums = {name: hashlib.sha256() for name in COLUMNS}
        self._resume()
        self._files = {
            name: os.fdopen(open_unfollowed(folder / name, os.O_WRONLY | os.O_APPEND), "ab")
            for name in COLUMNS
        }
        for name, file in self._files.items():
            file.truncate(self.progress.sizes[name])
            file.seek(0, os.SEEK_END)
        self._saved_bytes = self._files["tokens"].tell()
        self._logged_at = time.monotonic()
        self._refused: list[tuple[int, str, str]] = []
        if self.progress.source:
            log.info("tokenising goes on with file %d", self.progress.source + 1)

    def _resume(self) -> None:
        """Not where no progress was saved, or where it is not true of the files."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            progress = WriteProgress.parse((self._folder / _PROGRESS).read_text(encoding="utf-8"))
            sums = checksums_of(self._folder, progress.sizes)
            if in_hex(sums) == progress.sums:
                self.progress, self._sums = progress, sums

    @property
    def is_save_due(self) -> bool:
        return self._files["tokens"].tell() - self._saved_bytes > _SAVE_EVERY_BYTES

    def add(self, batch: "_EncodedBatch") -> None:
        number = self._files["rows"].tell() // EXAMPLE_ROW.itemsize
        batch.columns["documents"] += number
        for at, where, reason in batch.refused:
            self._refused.append((number + at, where, reason))
        for name, file in self._files.items():
            data = batch.columns[name].tobytes()
            file.write(data)
            self._sums[name].update(data)
        self._keep([(a, q, number + at, found) for a, q, at, found in batch.conversations])
        if time.monotonic() - self._logged_at > _LOG_EVERY_S:
            self._logged_at = time.monotonic()
            log.info("tokenised %s tokens", f"{self._files['tokens'].tell() // 4:,}")

    def append(self, cache: TokenCache) -> None:
        """The examples of another cache, whose sources are numbered on already."""
        number = self._files["rows"].tell() // EXAMPLE_ROW.itemsize
        for name, file in self._files.items():
            column = cache.column(name)
            for first in range(0, len(column), _APPENDED):
                part = column[first : first + _APPENDED]
                data = (part + number if name == "documents" else part).tobytes()
                file.write(data)
                self._sums[name].update(data)
        self.progress.tally.add(cache.tally)
        self._keep([(*fact_keys(e)[::-1], number + at, e) for at, e in cache.conversations])

    def _keep(self, found: list[_Kept]) -> None:
        self.progress.conversations = _extremes(self.progress.conversations + found)

    def count_refused(self) -> None:
        """Into the tally, which the reader does not change meanwhile."""
        self.progress.tally.refuse(
            (number, f"{where}: {reason}") for number, where, reason in self._refused
        )
        self._refused.clear()

    def save(self, source: int) -> None:
        """All before `source` is written and on the disk, and nothing else is under way."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self.progress.source = source
        self._measure()
        self._saved_bytes = self.progress.sizes["tokens"]
        new = self._folder / (_PROGRESS + ".new")
        new.write_text(self.progress.as_text(), encoding="utf-8")
        new.rename(self._folder / _PROGRESS)
        malloc.trim()

    def _measure(self) -> None:
        self.progress.sizes = {name: (self._folder / name).stat().st_size for name in COLUMNS}
        self.progress.sums = in_hex(self._sums)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def write_index(self) -> None:
        """All is written."""
        self._measure()
        (self._folder / INDEX).write_text(self.progress.as_text(), encoding="utf-8")
        (self._folder / _PROGRESS).unlink(missing_ok=True)
        malloc.trim()


@dataclass(frozen=True)
class _EncodedBatch:
    """A batch of examples, tokenised."""

    columns: dict[str, Any]
    conversations: list[_Kept]
    """with their number in the batch"""
    refused: list[tuple[int, str, str]]
    """(number in the batch, where it stands, why) of those that the chat template refuses"""


def _encoded(batch: Batch, records: RecordTokenizer, max_length: int) -> _EncodedBatch:
    examples = [records.recognised(example) for _, example in batch]
    encoded = encode(examples, records, max_length)
    sequences = [tokens for example in encoded for tokens in example.sequences]
    signatures = signatures_of(examples, [chars_of(example) for example in examples])
    rows = np.zeros(len(batch), EXAMPLE_ROW)
    rows["key"] = [int(example.key[:16], 16) for example in examples]
    rows["exact"], rows["chars"] = signatures.exact, signatures.chars
    facts = np.array([fact_keys(example) for example in examples], np.uint64).reshape(-1, 2)
    rows["question"], rows["answer"] = facts.T
    rows["source"] = [source for source, _ in batch]
    rows["kind"] = [KINDS.index(type(example)) for example in examples]
    rows["turns"] = [len(e.messages) if isinstance(e, Conversation) else 0 for e in examples]
    rows["truncated"] = [example.truncated for example in encoded]
    rows["framed"] = [bool(frame_in(example)) for example in examples]
    rows["system"] = [_has_system(example) for example in examples]
    rows["thought"] = [isinstance(e, Conversation) and has_thoughts(e) for e in examples]
    rows["whole"] = [example.whole_tokens for example in encoded]
    rows["prompt"] = [example.prompt_tokens for example in encoded]
    rows["sequences"] = [len(example.sequences) for example in encoded]
    lengths = np.array([len(tokens) for tokens in sequences], np.int32)
    tokens = np.concatenate([np.empty(0, np.int32), *sequences])
    owner = np.repeat(np.arange(len(batch)), rows["sequences"])
    _count(rows, tokens, lengths, np.repeat(owner, lengths), records.stop_ids)
    columns = {
        "rows": rows,
        "lengths": lengths,
        "tokens": tokens,
        "documents": signatures.documents,
        "sketches": signatures.sketches,
    }
    refused = [
        (at, getattr(examples[at], "where", "") or "a framed text", found.refused)
        for at, found in enumerate(encoded)
        if found.refused
    ]
    return _EncodedBatch(columns, _conversations(examples, rows), refused)


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


def _conversations(examples: list[Example], rows: Any) -> list[_Kept]:
    found = [
        (int(rows["answer"][at]), int(rows["question"][at]), at, example)
        for at, example in enumerate(examples)
        if isinstance(example, Conversation)
    ]
    return _extremes(found)


def _extremes(found: list[_Kept]) -> list[_Kept]:
    """Those with the smallest keys, by answer and by question, and some with the largest."""
    if len(found) <= KEPT_BY_QUESTION + KEPT_LAST:
        return found
    by_answer = sorted(found, key=lambda kept: (kept[0], kept[2]))[:KEPT_BY_ANSWER]
    by_question = sorted(found, key=lambda kept: (kept[1], kept[2]))
    several = by_answer + by_question[:KEPT_BY_QUESTION] + by_question[-KEPT_LAST:]
    return sorted({kept[2]: kept for kept in several}.values(), key=lambda kept: kept[2])


def _has_system(example: Example) -> bool:
    return isinstance(example, Conversation) and example.messages[0].role == "system"
