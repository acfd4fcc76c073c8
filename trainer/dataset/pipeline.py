"""The data side of a run: fetch, tokenise once, leave copies out, hold out and pack."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trainer.corpus.dedup import Copy, copies, shared
from trainer.corpus.examples import Text, printable
from trainer.corpus.reader import Reader, Source, Tally
from trainer.corpus.records import Columns
from trainer.dataset import eval_questions, holdout, packing
from trainer.errors import DataError
from trainer.runtime.log import figures
from trainer.runtime.naming import digest, slug
from trainer.settings import Settings
from trainer.storage import Fetched, fetch
from trainer.storage.files import only_process
from trainer.tokenization import token_cache, token_cache_writer
from trainer.tokenization.corpus_shards import ShardLocation
from trainer.tokenization.record_tokenizer import RecordTokenizer
from trainer.tokenization.token_cache import TokenCache

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_NAMED_FILES = 3
# What decides how files become tokens: another version of it tokenises again.
_CODE = ("corpus/*.py", "tokenization/*.py")

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Inputs:
    """The files of a run, on local disk."""

    data: list[Fetched]
    evaluation: list[Fetched]

    def objects(self) -> list[dict[str, Any]]:
        """Name, size and digest of each file, JSON-ready."""
        return [
            {"name": f.name, "size": f.size, "sha256": f.sha256}
            for f in (*self.data, *self.evaluation)
        ]


@dataclass(frozen=True)
class Data:
    """What a run trains and is judged on, and how it was counted."""

    train: Sequence[packing.Block]
    held_out: Sequence[packing.Block]
    questions: list[eval_questions.Question]
    counts: dict[str, Any]


def fetch_inputs(settings: Settings) -> Inputs:
    """Bring the data and, if they are separate, the evaluation data to local disk."""

    def bring(uri: str) -> list[Fetched]:
        into = folder / f"{slug(uri)}-{digest(uri)}"  # two buckets may use the same last name
        return fetch(uri, into, retry_minutes=settings.storage_retry_minutes)

    folder = settings.scratch_dir / "inputs"
    with only_process(folder):
        evaluation = bring(settings.eval_uri) if settings.eval_uri else []
        return Inputs(bring(settings.data_uri) if settings.data_uri else [], evaluation)


def prepare(
    settings: Settings,
    inputs: Inputs,
    tokenizer: "PreTrainedTokenizerBase",
    place: ShardLocation | None = None,
) -> Data:
    """Files to blocks of tokens, with a held-out part; all workers that share a `place` tokenise.

    Raises DataError when nothing is left.
    """
    data = _Shelved(settings, inputs.data, tokenizer, place)
    if inputs.evaluation:
        judged = _Shelved(settings, inputs.evaluation, tokenizer, place)
        train, held = data.kept, judged.kept
        copied = _warn_of_copies(data, judged, inputs.evaluation)
    else:
        data = data.divided()
        judged, copied = data, 0
        held = data.held_out()
        train = data.kept & ~held
    counts = data.counts(train) | {"held_out": int(held.sum()), "evaluation_copies": copied}
    _check_masked(data.shelf, train, settings)
    packed = data.blocks(train)
    if not len(packed):
        raise DataError("the data holds nothing to train on once tokenised; add text")
    if not counts["trained_ends"]:
        raise DataError(
            f"every record is cut before its end at QLORA_MAX_LENGTH={settings.max_length}, so "
            "that the model would never learn to stop; raise it until answers fit"
        )
    counts |= {"padding_share": packed.padding_share, "blocks": len(packed)}
    _log_data(data.shelf.tally, counts)
    return Data(packed, judged.blocks(held), judged.questions(held), counts)


def prepare_held_out(
    settings: Settings, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[Sequence[packing.Block], list[eval_questions.Question]]:
    """What a run with these settings is judged by: EVAL_URI, or what it holds out of DATA_URI."""
    inputs = fetch_inputs(settings)
    if inputs.evaluation:
        judged = _Shelved(settings, inputs.evaluation, tokenizer)
        held = judged.kept
    else:
        judged = _Shelved(settings, inputs.data, tokenizer).divided()
        held = judged.held_out()
    packed = judged.blocks(held)
    if not len(packed):
        raise DataError("the data holds nothing to judge by once tokenised; add text or records")
    return packed, judged.questions(held)


def reader_of(settings: Settings, files: list[Fetched]) -> Reader:
    columns = Columns(
        question=settings.question_column,
        answer=settings.answer_column,
        text=settings.text_column,
    )
    sources = (Source(f.name, f.path, f.size) for f in files)
    return Reader(sources, columns=columns)


class _Shelved:
    """The tokenised form of some files, and which of its examples are kept."""

    def __init__(
        self,
        settings: Settings,
        files: list[Fetched],
        tokenizer: "PreTrainedTokenizerBase",
        place: ShardLocation | None = None,
    ) -> None:
        self._settings, self._files, self._tokenizer = settings, files, tokenizer
        self._words = RecordTokenizer(tokenizer)
        self._is_divided = False
        self.shelf = self._whole(place)
        self.shelf.tally.check(settings.max_skipped_share)
        self.copies = copies(self.shelf.signatures, self.shelf.usable)
        self.kept: Mask = self.shelf.usable & (self.copies == Copy.NO)

    def _reader(self) -> Reader:
        return reader_of(self._settings, self._files)

    def _whole(self, place: ShardLocation | None) -> TokenCache:
        folder = self._folder("whole")
        sizes = [file.size for file in self._files]
        portions = place.portions(folder.name, sizes, self._write) if place else None
        if portions is None:
            return self._open(folder, lambda into: self._write(range(len(self._files)), into))
        portions.make(needed=not folder.exists())
        return self._open(folder, portions.join)

    def _open(self, folder: Path, fill: Callable[[Path], None]) -> TokenCache:
        with only_process(folder.parent):
            return token_cache.open_token_cache(folder, fill)

    def _folder(self, part: str) -> Path:
        name = _shelf_name(self._settings, self._files, self._tokenizer, part)
        return self._settings.scratch_dir / "tokens" / name

    def _write(self, numbers: range, into: Path) -> None:
        """Tokenise the files of these numbers."""
        first = numbers.start
        reader = reader_of(self._settings, self._files[first : numbers.stop])

        def start(source: int, tally: Tally) -> token_cache_writer.BySource:
            for number, examples in reader.by_source(max(source - first, 0), tally):
                yield first + number, examples

        self._shelve(start, into)

    def _shelve(
        self, start: Callable[[int, Tally], token_cache_writer.BySource], into: Path
    ) -> None:
        token_cache_writer.write(start, self._words, self._settings.max_length, into)

    def divided(self) -> "_Shelved":
        """The same, a single document cut in two near its end so that there is a held-out part."""
        numbers = np.flatnonzero(self.kept)
        if len(numbers) != 1 or self.shelf.rows["kind"][numbers[0]] != token_cache.KINDS.index(
            Text
        ):
            return self
        (document,) = (e for at, (_, e) in enumerate(self._reader()) if at == numbers[0])
        assert isinstance(document, Text)
        halves = holdout.divide(document)
        if halves is not None:
            tally = replace(self.shelf.tally, examples=2, void=[])
            fill = partial(self._shelve, lambda *_: [(0, halves)])
            self.shelf = replace(self._open(self._folder("divided"), fill), tally=tally)
            self.copies = np.zeros(2, np.uint8)
            self.kept = np.ones(2, bool)
            self._is_divided = True
        return self

    def held_out(self) -> Mask:
        if self._is_divided:
            return np.array([False, True])
        held = np.zeros(len(self.kept), bool)
        held[self.kept] = holdout.held_out(np.array(self.shelf.rows["key"][self.kept]))
        return held

    def blocks(self, chosen: Mask) -> packing.Blocks:
        return packing.Blocks(
            self.shelf.tokens,
            *self.shelf.sequences(chosen),
            self._settings.max_length,
            int(self._tokenizer.pad_token_id),
        )

    def questions(self, chosen: Mask) -> list[eval_questions.Question]:
        return eval_questions.questions_of(
            [example for number, example in self.shelf.conversations if chosen[number]]
        )

    def counts(self, chosen: Mask) -> dict[str, Any]:
        """What was read, and what of it is trained; JSON-ready."""
        rows, tally = self.shelf.rows[chosen], self.shelf.tally
        kinds = Counter(self.shelf.rows["kind"][self.kept].tolist())
        if self._is_divided:
            kinds = Counter([token_cache.KINDS.index(Text)])
        is_record = rows["kind"] != token_cache.KINDS.index(Text)
        return {
            "files": tally.files,
            **{token_cache.KINDS[kind].__name__.lower(): kinds[kind] for kind in sorted(kinds)},
            "duplicates": int((self.copies == Copy.EXACT).sum()),
            "near_duplicates": int((self.copies == Copy.NEAR).sum()),
            "skipped": tally.unusable + tally.foreign,
            "skipped_first": tally.skipped,
            "assumed_first": tally.notices,
            "records": int(is_record.sum()),
            "documents": int((~is_record).sum()),
            "sequences": int(rows["sequences"].sum()),
            "tokens": int(rows["tokens"].sum(dtype=np.int64)),
            "trained_tokens": int(rows["trained"].sum(dtype=np.int64)),
            "trained_ends": int(rows["ends"].sum(dtype=np.int64)),
            "truncated": int(rows["truncated"].sum()),
            "fully_masked": int((is_record & (rows["sequences"] == 0)).sum()),
        }


def _shelf_name(
    settings: Settings, files: list[Fetched], tokenizer: "PreTrainedTokenizerBase", part: str
) -> str:
    """A digest of everything that decides the content of a shelf."""
    room = Path(__file__).parent.parent
    sources = sorted(path for pattern in _CODE for path in room.glob(pattern))
    decisive = {
        "part": part,
        "settings": [
            settings.max_length,
            settings.question_column,
            settings.answer_column,
            settings.text_column,
        ],
        "tokenizer": [
            tokenizer.backend_tokenizer.to_str(),
            tokenizer.chat_template,
            tokenizer.special_tokens_map,
        ],
        "code": [path.read_text() for path in sources],
    }
    found = hashlib.sha256(json.dumps(decisive, default=str).encode())
    for file in files:  # one by one: there may be a million
        found.update(json.dumps([file.name, file.sha256]).encode())
    return found.hexdigest()[:24]


def _check_masked(shelved: TokenCache, chosen: Mask, settings: Settings) -> None:
    rows = shelved.rows[chosen]
    is_record = rows["kind"] != token_cache.KINDS.index(Text)
    masked, records = rows[is_record & (rows["sequences"] == 0)], int(is_record.sum())
    if len(masked) > settings.max_skipped_share * records:
        raise DataError(
            f"{len(masked)} of {records} records have no trained token within "
            f"MAX_LENGTH={settings.max_length} (the limit is {settings.max_skipped_share:.0%}): "
            f"their prompts alone fill it, the longest with {masked['prompt'].max()} tokens; raise "
            "MAX_LENGTH or shorten the prompts"
        )


def _warn_of_copies(data: _Shelved, judged: _Shelved, files: list[Fetched]) -> int:
    """Say which evaluation data is also trained on: its scores say nothing about new data."""
    copied = judged.kept & shared(data.shelf.signatures, judged.shelf.signatures)
    number = int(copied.sum())
    if number:
        sources = np.unique(judged.shelf.rows["source"][copied])
        names = [files[source].name for source in sources[:_NAMED_FILES]]
        log.warning(
            "%d of %d examples of the evaluation data are also in the training data, as they are "
            "or nearly (%s%s): they make the result look better than it is",
            number,
            int(judged.kept.sum()),
            ", ".join(map(printable, names)),
            ", …" if len(sources) > len(names) else "",
        )
    return number


def _log_data(tally: Tally, counts: dict[str, Any]) -> None:
    for reason in tally.skipped:
        log.warning("skipped %s", reason)
    for notice in tally.notices:
        log.warning("%s", notice)
    if counts["duplicates"] or counts["near_duplicates"]:
        log.info(
            "left out %d copies and %d near copies",
            counts["duplicates"],
            counts["near_duplicates"],
        )
    names = [kind.__name__.lower() for kind in token_cache.KINDS]
    kinds = {name: counts[name] for name in names if name in counts}
    log.info(
        "data: %s from %d files; %s tokens, %s of them trained, in %d blocks; %d held out",
        ", ".join(f"{number:,} {kind}" for kind, number in kinds.items()),
        counts["files"],
        f"{counts['tokens']:,}",
        f"{counts['trained_tokens']:,}",
        counts["blocks"],
        counts["held_out"],
        extra=figures(**counts),
    )
    if set(kinds) == {"text"}:
        log.info(
            "the data is prose only: it teaches style and vocabulary; question/answer records "
            "teach answering, and `entrypoint.py prepare` makes some of documents"
        )
