"""Rows below a header, as CSV files and workbooks have them: (where, record), or why not."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.corpus.examples import (
    LONGEST_LINE,
    Notice,
    SkippedRecord,
    Unusable,
    as_text,
    printable,
)
from trainer.corpus.packages import check_size
from trainer.corpus.shapes import Fits
from trainer.corpus.tables import TableRow, lines
from trainer.runtime.wording import counted

if TYPE_CHECKING:  # it imports openpyxl
    from trainer.corpus.worksheets import Worksheet

_DELIMITERS = ",;\t|"
_HEADER_ROWS = 12  # a title and who made it may stand above the header
_SEPARATOR = "sep="  # how Excel names the delimiter, on a line of its own
_QUESTION_ANSWER = ("question", "answer")
_QUESTION_MARKS = ("?", "\N{FULLWIDTH QUESTION MARK}", "\N{ARABIC QUESTION MARK}")
_LONGEST_NAME = 60  # characters of a column
_FIGURE = re.compile(r"[+-]?[\d.,]+%?")

Row = tuple[str, Sequence[Any]]


def delimited(chunks: Iterable[str], fits: Fits, delimiter: str = "") -> Iterator[TableRow]:
    """Rows of a CSV. Without a `delimiter` it is the one with which the first lines have a header
    that `fits`, else the likeliest one of the first line.

    Every value is text, also NA, null and 007.
    """
    csv.field_size_limit(LONGEST_LINE)
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    found = (line + "\n" for line in lines(newlines.decode(chunk) for chunk in chunks))
    head = list(islice(found, _HEADER_ROWS))
    first_line = 1
    if head and head[0].strip().strip('"').lower().startswith(_SEPARATOR):
        delimiter = delimiter or head[0].strip().strip('"')[len(_SEPARATOR) :][:1]
        first_line, head = 2, head[1:]
    chosen = delimiter or _delimiter(head, fits)
    rows = _csv_rows(chain(head, found), chosen, first_line)
    yield from _records(rows, fits, is_ragged=False)


def xlsx(path: Path, fits: Fits) -> Iterator[TableRow]:
    """The rows of a workbook's sheets, values and not formulas, without what is hidden; those of
    sheets without a header that `fits` only where no sheet has one."""
    from openpyxl import load_workbook

    from trainer.corpus.worksheets import Worksheet

    check_size(path)
    book = load_workbook(path.open("rb"), read_only=True, data_only=True)
    sheets = [Worksheet(sheet) for sheet in book.worksheets]
    telling = [
        sheet.title
        for sheet in sheets
        if not sheet.is_hidden
        and _header_at(list(islice(_sheet_rows(sheet), _HEADER_ROWS)), fits) >= 0
    ]
    for sheet in sheets:
        name = f"sheet {printable(sheet.title)}"
        if sheet.is_hidden:
            yield Notice(f"{name}: it is hidden and is not used")
        elif sheet.title in telling or not telling:
            yield from _records(_sheet_rows(sheet), fits, is_ragged=True)
            if sheet.hidden_rows:
                yield Notice(f"{name}: hidden rows, which are not used: {sheet.hidden_rows:,}")
        elif any(True for _ in _sheet_rows(sheet)):
            yield Notice(f"{name}: it has no column to train on and is not used")


def _sheet_rows(sheet: "Worksheet") -> Iterator[Row]:
    for number, row in sheet.rows():
        if any(map(_holds_something, row)):
            yield f"{printable(sheet.title)} row {number}", row


def _csv_rows(found: Iterable[str], delimiter: str, first_line: int) -> Iterator[Row]:
    """Raises Unusable for the first row that is broken: what follows is in doubt too."""
    rows = csv.reader(found, delimiter=delimiter, strict=True)
    line = first_line
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise Unusable(f"line {line}: {_csv_fault(error)}") from None
        if row is None:
            return
        where, line = f"line {line}", rows.line_num + first_line
        if any(row):
            yield where, row


def _records(rows: Iterator[Row], fits: Fits, *, is_ragged: bool) -> Iterator[TableRow]:
    """Records by the names of the header. Where rows are ragged, what the header does not name
    gets names, and what a row does not have is None; else such a row is refused."""
    head = list(islice(rows, _HEADER_ROWS))
    if not head:
        return
    at = _header_at(head, fits)
    if at < 0 and _holds_questions(head) and fits(_QUESTION_ANSWER):
        yield Notice("it has no header; its columns are read as question and answer")
        head, at = [("", _QUESTION_ANSWER), *head], 0
    elif at < 0:
        _refuse_without_header(head[0][1])
    at = max(at, 0)
    if at:
        yield Notice(f"what stands above the header on {head[at][0]} is not used")
    header, again = _header(head[at][1]), []
    for where, row in chain(head[at + 1 :], rows):
        extra, missing = row[len(header) :], len(header) - len(row)
        if list(row) == list(head[at][1]):
            again.append(where)  # as where files were joined
        elif is_ragged:
            names = (f"column {n}" for n in range(len(header) + 1, len(row) + 1))
            yield where, dict(zip_longest((*header, *names), row))
        elif missing > 0 or any(map(_holds_something, extra)):
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


def _header_at(head: Sequence[Row], fits: Fits) -> int:
    """The first row whose cells are names of columns that make a record, -1 for none; what stands
    above it has fewer cells."""
    most = 0
    for at, (_, row) in enumerate(head):
        cells = sum(map(_holds_something, row))
        if cells > most and fits(_names(row)):
            return at
        most = max(most, cells)
    return -1


def _holds_questions(head: Sequence[Row]) -> bool:
    """Whether two columns without a header are questions and answers beyond doubt."""
    rows = [row for _, row in head]
    return len(rows) > 1 and all(
        len(row) == 2 and all(map(_holds_something, row)) and _asks(row[0]) and not _asks(row[1])
        for row in rows
    )


def _asks(cell: Any) -> bool:
    return str(cell).strip().endswith(_QUESTION_MARKS)


def _refuse_without_header(row: Sequence[Any]) -> None:
    """Raises Unusable where the first row holds sentences, or figures alone: they name nothing."""
    cells = [str(cell).strip() for cell in row if _holds_something(cell)]
    ends = (*_QUESTION_MARKS, ".", "!", "\N{IDEOGRAPHIC FULL STOP}")
    says_something = any(len(c) > _LONGEST_NAME or c.endswith(ends) for c in cells)
    if says_something or all(map(_FIGURE.fullmatch, cells)):
        raise Unusable(
            f'it has no header: its first row begins with "{printable(cells[0][:40])}"; put a row '
            "above it that names the columns, as question,answer or text"
        )


def _delimiter(head: Sequence[str], fits: Fits) -> str:
    if not head:
        return ","
    likeliest = sorted(_DELIMITERS, key=lambda delimiter: -head[0].count(delimiter))
    for delimiter in likeliest:
        with suppress(csv.Error):  # told with its line by whoever reads the rows
            rows = list(csv.reader(head, delimiter=delimiter))
            if _header_at([("", row) for row in rows], fits) >= 0:
                return delimiter
    return likeliest[0]


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
    return [str(as_text(cell)).strip() if _holds_something(cell) else "" for cell in row]


def _holds_something(cell: Any) -> bool:
    return cell is not None and bool(str(cell).strip())


def _csv_fault(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote that opens here is never closed"
    if "field limit" in str(error):
        return f"a field is longer than {LONGEST_LINE >> 20} Mi characters, or its quote is open"
    return f"broken row ({error})"
