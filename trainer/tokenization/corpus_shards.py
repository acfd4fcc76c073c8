"""A large corpus is tokenised by all workers of a run, and put together by each machine.

A portion is the shelf of some consecutive files. It lies below `tokens/` beside the run, with a
manifest, until the run is published: whoever starts the run again finds it there. Put end to end,
portions are the shelf that one worker writes.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trainer.distributed.workers import Workers
from trainer.errors import DataError
from trainer.storage import Store, fetch_verified, publish, read_manifest
from trainer.storage.files import only_process
from trainer.storage.parallel import in_parallel
from trainer.storage.transfer import MANIFEST
from trainer.tokenization import token_cache, token_cache_writer

log = logging.getLogger(__name__)

PORTION_BYTES = 64 << 20  # of files: ten seconds of text. The number of workers plays no part in it
TOKENS = "tokens"
_S_PER_MIB = 10.0  # twice what a child may take to read a file

Files = range
Write = Callable[[Files, Path], None]
"""Tokenise the files of these numbers into a folder, or go on with it."""


def divided(sizes: Sequence[int]) -> list[Files]:
    """Files of so many bytes, cut into portions."""
    ends, size = [], 0
    for number, bytes_ in enumerate(sizes):
        size += bytes_
        if size >= PORTION_BYTES:
            ends.append(number + 1)
            size = 0
    if not ends or ends[-1] < len(sizes):
        ends.append(len(sizes))
    return [range(first, end) for first, end in zip([0, *ends], ends, strict=False)]


def forget(store: Store, run_id: str) -> None:
    """A finished run needs its portions no more. Manifests first: the rest is nothing without."""
    names = [stored.name for stored in store.list(f"{run_id}/{TOKENS}/")]
    store.delete([name for name in names if name.endswith("/" + MANIFEST)])
    store.delete(names)


@dataclass(frozen=True)
class ShardLocation:
    """Where the workers of one run find each other's portions: in `store`, below `run_id`.

    `scratch` is on this machine's disk, and of this run.
    """

    workers: Workers
    store: Store
    run_id: str
    scratch: Path

    def portions(self, name: str, sizes: Sequence[int], write: Write) -> "CorpusShards | None":
        """Those of the shelf `name`; None for a corpus of one."""
        files = divided(sizes)
        if len(files) == 1:
            return None
        return CorpusShards(
            self, name, files, [sum(sizes[part.start : part.stop]) for part in files], write
        )


@dataclass(frozen=True)
class CorpusShards:
    """The portions of one shelf: which `files` belong to each, and how many `sizes` of bytes."""

    place: ShardLocation
    name: str
    files: Sequence[Files]
    sizes: Sequence[int]
    write: Write

    def make(self, *, needed: bool) -> None:
        """Tokenise what no start has yet, each worker a portion in turn.

        Not when no worker has `needed` it. One that is lost is noticed behind its portion.
        """
        workers = self.place.workers
        if workers.all_reduce_sum(needed) == [0]:
            return
        missing = self._missing() if workers.is_main else []
        missing = json.loads(workers.broadcast_bytes(json.dumps(missing).encode()))
        if missing:
            log.info("%d workers tokenise %d portions", workers.size, len(missing))
        missing.sort(key=lambda number: -self.sizes[number])  # those of a turn take equally long
        for first in range(0, len(missing), workers.size):
            turn = missing[first : first + workers.size]
            with workers.all_through(self.sizes[turn[0]] / 2**20 * _S_PER_MIB):
                for number in turn[workers.rank : workers.rank + 1]:
                    self._publish(number)

    def join(self, into: Path) -> None:
        """All of them end to end, from the store or, what is of no use there, made here."""
        token_cache_writer.join(self._brought(), into)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _missing(self) -> list[int]:
        numbers = range(len(self.files))
        is_there = in_parallel(self._is_there, numbers)
        return [number for number in numbers if not is_there[number]]

    def _is_there(self, number: int) -> bool:
        try:
            return read_manifest(self.place.store, self._under(number)) is not None
        except DataError as error:
            self._give_up(number, error)
            return False

    def _brought(self) -> Iterator[tuple[int, Callable[[], token_cache.TokenCache]]]:
        for number, files in enumerate(self.files):
            yield files.stop, partial(self._bring, number)
            shutil.rmtree(self._folder(number), ignore_errors=True)

    def _bring(self, number: int) -> token_cache.TokenCache:
        folder = self._folder(number)
        try:
            brought = fetch_verified(self.place.store, self._under(number), folder)
            sums = {name: content.sha256 for name, content in brought.items()}
            if (there := token_cache.found(folder, sums)) is not None:
                return there
            self._give_up(number, DataError(f"{folder}: is no shelf"))
        except DataError as error:
            self._give_up(number, error)
        self._publish(number)
        made = token_cache.found(folder)
        assert made is not None
        return made

    def _give_up(self, number: int, error: DataError) -> None:
        log.warning("%s; this portion of the data is tokenised again", error)
        self.place.store.delete([f"{self._under(number)}/{MANIFEST}"])
        shutil.rmtree(self._folder(number), ignore_errors=True)

    def _publish(self, number: int) -> None:
        folder = self._folder(number)
        with only_process(folder.with_suffix(".lock")):  # another start of this run may still work
            if not (folder / token_cache.INDEX).exists() or token_cache.found(folder) is None:
                folder.mkdir(parents=True, exist_ok=True)
                self.write(self.files[number], folder)
            publish(folder, self.place.store, self._under(number))

    @property
    def _scratch(self) -> Path:
        return self.place.scratch / self.name

    def _folder(self, number: int) -> Path:
        return self._scratch / _named(self.files[number])

    def _under(self, number: int) -> str:
        return f"{self.place.run_id}/{TOKENS}/{self.name}/{_named(self.files[number])}"


def _named(files: Files) -> str:
    """By the borders: another version of this may cut elsewhere."""
    return f"{files.start:07}-{files.stop:07}"
