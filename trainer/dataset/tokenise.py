"""Files -> a token cache: made once for the same files, settings, tokenizer and software."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.corpus.examples import Text
from trainer.corpus.reader import Tally
from trainer.dataset.inputs import reader_of
from trainer.settings import Settings
from trainer.storage import Fetched
from trainer.storage.files import only_process
from trainer.tokenization import token_cache, token_cache_writer
from trainer.tokenization.cache_key import cache_key
from trainer.tokenization.corpus_shards import ShardLocation
from trainer.tokenization.record_tokenizer import RecordTokenizer
from trainer.tokenization.token_cache import TokenCache

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Tokenisation:
    """How files become tokens. All workers that share a `location` tokenise together."""

    settings: Settings
    tokenizer: "PreTrainedTokenizerBase"
    records: RecordTokenizer
    location: ShardLocation | None = None


def tokenise_files(files: list[Fetched], how: Tokenisation) -> TokenCache:
    """The tokens of all `files`."""
    folder = _folder(files, how, "whole")
    write = partial(_write_files, files, how)
    sizes = [file.size for file in files]
    shards = how.location.shards(folder.name, sizes, write) if how.location else None
    if shards is None:
        return _open(folder, partial(write, range(len(files))))
    shards.tokenise_missing(needed=not folder.exists())
    return _open(folder, shards.join)


def tokenise_halves(
    halves: tuple[Text, Text], source: int, files: list[Fetched], how: Tokenisation
) -> TokenCache:
    """The tokens of both parts of the only document of `files`, that of this number."""

    def fill(into: Path) -> None:
        _write(lambda *_: [(source, halves)], how, into)

    return _open(_folder(files, how, "divided"), fill)


def _folder(files: list[Fetched], how: Tokenisation, part: str) -> Path:
    key = cache_key(how.settings, files, how.tokenizer, part)
    return how.settings.scratch_dir / "tokens" / key


def _open(folder: Path, fill: Callable[[Path], None]) -> TokenCache:
    with only_process(folder.parent):
        return token_cache.open_token_cache(folder, fill)


def _write_files(files: list[Fetched], how: Tokenisation, numbers: range, into: Path) -> None:
    """Tokenise the files of these numbers."""
    first = numbers.start
    reader = reader_of(how.settings, files[first : numbers.stop])

    def read_from(source: int, tally: Tally) -> token_cache_writer.BySource:
        for number, examples in reader.by_source(max(source - first, 0), tally):
            yield first + number, examples

    _write(read_from, how, into)


def _write(
    read_from: Callable[[int, Tally], token_cache_writer.BySource], how: Tokenisation, into: Path
) -> None:
    token_cache_writer.write(read_from, how.records, how.settings.max_length, into)
