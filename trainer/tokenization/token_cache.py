"""A tokenised corpus on disk, memory-mapped: written once for one input, used by each start.

Plain little-endian arrays, one file each, and `shelf.json` with their sizes and SHA-256, which is
written last. `trainer.tokenization.token_cache_writer` writes them.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.corpus.dedup import PERMUTATIONS, Signatures
from trainer.corpus.examples import Completion, Conversation, Message, Text
from trainer.corpus.reader import Tally
from trainer.runtime.json_records import well_formed
from trainer.runtime.wording import counted

log = logging.getLogger(__name__)


KINDS = (Text, Completion, Conversation)
KEPT_CACHES = 4  # in one folder; the ones that were not used for longest go

INDEX = "shelf.json"
_READ_BYTES = 1 << 20
_SEQUENCES_AT_ONCE = 1 << 16
EXAMPLE_ROW = np.dtype(
    [
        ("key", "<u8"),
        ("exact", "<u8", 2),
        ("question", "<u8"),  # as in `trainer.corpus.fact_keys`; 0 for a document
        ("answer", "<u8"),
        ("source", "<u4"),
        ("chars", "<u4"),
        ("kind", "u1"),
        ("turns", "<u4"),  # of a conversation; 0 for what has none
        ("truncated", "?"),
        ("framed", "?"),  # by a template that is not the base's, or in a turn: text
        ("thought", "?"),  # an answer begins with one
        ("system", "?"),  # a system turn of its own
        ("whole", "<u4"),  # tokens of a record that was cut, before that
        ("prompt", "<u4"),
        ("sequences", "<u4"),
        ("tokens", "<u4"),
        ("trained", "<u4"),
        ("ends", "<u4"),  # trained tokens that end an answer or a document
    ]
)
COLUMNS: dict[str, Any] = {
    "rows": EXAMPLE_ROW,  # [examples]
    "lengths": "<i4",  # [sequences]
    "tokens": "<i4",  # [tokens], as in `trainer.tokenization.encode`
    "documents": "<i8",  # [documents that have a sketch]
    "sketches": "<u4",  # [those * 128]
}


@dataclass
class WriteProgress:
    """What is known when all sources before `source` are written: `sizes` of the files in bytes,
    and `sums`, the SHA-256 of that many."""

    source: int
    tally: Tally
    sizes: dict[str, int]
    sums: dict[str, str]
    conversations: list[tuple[int, int, int, Conversation]]
    """(key of its answer, key of its question, number, itself) of those that are kept"""

    def as_text(self) -> str:
        """As `parse` reads it."""
        kept = [
            (*keys, [message.as_json() for message in example.messages])
            for *keys, example in self.conversations
        ]
        text = json.dumps(asdict(self) | {"conversations": kept})
        return f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}"

    @classmethod
    def parse(cls, text: str) -> "WriteProgress":
        """Raises ValueError for what `as_text` did not write."""
        checksum, _, body = text.partition("\n")
        if hashlib.sha256(body.encode()).hexdigest() != checksum:
            raise ValueError("damaged")
        with well_formed("what is kept of a corpus"):
            found = json.loads(body)
            kept = [
                (answer, question, number, Conversation(tuple(map(Message.of_json, turns))))
                for answer, question, number, turns in found["conversations"]
            ]
            tally = Tally(**found["tally"])
            return cls(found["source"], tally, found["sizes"], found["sums"], kept)


def checksums_of(folder: Path, sizes: Mapping[str, int]) -> dict[str, "hashlib._Hash"]:
    """SHA-256 of that many bytes of each file, to go on with; of all where there are fewer."""
    return {name: _checksum_of(folder / name, sizes[name]) for name in COLUMNS}


def in_hex(sums: Mapping[str, "hashlib._Hash"]) -> dict[str, str]:
    return {name: found.hexdigest() for name, found in sums.items()}


def _checksum_of(path: Path, size: int) -> "hashlib._Hash":
    found = hashlib.sha256()
    with path.open("rb") as file:
        while size and (data := file.read(min(size, _READ_BYTES))):
            found.update(data)
            size -= len(data)
    return found


@dataclass(frozen=True)
class TokenCache:
    """A tokenised corpus; `tally` says how it was read."""

    folder: Path
    tally: Tally
    conversations: list[tuple[int, Conversation]]
    """number of the example and itself"""

    def column(self, name: str) -> Any:
        """One of `COLUMNS`, mapped."""
        path = self.folder / name
        if not path.stat().st_size:
            return np.empty(0, COLUMNS[name])
        return np.memmap(path, COLUMNS[name], mode="r")

    @cached_property
    def rows(self) -> Any:
        """One record an example: see `EXAMPLE_ROW`."""
        return self.column("rows")

    @cached_property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each sequence."""
        lengths: npt.NDArray[np.int32] = self.column("lengths")
        return lengths

    @cached_property
    def tokens(self) -> npt.NDArray[np.int32]:
        """All sequences, end to end."""
        tokens: npt.NDArray[np.int32] = self.column("tokens")
        return tokens

    @property
    def signatures(self) -> Signatures:
        return Signatures(
            exact=np.array(self.rows["exact"]),
            chars=np.array(self.rows["chars"]),
            documents=np.array(self.column("documents"), np.int64),
            sketches=self.column("sketches").reshape(-1, PERMUTATIONS),
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
        count = int(mine.sum())
        starts, lengths = np.empty(count, np.int64), np.empty(count, np.int32)
        filled = end = 0
        for first in range(
            0, len(mine), _SEQUENCES_AT_ONCE
        ):  # a column of all of them is for nothing else
            part, wanted = (
                self.lengths[first : first + _SEQUENCES_AT_ONCE],
                mine[first : first + _SEQUENCES_AT_ONCE],
            )
            ends = end + np.cumsum(part, dtype=np.int64)
            into = slice(filled, filled + int(wanted.sum()))
            starts[into], lengths[into] = (ends - part)[wanted], part[wanted]
            filled, end = into.stop, int(ends[-1])
        return starts, lengths


def open_token_cache(folder: Path, fill: Callable[[Path], None]) -> TokenCache:
    """What lies in `folder`; where it is not complete, `fill` makes it, or goes on making it.

    Only one process at a time may do this with the folders beside it.
    """
    index = _complete(folder)
    if index is None:
        unfinished = folder.with_name(folder.name + ".partial")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.mkdir(parents=True, exist_ok=True)
        fill(unfinished)
        unfinished.rename(folder)
        index = WriteProgress.parse((folder / INDEX).read_text(encoding="utf-8"))
    else:
        found = counted(index.tally.examples, "example")
        log.info("%s tokenised before, by a look or an earlier start", found)
    os.utime(folder)
    _delete_old(folder.parent)
    return _opened(folder, index)


def open_complete(folder: Path, sums: Mapping[str, str] | None = None) -> TokenCache | None:
    """The complete cache that lies in `folder`; None where there is nothing, or not what was
    written. Nothing is read again where the `sums` of its files are known."""
    index = _complete(folder, sums)
    return _opened(folder, index) if index is not None else None


def _opened(folder: Path, index: WriteProgress) -> TokenCache:
    conversations = [(number, example) for *_, number, example in index.conversations]
    return TokenCache(folder, index.tally, conversations)


def _complete(folder: Path, sums: Mapping[str, str] | None = None) -> WriteProgress | None:
    if not folder.is_dir():
        return None
    try:
        index = WriteProgress.parse((folder / INDEX).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in COLUMNS}
        if sizes == index.sizes:
            known = sums or in_hex(checksums_of(folder, sizes))
            if index.sums.items() <= known.items():
                return index
    except (OSError, ValueError, KeyError, TypeError):
        pass
    log.warning("%s: what was tokenised is damaged; it is made again", folder)
    return None


def _delete_old(folder: Path) -> None:
    """A process that still uses one has it mapped, and keeps it."""
    newest_first = sorted(
        (path for path in folder.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime
    )
    for old in newest_first[KEPT_CACHES:]:
        shutil.rmtree(old, ignore_errors=True)
