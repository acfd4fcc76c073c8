"""A tokenised corpus on disk, memory-mapped: written once for one input, used by each start.

Plain little-endian arrays, one file each, and `shelf.json` with their sizes, which is written
last. Examples are tokenised by several threads (the tokenizer is Rust and lets go of Python's
lock) and written in their order, so memory holds a few batches and never a corpus.
"""

import heapq
import json
import logging
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer import corpus
from trainer.corpus import Completion, Conversation, Example, Message, Prints, Tally, Text
from trainer.prompts import RecordTokenizer
from trainer.sequences import Tokens, chars_of, encode

log = logging.getLogger(__name__)

Batch = list[tuple[int, Example]]  # with the number of its source
BySource = Iterable[tuple[int, Iterable[Example]]]

KINDS = (Text, Completion, Conversation)
KEPT_CONVERSATIONS = 256  # those with the smallest keys, whole: what is held out has small keys
KEPT_SHELVES = 4  # in one folder; the ones that were not used for longest go

_BATCH_CHARS = 1 << 20
_SAY_AFTER_S = 30.0
_MARK_BYTES = 64 << 20  # of tokens: what a start after a kill may have to do again
_INDEX = "shelf.json"
_MARK = "mark.json"
_ROW = np.dtype(
    [
        ("key", "<u8"),
        ("exact", "<u8", 2),
        ("source", "<u4"),
        ("chars", "<u4"),
        ("kind", "u1"),
        ("truncated", "?"),
        ("prompt", "<u4"),
        ("sequences", "<u4"),
        ("tokens", "<u4"),
        ("trained", "<u4"),
        ("ends", "<u4"),  # trained tokens that end an answer or a document
    ]
)
_COLUMNS: dict[str, Any] = {
    "rows": _ROW,  # [examples]
    "lengths": "<i4",  # [sequences]
    "tokens": "<i4",  # [tokens], as in `trainer.sequences`
    "documents": "<i8",  # [documents that have a sketch]
    "sketches": "<u4",  # [those * 128]
}


@dataclass(frozen=True)
class Shelf:
    """A tokenised corpus; `tally` says how it was read."""

    folder: Path
    tally: Tally
    conversations: list[tuple[int, Conversation]]
    """number of the example and itself"""

    def _column(self, name: str) -> Any:
        path = self.folder / name
        if not path.stat().st_size:
            return np.empty(0, _COLUMNS[name])
        return np.memmap(path, _COLUMNS[name], mode="r")

    @cached_property
    def rows(self) -> Any:
        """One record an example: see `_ROW`."""
        return self._column("rows")

    @cached_property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each sequence."""
        lengths: npt.NDArray[np.int32] = self._column("lengths")
        return lengths

    @cached_property
    def tokens(self) -> npt.NDArray[np.int32]:
        """All sequences, end to end."""
        tokens: npt.NDArray[np.int32] = self._column("tokens")
        return tokens

    @property
    def prints(self) -> Prints:
        return Prints(
            exact=np.array(self.rows["exact"]),
            chars=np.array(self.rows["chars"]),
            documents=np.array(self._column("documents"), np.int64),
            sketches=self._column("sketches").reshape(-1, corpus.PERMUTATIONS),
        )

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Which examples count [examples]."""
        usable = np.ones(len(self.rows), bool)
        for first, end in self.tally.void:
            usable[first:end] = False
        return usable

    def sequences(
        self, chosen: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """(start in `tokens`, length) of the sequences of the `chosen` examples, in order."""
        mine = np.repeat(chosen, self.rows["sequences"])
        starts = np.cumsum(self.lengths, dtype=np.int64)
        starts -= self.lengths
        return starts[mine], np.array(self.lengths[mine])


def open_shelf(folder: Path, fill: Callable[[Path], None]) -> Shelf:
    """What lies in `folder`; where it is not complete, `fill` makes it, or goes on making it.

    Only one process at a time may do this with the folders beside it.
    """
    if not _is_complete(folder):
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(folder, ignore_errors=True)
        partial.mkdir(parents=True, exist_ok=True)
        fill(partial)
        partial.rename(folder)
    else:
        log.info("the data was tokenised by an earlier start")
    os.utime(folder)
    _forget_old(folder.parent)
    index = _mark_of(json.loads((folder / _INDEX).read_text()))
    conversations = [(number, example) for _, number, example in index.conversations]
    return Shelf(folder, index.tally, conversations)


def _is_complete(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _INDEX).read_text())["sizes"]
        return all((folder / name).stat().st_size == sizes[name] for name in _COLUMNS)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _forget_old(folder: Path) -> None:
    """A process that still uses one has it mapped, and keeps it."""
    shelves = sorted(
        (path for path in folder.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime
    )
    for old in shelves[KEPT_SHELVES:]:
        shutil.rmtree(old, ignore_errors=True)


# -- writing ------------------------------------------------------------------------------


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


@dataclass
class _Mark:
    """What is known when all sources before `source` are written: `sizes` of the files in bytes."""

    source: int
    tally: Tally
    sizes: dict[str, int]
    conversations: list[tuple[int, int, Conversation]]
    """(minus its key, number, itself) of those that are kept"""

    def as_json(self) -> dict[str, Any]:
        """As `_mark_of` reads it."""
        kept = [
            (key, number, [(m.role, m.content) for m in example.messages])
            for key, number, example in self.conversations
        ]
        return asdict(self) | {"conversations": kept}


def _mark_of(found: dict[str, Any]) -> _Mark:
    kept = [
        (key, number, Conversation(tuple(Message(*turn) for turn in turns)))
        for key, number, turns in found["conversations"]
    ]
    return _Mark(found["source"], Tally(**found["tally"]), found["sizes"], kept)


class _Writer:
    """The files of a shelf that is being written, and the last mark that was saved."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.mark = self._resumed() or _Mark(0, Tally(), dict.fromkeys(_COLUMNS, 0), [])
        self._files = {name: (folder / name).open("ab") for name in _COLUMNS}
        for name, file in self._files.items():
            file.truncate(self.mark.sizes[name])
            file.seek(0, os.SEEK_END)
        self._marked_bytes = self._files["tokens"].tell()
        self._said = time.monotonic()
        if self.mark.source:
            log.info("tokenising goes on with file %d", self.mark.source + 1)

    def _resumed(self) -> _Mark | None:
        """None where there is no mark, or where files are shorter than it says."""
        try:
            mark = _mark_of(json.loads((self._folder / _MARK).read_text()))
            enough = all((self._folder / n).stat().st_size >= mark.sizes[n] for n in _COLUMNS)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return mark if enough else None

    @property
    def is_mark_due(self) -> bool:
        return self._files["tokens"].tell() - self._marked_bytes > _MARK_BYTES

    def add(self, part: "_Part") -> None:
        number = self._files["rows"].tell() // _ROW.itemsize
        part.columns["documents"] += number
        for name, file in self._files.items():
            part.columns[name].tofile(file)
        found = [(-key, number + at, example) for key, at, example in part.conversations]
        self.mark.conversations = heapq.nlargest(
            KEPT_CONVERSATIONS, self.mark.conversations + found, key=lambda kept: kept[:2]
        )
        if time.monotonic() - self._said > _SAY_AFTER_S:
            self._said = time.monotonic()
            log.info("tokenised %s tokens", f"{self._files['tokens'].tell() // 4:,}")

    def save(self, source: int) -> None:
        """All before `source` is written and on the disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        self.mark.source = source
        self.mark.sizes = {name: file.tell() for name, file in self._files.items()}
        self._marked_bytes = self.mark.sizes["tokens"]
        new = self._folder / (_MARK + ".new")
        new.write_text(json.dumps(self.mark.as_json()))
        new.rename(self._folder / _MARK)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def index(self) -> None:
        """All is written."""
        self.mark.sizes = {name: (self._folder / name).stat().st_size for name in _COLUMNS}
        (self._folder / _INDEX).write_text(json.dumps(self.mark.as_json()))
        (self._folder / _MARK).unlink(missing_ok=True)


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
    prints = corpus.prints(examples, [chars_of(example) for example in examples])
    rows = np.zeros(len(batch), _ROW)
    rows["key"] = [int(example.key[:16], 16) for example in examples]
    rows["exact"], rows["chars"] = prints.exact, prints.chars
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
        "documents": prints.documents,
        "sketches": prints.sketches,
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
