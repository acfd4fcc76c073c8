"""All files of a corpus -> its examples, one after the other, and what was left out."""

import stat
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainer.corpus import formats
from trainer.corpus.columns import Columns
from trainer.corpus.examples import (
    Conversation,
    Example,
    Item,
    Notice,
    SkippedRecord,
    TooSlow,
    Unusable,
    printable,
)
from trainer.corpus.formats import SUFFIXES, Format, format_of, kind_of
from trainer.corpus.leftovers import is_hidden, is_leftover
from trainer.corpus.sandbox import Sandbox, SandboxLimits
from trainer.errors import DataError
from trainer.runtime.wording import counted

KEPT_REASONS = 20  # reasons and notices that are kept
_QUOTED_REASONS = 3
MOST_SLOW, MOST_SLOW_SHARE = 10, 0.01  # files: more end the run


@dataclass(frozen=True)
class Source:
    """One file to read. `name` is relative, '/'-separated, and is what messages show.

    `size` is what it had in bytes when it was listed.
    """

    name: str
    path: Path
    size: int | None = None


@dataclass
class Tally:
    """What a reading came upon, JSON-ready; complete once its last example has been taken.

    `files` are those of an accepted suffix and `foreign` the others: an image beside a README is
    normal. `void` are the numbers [first, behind the last) of examples that do not count, because
    their file turned out to be unusable further on. Only the first KEPT_REASONS are kept: why
    something was `skipped` (names first), of which file what was assumed (`notices`). `files_by`
    and `skipped_by` count files and what was skipped by the kind of file, see `formats.kind_of`.
    """

    files: int = 0
    foreign: int = 0
    examples: int = 0
    void: list[tuple[int, int]] = field(default_factory=list)
    unusable: int = 0
    skipped: list[str] = field(default_factory=list)
    unusable_first: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    files_by: dict[str, int] = field(default_factory=dict)
    skipped_by: dict[str, int] = field(default_factory=dict)

    @property
    def usable(self) -> int:
        return self.examples - sum(end - start for start, end in self.void)

    def refuse(self, found: Iterable[tuple[int, str]]) -> None:
        """Leave out these examples after all: (number, where it stands and why), in order. Not
        those of a file that turned out to be unusable itself."""
        void = sorted(self.void)
        starts = [first for first, _ in void]
        for number, words in found:
            at = bisect_right(starts, number) - 1
            if at >= 0 and number < void[at][1]:
                continue
            if self.void and self.void[-1][1] == number:
                self.void[-1] = (self.void[-1][0], number + 1)
            else:
                self.void.append((number, number + 1))
            self.unusable += 1
            self._count_skipped_at(words)
            for names in (self.skipped, self.unusable_first):
                names += [words][: KEPT_REASONS - len(names)]

    def _count_skipped_at(self, words: str) -> None:
        """By the kind of the file whose name `words` begin with."""
        parts = words.split(" ")
        kinds = (kind_of(" ".join(parts[:end])) for end in range(1, len(parts)))
        kind = next((kind for kind in kinds if kind in self.files_by), None)
        if kind is not None:
            self.skipped_by[kind] = self.skipped_by.get(kind, 0) + 1

    def add(self, other: "Tally") -> None:
        """What a reading of the sources behind these came upon."""
        self.void += [(self.examples + first, self.examples + end) for first, end in other.void]
        for names, more in (
            (self.skipped, other.skipped),
            (self.unusable_first, other.unusable_first),
        ):
            names += more[: KEPT_REASONS - len(names)]
        for notice in other.notices:
            self.keep_notice(notice)
        for counts, others in (
            (self.files_by, other.files_by),
            (self.skipped_by, other.skipped_by),
        ):
            for kind, number in others.items():
                counts[kind] = counts.get(kind, 0) + number
        self.files += other.files
        self.foreign += other.foreign
        self.examples += other.examples
        self.unusable += other.unusable

    def keep_notice(self, notice: str) -> None:
        """Of a file; the same words about another one would say nothing new."""
        said = {known.partition(": ")[2] for known in self.notices}
        if len(said) < KEPT_REASONS and notice.partition(": ")[2] not in said:
            self.notices.append(notice)

    def check(self, max_skipped_share: float) -> None:
        """Raise DataError when too little is left to train on."""
        if not self.files:
            found = f"only {_quoted(self.skipped, self.foreign)}" if self.foreign else "no files"
            raise DataError(
                f"the data holds {found}; it needs {', '.join(SUFFIXES)} files: save others as one "
                "of those, and unpack archives"
            )
        total = self.usable + self.unusable
        if self.unusable > max_skipped_share * total or not self.usable:
            raise DataError(
                f"{self.unusable} of {counted(total, 'file or record', 'files and records')} "
                f"cannot be used ({self.unusable / total:.0%}, "
                f"the limit is {max_skipped_share:.0%}): "
                f"{_quoted(self.unusable_first, self.unusable)}; repair or remove them"
                + (", or raise QLORA_MAX_SKIPPED_SHARE to train without them" * bool(self.usable))
            )


class Reader:
    """Iterate over it once: (number of the source, example) in order, then `tally` is complete.

    Raises DataError when a file cannot be opened or changes meanwhile. Large files are read a
    piece at a time.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        *,
        columns: Columns | None = None,
        limits: SandboxLimits | None = None,
    ) -> None:
        self.tally = Tally()
        self._sources = sources
        self._columns = columns or Columns()
        self._limits = limits
        self._slow = 0

    def __iter__(self) -> Iterator[tuple[int, Example]]:
        for number, examples in self.by_source():
            for example in examples:
                yield number, example

    def by_source(
        self, first: int = 0, tally: Tally | None = None
    ) -> Iterator[tuple[int, Iterator[Example]]]:
        """From the source `first` on, with the `tally` of those before it: (number, examples).

        Take the examples of one before the next. Between two sources the tally is that of all
        before.
        """
        self.tally = tally or self.tally
        with Sandbox(self._limits) as sandbox:
            for number, source in enumerate(self._sources):
                if number >= first:
                    yield number, self._counted(source, sandbox)

    def _counted(self, source: Source, sandbox: Sandbox) -> Iterator[Example]:
        form, kind = format_of(source.name), kind_of(source.name)
        if is_leftover(source.name, source.path):
            return
        if form.is_accepted and is_hidden(source.name):
            self.tally.foreign += 1
            self._count_skipped(source)
            self._keep(self.tally.skipped, source, "hidden by a dot; rename it to use it")
        elif form.is_accepted:
            self.tally.files += 1
            self.tally.files_by[kind] = self.tally.files_by.get(kind, 0) + 1
            for example in self._examples(source, form, sandbox):
                self.tally.examples += 1
                yield example
        else:
            self.tally.foreign += 1
            self._count_skipped(source)
            suffix = str(form) or "file without a suffix"
            self._keep(self.tally.skipped, source, f"unsupported {suffix}")

    def _examples(self, source: Source, form: Format, sandbox: Sandbox) -> Iterator[Example]:
        """Of one file. When it turns out to be unusable none of them counts, nor what was said
        about them: what precedes a broken byte is in doubt too."""
        tally = self.tally
        first, unusable, skipped_by = tally.examples, tally.unusable, dict(tally.skipped_by)
        said = [
            (names, len(names)) for names in (tally.skipped, tally.unusable_first, tally.notices)
        ]
        try:
            for item in _items(source, form, self._columns, sandbox):
                if isinstance(item, Notice):
                    of = f" ({item.amount})" if item.amount else ""
                    tally.keep_notice(f"{printable(source.name)}{of}: {item.words}")
                elif isinstance(item, SkippedRecord):
                    self._refuse(source, item.reason, item.where)
                elif isinstance(item, Conversation):
                    yield replace(item, where=f"{printable(source.name)} {item.where}".strip())
                else:
                    yield item
        except Unusable as refused:
            if tally.examples > first:
                tally.void.append((first, tally.examples))
            tally.unusable, tally.skipped_by = unusable, skipped_by
            for names, length in said:
                del names[length:]
            self._refuse(source, str(refused))
            if isinstance(refused, TooSlow):
                self._refuse_many_slow()

    def _refuse_many_slow(self) -> None:
        """Each takes a minute or more: a thousand of them, a day."""
        self._slow += 1
        if self._slow > max(MOST_SLOW, MOST_SLOW_SHARE * self.tally.files):
            raise DataError(
                f"{self._slow} of {self.tally.files} files were given up for the time they take: "
                f"{_quoted(self.tally.unusable_first, self.tally.unusable)}; remove them"
            )

    def _refuse(self, source: Source, reason: str, where: str = "") -> None:
        self.tally.unusable += 1
        self._count_skipped(source)
        self._keep(self.tally.skipped, source, reason, where)
        self._keep(self.tally.unusable_first, source, reason, where)

    def _count_skipped(self, source: Source) -> None:
        kind = kind_of(source.name)
        self.tally.skipped_by[kind] = self.tally.skipped_by.get(kind, 0) + 1

    def _keep(self, names: list[str], source: Source, words: str, where: str = "") -> None:
        if len(names) < KEPT_REASONS:
            names.append(f"{printable(source.name)}{f' {where}' if where else ''}: {words}")


def _items(source: Source, form: Format, columns: Columns, sandbox: Sandbox) -> Iterator[Item]:
    """All of a file. Raises Unusable, also late, and DataError."""
    read = sandbox.read if form.needs_limits else formats.read
    unusable = None
    try:
        before = _state(source)
        try:
            yield from read(source.path, form, columns)
        except Unusable as refused:
            unusable = refused
        changed = _state(source) != before or source.size not in (None, before[0])
    except OSError as error:
        raise DataError(
            f"{printable(source.name)} cannot be read ({error.strerror or error}); "
            "check that it is a file and that this user may read it"
        ) from error
    if changed:
        raise DataError(
            f"{printable(source.name)} changed while it was read; "
            "start again once nothing writes to it"
        )
    if unusable is not None:
        raise unusable


def _state(source: Source) -> tuple[int, int]:
    """What changes when a file does. A pipe would be waited for, so it is refused here."""
    found = source.path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is no plain file")
    with source.path.open("rb"):  # the child could not say that this user may not
        return found.st_size, found.st_mtime_ns


def _quoted(reasons: list[str], count: int) -> str:
    more = count - _QUOTED_REASONS
    return "; ".join(reasons[:_QUOTED_REASONS]) + (f"; and {more} more" if more > 0 else "")
