"""`inspect`: what a run would train on, as the model would see it, before anything is trained."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import Any

from trainer.commands.look import look_at, too_little
from trainer.corpus.formats import format_of
from trainer.corpus.sandbox import unconfined
from trainer.dataset import counts
from trainer.dataset.inputs import Inputs
from trainer.dataset.seen import Piece, SeenRecord, seen_records, shortened
from trainer.monitoring.counting import waiting
from trainer.reporting.data_section import data_rows, file_type_rows, schedule_rows, title
from trainer.reporting.idle_settings import idle_settings
from trainer.reporting.run_record import DataCounts, RecordedSchedule, RecordedSettings
from trainer.runtime.wording import as_typed, columns, hanging
from trainer.settings import Settings

_GREEN, _CYAN, _BOLD, _PLAIN = "\x1b[32m", "\x1b[36m", "\x1b[1m", "\x1b[0m"
_OPEN, _CLOSE = "⟦", "⟧"
_CONTROLS = {*map(chr, (*range(32), *range(127, 160)))} - {"\n", "\t"}
_TURNING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # the order of words
_UNPRINTED = _CONTROLS | _TURNING


@dataclass(frozen=True)
class Inspection:
    """What the data became, and how it would be trained."""

    base: str
    settings: RecordedSettings
    data: DataCounts
    schedule: RecordedSchedule
    steps: int
    """optimizer steps"""
    warnings: Sequence[str]
    records: Sequence[SeenRecord]
    asks_first: bool = False
    """whether questions are made of the documents first"""

    def as_json(self) -> str:
        """One line; what is shown of the records is whole."""
        record: dict[str, Any] = {
            "base": self.base,
            "data": self.settings.data_uri,
            "counts": self.data.to_json(),
            "warnings": list(self.warnings),
            "schedule": asdict(self.schedule) | {"steps": self.steps},
            "records": [asdict(shown) for shown in self.records],
        }
        return json.dumps(record)

    def as_text(self, width: int, *, is_coloured: bool, first_look: bool = False) -> str:
        """For a screen of `width` columns; without colour, marks stand for it. A `first_look` is
        without the schedule, which is not chosen yet, and what has nothing to say."""
        style, grid = _Style(is_coloured), _grid(file_type_rows(self.data))
        fits = max(map(len, grid.splitlines())) <= width
        parts = [
            _table(self._first_rows() if first_look else self._rows(), width),
            grid if fits and not first_look else "",
            self._warned(style, width),
            *self._shown(style, width),
        ]
        return "\n\n".join(part for part in parts if part)

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "base model", self.base
        yield from data_rows(self.settings, self.data)
        yield "steps", f"{self.steps:,}"
        yield from schedule_rows(self.schedule)

    def _first_rows(self) -> Iterator[tuple[str, str]]:
        data = self.data
        said = {
            "read": True,
            "left out": data.duplicates or data.near_duplicates,
            "skipped": data.skipped,
            "noticed": data.assumed_first,
            "tokens": True,
            "cut to fit": data.cut_records,
        }
        yield from ((name, text) for name, text in data_rows(self.settings, data) if said.get(name))

    def _warned(self, style: "_Style", width: int) -> str:
        said = [hanging(printed(warning), width, "- ") for warning in self.warnings]
        return "\n".join([style.heading("Worth knowing"), *said]) if said else ""

    def _shown(self, style: "_Style", width: int) -> Iterator[str]:
        if self.records:
            yield f"{style.heading('As the model sees it')}: {style.legend()}"
        for shown in self.records:
            text = style.record(_wrapped(shortened(shown.pieces), width))
            yield f"{style.heading(printed(title(shown)))}\n{text}"


@waiting("looking at the data")
def inspect_data(settings: Settings, examples: int) -> Inspection:
    """By what a run uses itself, up to the schedule; `examples` are shown.

    Of the base only config and tokenizer are fetched. Raises JobError, as a run would.
    """
    look = look_at(settings)
    base, data, found = look.base, look.data, look.counts
    return Inspection(
        base=base.name,
        settings=RecordedSettings.from_json(settings.to_dict()),
        data=found,
        schedule=RecordedSchedule.from_json(look.schedule.to_json()),
        steps=look.steps,
        warnings=[
            as_typed(sentence)
            for sentence in (
                *too_little(look, settings),
                *counts.cautions(data.counts, settings.max_length),
                *idle_settings(settings, base, found),
                *_unconfined(look.inputs),
            )
        ],
        records=seen_records(data.trained, look.tokenizer, examples),
        asks_first=look.asking.first,
    )


def _unconfined(inputs: Inputs) -> Iterator[str]:
    """What the process that parses files of these kinds could do on this machine."""
    forms = {format_of(file.name) for file in (*inputs.data, *inputs.evaluation)}
    if any(form.is_accepted and form.needs_limits for form in forms) and (found := unconfined()):
        yield (
            "files are parsed in a process that this machine cannot keep from: "
            f"{'; '.join(found)}; do not give it files of strangers"
        )


def printed(text: str) -> str:
    """`text` without what a terminal would obey, or what would turn the words around."""
    return "".join(f"<{ord(char):02x}>" if char in _UNPRINTED else char for char in text)


class _Style:
    """How what is trained is told from what is given: in colour, or between marks."""

    def __init__(self, is_coloured: bool) -> None:
        self._is_coloured = is_coloured

    def heading(self, text: str) -> str:
        return self._in(_BOLD, text)

    def legend(self) -> str:
        if self._is_coloured:
            trained = f"{self._in(_GREEN, 'green')} what is trained"
            return f"{trained}, {self._in(_CYAN, 'blue')} special tokens, the rest is given"
        return f"{_OPEN}trained{_CLOSE} and given, special tokens as they are written"

    def record(self, pieces: Iterable[Piece]) -> str:
        runs = groupby(pieces, key=lambda piece: piece.trained)
        return "".join(self._run(trained, list(run)) for trained, run in runs)

    def _run(self, trained: bool, pieces: Sequence[Piece]) -> str:
        if not self._is_coloured:
            text = printed("".join(piece.text for piece in pieces))
            return f"{_OPEN}{text}{_CLOSE}" if trained else text
        special, other = (_BOLD + _GREEN, _GREEN) if trained else (_CYAN, "")
        return "".join(self._in(special if p.special else other, printed(p.text)) for p in pieces)

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if colour and self._is_coloured else text


def _wrapped(pieces: Iterable[Piece], width: int) -> Iterator[Piece]:
    """With lines broken behind spaces, where a terminal of `width` columns would cut a word."""
    printable = [replace(piece, text=printed(piece.text)) for piece in pieces]
    breaks = set(_breaks("".join(piece.text for piece in printable), width))
    at = 0
    for piece in printable:
        text = "".join(f"{c}\n" if n in breaks else c for n, c in enumerate(piece.text, at))
        at += len(piece.text)
        yield replace(piece, text=text)


def _breaks(text: str, width: int) -> Iterator[int]:
    """The spaces behind which lines of `text` are broken."""
    column = space = behind_space = 0
    for at, char in enumerate(text):
        if char == "\n":
            column = space = 0
            continue
        column += 8 - column % 8 if char == "\t" else columns(char)
        if column > width and space:
            yield space
            column, space = column - behind_space, 0
        if char == " ":
            space, behind_space = at, column


def _table(rows: Iterable[tuple[str, str]], width: int) -> str:
    """Names and their texts side by side, the texts broken at `width` columns: of several lines
    each begins further to the left than it goes on."""
    known = [(name, printed(text).split("\n")) for name, text in rows]
    room = max(len(name) for name, _ in known) + 2
    return "\n".join(
        hanging(line, width, f"{name if not at else '':<{room}}", 2 * (len(lines) > 1))
        for name, lines in known
        for at, line in enumerate(lines)
    )


def _grid(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell; the first to the left, the others to the right."""
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    return "\n".join(
        f"{name:<{first}}" + "".join(f"{c:>{w + 2}}" for c, w in zip(cells, others, strict=True))
        for name, *cells in rows
    )
