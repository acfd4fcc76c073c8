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
from collections.abc import Callable, Iterable, Iterator
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

KINDS = (Text, Completion, Conversation)
KEPT_CONVERSATIONS = 256  # those with the smallest keys, whole: what is held out has small keys
KEPT_SHELVES = 4  # in one folder; the ones that were not used for longest go

_BATCH_CHARS = 1 << 20
_SAY_AFTER_S = 30.0
_INDEX = "shelf.json"
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
    """What lies in `folder`; where it is not complete, `fill` makes it.

    Only one process at a time may do this with the folders beside it.
    """
    if not _is_complete(folder):
        partial = folder.with_name(folder.name + ".partial")
        for leftover in (folder, partial):
            shutil.rmtree(leftover, ignore_errors=True)
        partial.mkdir(parents=True)
        fill(partial)
        partial.rename(folder)
    else:
        log.info("the data was tokenised by an earlier start")
    os.utime(folder)
    _forget_old(folder.parent)
    index = json.loads((folder / _INDEX).read_text())
    conversations = [
        (number, Conversation(tuple(Message(*turn) for turn in turns)))
        for number, turns in index["conversations"]
    ]
    return Shelf(folder, Tally(**index["tally"]), conversations)


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
    examples: Iterable[tuple[int, Example]],
    tally: Tally,
    words: RecordTokenizer,
    max_length: int,
    folder: Path,
) -> None:
    """Tokenise (number of its source, example) into `folder`; `tally` is complete by the end."""
    files = {name: (folder / name).open("wb") for name in _COLUMNS}
    conversations: list[tuple[int, int, Conversation]] = []
    number, said = 0, time.monotonic()
    try:
        for part in _encoded(examples, words, max_length):
            part.columns["documents"] += number
            for name, file in files.items():
                part.columns[name].tofile(file)
            found = [(-key, number + at, example) for key, at, example in part.conversations]
            conversations = heapq.nlargest(
                KEPT_CONVERSATIONS, conversations + found, key=lambda kept: kept[:2]
            )
            number += len(part.columns["rows"])
            if time.monotonic() - said > _SAY_AFTER_S:
                said = time.monotonic()
                log.info("tokenised %s tokens", f"{files['tokens'].tell() // 4:,}")
    finally:
        for file in files.values():
            file.close()
    index = {
        "sizes": {name: (folder / name).stat().st_size for name in _COLUMNS},
        "tally": asdict(tally),
        "conversations": [
            (number, [(m.role, m.content) for m in example.messages])
            for _, number, example in conversations
        ],
    }
    (folder / _INDEX).write_text(json.dumps(index))


@dataclass(frozen=True)
class _Part:
    """A batch of examples, tokenised."""

    columns: dict[str, Any]
    conversations: list[tuple[int, int, Conversation]]
    """(key, number in the batch, itself) of those of one question and one answer"""


def _encoded(
    examples: Iterable[tuple[int, Example]], words: RecordTokenizer, max_length: int
) -> Iterator[_Part]:
    """All examples, in order, a few batches ahead of whoever takes them."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    waiting: deque[Future[_Part]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for batch in _batches(examples):
            waiting.append(pool.submit(_part, batch, words, max_length))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(
    examples: Iterable[tuple[int, Example]],
) -> Iterator[list[tuple[int, Example]]]:
    batch: list[tuple[int, Example]] = []
    chars = 0
    for source, example in examples:
        batch.append((source, example))
        chars += chars_of(example)
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _part(batch: list[tuple[int, Example]], words: RecordTokenizer, max_length: int) -> _Part:
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
