"""A large corpus is tokenised by all workers of a run, and put together by each machine.

A shard is the token cache of some consecutive files. It lies below `tokens/` beside the run, with
a manifest, until the run is published: whoever starts the run again finds it there. Put end to
end, shards are the cache that one worker writes.
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
from trainer.runtime.naming import digest
from trainer.storage import Store, fetch_verified, publish, read_manifest
from trainer.storage.files import only_process
from trainer.storage.manifest import delete_manifest, delete_with_manifests
from trainer.storage.parallel import in_parallel
from trainer.tokenization import token_cache, token_cache_writer

log = logging.getLogger(__name__)

SHARD_BYTES = 64 << 20  # of files: ten seconds of text. The number of workers plays no part in it
TOKENS = "tokens"
_S_PER_MIB = 10.0  # twice what a child may take to read a file

Files = range
Write = Callable[[Files, Path], None]
"""Tokenise the files of these numbers into a folder, or go on with it."""


def divide_files(sizes: Sequence[int]) -> list[Files]:
    """The files of each shard; `sizes` are those of all files in bytes."""
    ends, size = [], 0
    for number, bytes_ in enumerate(sizes):
        size += bytes_
        if size >= SHARD_BYTES:
            ends.append(number + 1)
            size = 0
    if not ends or ends[-1] < len(sizes):
        ends.append(len(sizes))
    return [range(first, end) for first, end in zip([0, *ends], ends, strict=False)]


def delete_shards(store: Store, run_id: str) -> None:
    """A finished run needs its shards no more."""
    delete_with_manifests(store, f"{run_id}/{TOKENS}")


@dataclass(frozen=True)
class ShardLocation:
    """Where the workers of one run find each other's shards: in `store`, below `run_id`.

    `scratch` is on this machine's disk, and of this run.
    """

    workers: Workers
    store: Store
    run_id: str
    scratch: Path

    def shards(self, name: str, sizes: Sequence[int], write: Write) -> "CorpusShards | None":
        """Those of the token cache `name`; None for a corpus of one."""
        files = divide_files(sizes)
        if len(files) == 1:
            return None
        return CorpusShards(
            self, name, files, [sum(sizes[mine.start : mine.stop]) for mine in files], write
        )


def location(workers: Workers, store: Store, run_id: str, scratch: Path) -> ShardLocation | None:
    """Where several workers find what each tokenised; one keeps it on its disk alone."""
    if workers.size == 1:
        return None
    # Of this run, and the same for all of its workers on this machine.
    return ShardLocation(workers, store, run_id, scratch / "portions" / digest(store.uri + run_id))


@dataclass(frozen=True)
class CorpusShards:
    """The shards of one token cache: the `files` of each, and their `sizes` in bytes."""

    location: ShardLocation
    name: str
    files: Sequence[Files]
    sizes: Sequence[int]
    write: Write

    def tokenise_missing(self, *, needed: bool) -> None:
        """Tokenise what no start has yet, each worker a shard in turn.

        Not when no worker has `needed` it. One that is lost is noticed behind its shard.
        """
        workers = self.location.workers
        if workers.all_reduce_sum(needed) == [0]:
            return
        missing = self._missing() if workers.is_main else []
        missing = json.loads(workers.broadcast_bytes(json.dumps(missing).encode()))
        if missing:
            log.info("%d workers tokenise %d portions", workers.size, len(missing))
        missing.sort(key=lambda number: -self.sizes[number])  # those of a turn take equally long
        for first in range(0, len(missing), workers.size):
            turn = missing[first : first + workers.size]
            with workers.exit_barrier(self.sizes[turn[0]] / 2**20 * _S_PER_MIB):
                for number in turn[workers.rank : workers.rank + 1]:
                    self._publish(number)

    def join(self, into: Path) -> None:
        """All of them end to end, from the store or, what is of no use there, made here."""
        token_cache_writer.join(self._fetched(), into)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _missing(self) -> list[int]:
        numbers = range(len(self.files))
        is_there = in_parallel(self._is_there, numbers)
        return [number for number in numbers if not is_there[number]]

    def _is_there(self, number: int) -> bool:
        try:
            return read_manifest(self.location.store, self._prefix(number)) is not None
        except DataError as error:
            self._discard(number, error)
            return False

    def _fetched(self) -> Iterator[tuple[int, Callable[[], token_cache.TokenCache]]]:
        for number, files in enumerate(self.files):
            yield files.stop, partial(self._fetch, number)
            shutil.rmtree(self._folder(number), ignore_errors=True)

    def _fetch(self, number: int) -> token_cache.TokenCache:
        folder = self._folder(number)
        try:
            fetched = fetch_verified(self.location.store, self._prefix(number), folder)
            sums = {name: content.sha256 for name, content in fetched.items()}
            if (there := token_cache.open_complete(folder, sums)) is not None:
                return there
            self._discard(number, DataError(f"{folder}: is no shelf"))
        except DataError as error:
            self._discard(number, error)
        self._publish(number)
        made = token_cache.open_complete(folder)
        assert made is not None
        return made

    def _discard(self, number: int, error: DataError) -> None:
        log.warning("%s; this portion of the data is tokenised again", error)
        delete_manifest(self.location.store, self._prefix(number))
        shutil.rmtree(self._folder(number), ignore_errors=True)

    def _publish(self, number: int) -> None:
        folder = self._folder(number)
        with only_process(folder.with_suffix(".lock")):  # another start of this run may still work
            if (
                not (folder / token_cache.INDEX).exists()
                or token_cache.open_complete(folder) is None
            ):
                folder.mkdir(parents=True, exist_ok=True)
                self.write(self.files[number], folder)
            publish(folder, self.location.store, self._prefix(number))

    @property
    def _scratch(self) -> Path:
        return self.location.scratch / self.name

    def _folder(self, number: int) -> Path:
        return self._scratch / _shard_name(self.files[number])

    def _prefix(self, number: int) -> str:
        return f"{self.location.run_id}/{TOKENS}/{self.name}/{_shard_name(self.files[number])}"


def _shard_name(files: Files) -> str:
    """By the borders: another version of this may divide elsewhere."""
    return f"{files.start:07}-{files.stop:07}"
