"""Small corpora in memory: what the job keeps on disk, as lists that a test can look at."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.corpus.columns import Columns
from trainer.corpus.dedup import Copy, Signatures, copies, signatures_of
from trainer.corpus.examples import Example, Text
from trainer.corpus.fact_keys import fact_keys
from trainer.corpus.reader import Reader, Source
from trainer.corpus.sandbox import SandboxLimits
from trainer.dataset import holdout, packing
from trainer.tokenization import encode as sequences
from trainer.tokenization.record_tokenizer import RecordTokenizer
from trainer.tokenization.token_cache import EXAMPLE_ROW

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class Corpus:
    """The examples of some files, without copies, and what became of the rest."""

    examples: list[Example]
    files: int
    skipped: list[str]
    duplicates: int
    near_duplicates: int
    notices: list[str]

    @property
    def kinds(self) -> dict[str, int]:
        return dict(Counter(type(example).__name__.lower() for example in self.examples))


def read_corpus(
    sources: Iterable[Source],
    *,
    max_skipped_share: float = 0.1,
    columns: Columns | None = None,
    limits: SandboxLimits | None = None,
) -> Corpus:
    reader = Reader(sources, columns=columns, limits=limits)
    found = [example for _, example in reader]
    tally = reader.tally
    tally.check(max_skipped_share)
    usable = np.ones(len(found), bool)
    for first, end in tally.void:
        usable[first:end] = False
    kind = copies(signatures(found), usable)
    return Corpus(
        [e for e, keep in zip(found, usable & (kind == Copy.NO), strict=True) if keep],
        tally.files,
        tally.skipped,
        int((kind == Copy.EXACT).sum()),
        int((kind == Copy.NEAR).sum()),
        tally.notices,
    )


def signatures(examples: Sequence[Example]) -> Signatures:
    return signatures_of(examples, [sequences.chars_of(example) for example in examples])


@dataclass(frozen=True)
class Encoded:
    """One sequence as Hugging Face has it."""

    input_ids: list[int]
    labels: list[int]
    key: str = ""

    @property
    def tokens(self) -> sequences.Tokens:
        ids = np.array(self.input_ids, np.int32)
        return np.where(np.array(self.labels) == -100, ~ids, ids)


@dataclass
class Counts:
    truncated: int
    fully_masked: int
    longest_prompt: int


def encode(
    examples: Sequence[Example], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> tuple[list[Encoded], Counts]:
    """All sequences of `examples`, and how many records lost something."""
    found = sequences.encode(examples, RecordTokenizer(tokenizer), max_length)
    encoded = [
        Encoded(sequences.ids_of(s).tolist(), sequences.labels_of(s).tolist(), example.key)
        for example, mine in zip(examples, found, strict=True)
        for s in mine.sequences
    ]
    return encoded, Counts(
        sum(mine.truncated for mine in found),
        sum(not mine.sequences for mine in found),
        max((mine.prompt_tokens for mine in found), default=0),
    )


def pack(encoded: Sequence[Encoded], max_length: int, pad_id: int) -> Any:
    lengths = np.array([len(e.input_ids) for e in encoded], np.int64)
    tokens = np.concatenate([np.empty(0, np.int32), *(e.tokens for e in encoded)])
    return packing.Blocks(tokens, np.cumsum(lengths) - lengths, lengths, max_length, pad_id)


def hold_out(
    examples: Sequence[Example], share: float = 0.1
) -> tuple[list[Example], list[Example]]:
    """(train, held out), both in their order."""
    if len(examples) == 1 and isinstance(examples[0], Text):
        halves = holdout.divide(examples[0], share)
        return ([halves[0]], [halves[1]]) if halves else ([examples[0]], [])
    held = holdout.held_out(np.array([int(e.key[:16], 16) for e in examples], np.uint64), share)
    return divided(examples, held)


def hold_out_records(examples: Sequence[Example]) -> tuple[list[Example], list[Example], str]:
    """(train, held out, what that measures) of records and documents."""
    rows = np.zeros(len(examples), EXAMPLE_ROW)
    rows["key"] = [int(e.key[:16], 16) for e in examples]
    rows["question"], rows["answer"] = np.array([fact_keys(e) for e in examples], np.uint64).T
    found = holdout.hold_out(rows, np.array([not isinstance(e, Text) for e in examples]))
    return *divided(examples, found.mask), str(found.by)


def divided(examples: Sequence[Example], held: Any) -> tuple[list[Example], list[Example]]:
    pairs = list(zip(examples, held, strict=True))
    return [e for e, is_held in pairs if not is_held], [e for e, is_held in pairs if is_held]


def read_document(folder: Path, name: str, content: str) -> Text:
    path = folder / name
    path.write_text(content)
    (document,) = read_corpus([Source(name, path)]).examples
    assert isinstance(document, Text)
    return document


def read_files(folder: Path, files: Mapping[str, bytes], **options: Columns) -> Corpus:
    """Write `files` and read all of them."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    sources = [Source(name, folder / name, len(content)) for name, content in files.items()]
    return read_corpus(sources, max_skipped_share=0, **options)


def read_named(folder: Path, max_skipped_share: float = 1.0, **files: bytes) -> Corpus:
    """Write `files`, whose last `_` stands for the dot, and read what can be read."""
    sources = []
    for key, content in files.items():
        name = ".".join(key.rsplit("_", 1))
        (folder / name).write_bytes(content)
        sources.append(Source(name, folder / name))
    return read_corpus(sources, max_skipped_share=max_skipped_share)
