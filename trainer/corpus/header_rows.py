"""Rows below a header -> records by its names; of rows without one, what their form shows."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice, zip_longest
from string import ascii_uppercase
from typing import Any

from trainer.corpus.examples import (
    QUESTION_MARKS,
    Notice,
    SkippedRecord,
    Unusable,
    as_text,
    asks,
    printable,
)
from trainer.corpus.shapes import Fits
from trainer.runtime.wording import counted

HEADER_ROWS = 12  # a title and who made it may stand above the header
_QUESTION_ANSWER = ("question", "answer")
_LONGEST_NAME = 60  # characters of a column
_FIGURE = re.compile(r"[+-]?[\d.,]+%?")
_MOST_CHOICES = 6
_BLANK = " \t\r\n\N{NO-BREAK SPACE}\N{ZERO WIDTH NO-BREAK SPACE}"

Row = tuple[str, Sequence[Any]]
"""(where it stands, its cells)"""


def records_below(
    rows: Iterator[Row], fits: Fits, *, is_ragged: bool
) -> Iterator[tuple[str, dict[str, Any]] | SkippedRecord | Notice]:
    """Records by the names of the header. Where rows are ragged, what the header does not name
    gets names, and what a row does not have is None; else such a row is refused."""
    head = list(islice(rows, HEADER_ROWS))
    if not head:
        return
    at = header_at(head, fits)
    if at < 0 and (names := _names_of(below := _below_numbers(head))) and fits(names):
        said = f"{', '.join(names[:-1])} and {names[-1]}"
        yield Notice(f"it has no header; its columns are read as {said}")
        head, at = [("", names), *below], 0
    elif at < 0:
        _refuse_without_header(head[0][1])
    at = max(at, 0)
    if at:
        yield Notice(f"what stands above the header on {head[at][0]} is not used")
    header, again = _header(head[at][1]), []
    named, first = _names(head[at][1]), head[at][1][0]
    for where, row in chain(head[at + 1 :], rows):
        extra, missing = row[len(header) :], len(header) - len(row)
        if row and (row[0] == first or _is_marked(row[0])) and _names(row) == named:
            again.append(where)  # as where files were joined
        elif is_ragged:
            more = (f"column {n}" for n in range(len(header) + 1, len(row) + 1))
            yield where, dict(zip_longest((*header, *more), row))
        elif missing > 0 or any(map(holds_something, extra)):
            yield SkippedRecord(
                where, f"has {counted(len(row), 'field')} and the header has {len(header)}"
            )
        else:
            yield where, dict(zip(header, row, strict=False))
    if again:
        told = counted(
            len(again), "row repeats the header and is", "rows repeat the header and are"
        )
        yield Notice(f"{told} not used, first {again[0]}")


def _is_marked(cell: Any) -> bool:
    return isinstance(cell, str) and cell.startswith("\ufeff")


def header_at(head: Sequence[Row], fits: Fits) -> int:
    """The first row whose cells are names of columns that make a record, -1 for none; what stands
    above it has fewer cells."""
    most = 0
    for at, (_, row) in enumerate(head):
        cells = sum(map(holds_something, row))
        if cells > most and fits(_names(row)):
            return at
        most = max(most, cells)
    return -1


def _below_numbers(head: Sequence[Row]) -> Sequence[Row]:
    """Without a first row 0, 1, 2, …, which is how pandas names columns that have no names."""
    names = _names(head[0][1])
    return head[1:] if names == [str(number) for number in range(len(names))] else head


def _names_of(head: Sequence[Row]) -> Sequence[str]:
    """What columns without a header are beyond doubt: questions and answers; or questions, choices
    and the letter of the right one, as MMLU has them. Else nothing."""
    rows = [row for _, row in head]
    wide = len(rows[0]) if len(rows) > 1 else 0
    if any(len(row) != wide or not all(map(holds_something, row)) for row in rows):
        return ()
    if wide == 2 and all(asks(row[0]) and not asks(row[1]) for row in rows):
        return _QUESTION_ANSWER
    letters = ascii_uppercase[: wide - 2]
    if 4 <= wide <= _MOST_CHOICES + 2 and all(str(row[-1]).strip() in letters for row in rows):
        return ("question", *letters, "answer")
    return ()


def _refuse_without_header(row: Sequence[Any]) -> None:
    """Raises Unusable where the first row holds sentences, or figures alone: they name nothing."""
    cells = [str(cell).strip() for cell in row if holds_something(cell)]
    asked = [asks(cell) for cell in cells]
    if sum(asked) > 1 or any(asked[1:]):
        raise Unusable(
            "its first row asks, as that of a form does, and its rows are what people answered; "
            "write a row for each question, below question,answer"
        )
    ends = (*QUESTION_MARKS, ".", "!", "\N{IDEOGRAPHIC FULL STOP}")
    says_something = any(len(c) > _LONGEST_NAME or c.endswith(ends) for c in cells)
    if says_something or all(map(_FIGURE.fullmatch, cells)):
        raise Unusable(
            f'it has no header: its first row begins with "{printable(cells[0][:40])}"; put a row '
            "above it that names the columns, as question,answer or text"
        )


def _header(row: Sequence[Any]) -> list[str]:
    """The names of columns; one between others that has none gets one."""
    names = _names(row)
    while names and not names[-1]:
        names.pop()
    names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise Unusable(f"the header names {twice[0][:40]!r} twice; rename one of the columns")
    return names


def _names(row: Sequence[Any]) -> list[str]:
    return [str(as_text(cell)).strip(_BLANK) if holds_something(cell) else "" for cell in row]


def holds_something(cell: Any) -> bool:
    return cell is not None and bool(str(cell).strip())
