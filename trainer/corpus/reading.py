"""All files of a corpus -> its examples, without copies, and what was left out."""

import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from trainer.corpus import formats
from trainer.corpus.examples import Example, Item, Notice, Refused, Unusable, shown
from trainer.corpus.formats import SUFFIXES, Format, format_of
from trainer.corpus.quality import Copy, Seen
from trainer.corpus.records import Columns
from trainer.corpus.sandbox import Limits, Sandbox
from trainer.errors import DataError

_QUOTED_REASONS = 3


@dataclass(frozen=True)
class Source:
    """One file to read. `name` is relative, '/'-separated, and is what messages show.

    `size` is what it had in bytes when it was listed.
    """

    name: str
    path: Path
    size: int | None = None


@dataclass(frozen=True)
class Skipped:
    """A file, or one record of it, that was left out. `reason` begins with the name."""

    name: str
    reason: str


@dataclass
class Corpus:
    """What the sources hold, in their order, without copies.

    `near_duplicates` are documents that another one nearly repeats; `notices` name files that
    were read on an assumption.
    """

    examples: list[Example] = field(default_factory=list)
    files: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    duplicates: int = 0
    near_duplicates: int = 0
    notices: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> dict[str, int]:
        """Number of examples of each kind: text, completion, conversation."""
        return dict(Counter(type(example).__name__.lower() for example in self.examples))


def read_corpus(
    sources: Iterable[Source],
    *,
    max_skipped_share: float = 0.1,
    columns: Columns | None = None,
    limits: Limits | None = None,
) -> Corpus:
    """Read all `sources`; drop copies and count them.

    `files` counts the files of an accepted suffix. A file of another suffix is listed in
    `skipped` but does not count towards `max_skipped_share`, the largest acceptable share of
    skipped files and records: an image beside a README is normal.

    Raises DataError when a file cannot be opened or changes meanwhile, when nothing usable is
    there, and when more than the share was skipped.
    """
    corpus = Corpus()
    seen = Seen()
    unusable: list[Skipped] = []
    with Sandbox(limits) as sandbox:
        for source in sources:
            form = format_of(source.name)
            if not form.is_accepted:
                kind = str(form) or "file without a suffix"
                corpus.skipped.append(_skipped(source, f"unsupported {kind}"))
                continue
            corpus.files += 1
            for item in _items(source, form, columns or Columns(), sandbox):
                if isinstance(item, Notice):
                    corpus.notices.append(f"{shown(source.name)}: {item.words}")
                elif isinstance(item, Refused):
                    unusable.append(_skipped(source, item.reason, item.where))
                    corpus.skipped.append(unusable[-1])
                else:
                    _take(item, seen, corpus)
    _check_share(corpus, unusable, max_skipped_share)
    return corpus


def _take(example: Example, seen: Seen, corpus: Corpus) -> None:
    match seen.add(example):
        case Copy.NO:
            corpus.examples.append(example)
        case Copy.EXACT:
            corpus.duplicates += 1
        case Copy.NEAR:
            corpus.near_duplicates += 1


def _items(source: Source, form: Format, columns: Columns, sandbox: Sandbox) -> list[Item]:
    """All of a file. One that turns out to be unusable gives no example at all: what precedes
    a broken byte is in doubt too."""
    read = sandbox.read if form.needs_limits else formats.read
    try:
        before = _state(source)
        try:
            items: list[Item] = list(read(source.path, form, columns))
        except Unusable as refused:
            items = [Refused("", str(refused))]
        changed = _state(source) != before or source.size not in (None, before[0])
    except OSError as error:
        raise DataError(
            f"{shown(source.name)} cannot be read ({error.strerror or error}); "
            "check that it is a file and that this user may read it"
        ) from error
    if changed:
        raise DataError(
            f"{shown(source.name)} changed while it was read; start again once nothing writes to it"
        )
    return items


def _state(source: Source) -> tuple[int, int]:
    """What changes when a file does. A pipe would be waited for, so it is refused here."""
    found = source.path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no plain file")
    with source.path.open("rb"):  # the child could not say that this user may not
        return found.st_size, found.st_mtime_ns


def _check_share(corpus: Corpus, unusable: list[Skipped], max_skipped_share: float) -> None:
    """Raise DataError when too little is left to train on."""
    if not corpus.files:
        found = f"only {_quoted(corpus.skipped)}" if corpus.skipped else "no files"
        raise DataError(f"the data holds {found}; it needs {', '.join(SUFFIXES)} files")
    copies = corpus.duplicates + corpus.near_duplicates
    total = len(corpus.examples) + copies + len(unusable)
    share = len(unusable) / total
    if share > max_skipped_share or not corpus.examples:
        raise DataError(
            f"{len(unusable)} of {total} files and records cannot be used "
            f"({share:.0%}, the limit is {max_skipped_share:.0%}): {_quoted(unusable)}; "
            "repair or remove them"
        )


def _quoted(skipped: list[Skipped]) -> str:
    more = len(skipped) - _QUOTED_REASONS
    first = "; ".join(skip.reason for skip in skipped[:_QUOTED_REASONS])
    return first + (f"; and {more} more" if more > 0 else "")


def _skipped(source: Source, reason: str, where: str = "") -> Skipped:
    name = shown(source.name) + (f" {where}" if where else "")
    return Skipped(source.name, f"{name}: {reason}")
