"""Rows of CSV files and workbooks: (where, record), or why not."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.corpus.anki import ANKI
from trainer.corpus.examples import (
    LONGEST_LINE,
    NextTable,
    Notice,
    Unusable,
    printable,
)
from trainer.corpus.header_rows import (
    HEADER_ROWS,
    Row,
    header_at,
    holds_something,
    records_below,
)
from trainer.corpus.packages import check_size
from trainer.corpus.shapes import Fits
from trainer.corpus.tables import TableRow, lines

if TYPE_CHECKING:  # it imports openpyxl
    from trainer.corpus.worksheets import Worksheet

_DELIMITERS = ",;\t|"
_SEPARATOR = "sep="  # how Excel names the delimiter, on a line of its own


def delimited(chunks: Iterable[str], fits: Fits, delimiter: str = "") -> Iterator[TableRow]:
    """Rows of a CSV. What stands between its cells is that with which the first lines have a header
    that `fits`, `delimiter` before others; else `delimiter`, or the likeliest of the first line.

    Every value is text, also NA, null and 007.
    """
    csv.field_size_limit(LONGEST_LINE)
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    found = (line + "\n" for line in lines(newlines.decode(chunk) for chunk in chunks))
    head = list(islice(found, HEADER_ROWS))
    first_line = 1
    if head and head[0].startswith(ANKI):
        raise Unusable("it is cards of Anki; name it .txt")
    if head and head[0].strip().strip('"').lower().startswith(_SEPARATOR):
        delimiter = head[0].strip().strip('"')[len(_SEPARATOR) :][:1] or delimiter
        first_line, head = 2, head[1:]
    chosen = _delimiter(head, fits, delimiter)
    rows = _csv_rows(chain(head, found), chosen, first_line, _has_spaces(head, chosen))
    yield from records_below(rows, fits, is_ragged=False)


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
        and header_at(list(islice(_sheet_rows(sheet), HEADER_ROWS)), fits) >= 0
    ]
    for sheet in sheets:
        yield NextTable()
        name = f"sheet {printable(sheet.title)}"
        if sheet.is_hidden:
            yield Notice(f"{name}: it is hidden and is not used")
        elif sheet.title in telling or not telling:
            yield from records_below(_sheet_rows(sheet), fits, is_ragged=True)
            if sheet.hidden_rows:
                yield Notice(f"{name}: hidden rows, which are not used: {sheet.hidden_rows:,}")
        elif any(True for _ in _sheet_rows(sheet)):
            yield Notice(f"{name}: it has no column to train on and is not used")


def _sheet_rows(sheet: "Worksheet") -> Iterator[Row]:
    for number, row in sheet.rows():
        if any(map(holds_something, row)):
            yield f"{printable(sheet.title)} row {number}", row


def _has_spaces(head: Sequence[str], delimiter: str) -> bool:
    """Whether a space stands behind each delimiter of the header: then a quote may follow it."""
    return bool(head) and 0 < head[0].count(delimiter) == head[0].count(delimiter + " ")


def _csv_rows(
    found: Iterable[str], delimiter: str, first_line: int, has_spaces: bool
) -> Iterator[Row]:
    """Raises Unusable for the first row that is broken: what follows is in doubt too."""
    rows = csv.reader(found, delimiter=delimiter, strict=True, skipinitialspace=has_spaces)
    line = first_line
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise Unusable(f"line {line}: {_csv_fault(error)}") from None
        if row is None:
            return
        where, line = f"line {line}", rows.line_num + first_line
        if any(map(holds_something, row)):
            yield where, row


def _delimiter(head: Sequence[str], fits: Fits, promised: str) -> str:
    if not head:
        return promised or ","
    likeliest = sorted(_DELIMITERS, key=lambda delimiter: -head[0].count(delimiter))
    likeliest = [*([promised] if promised else []), *likeliest]
    for delimiter in likeliest:
        with suppress(csv.Error):  # told with its line by whoever reads the rows
            rows = list(csv.reader(head, delimiter=delimiter))
            if header_at([("", row) for row in rows], fits) >= 0:
                return delimiter
    return likeliest[0]


def _csv_fault(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote that opens here is never closed"
    if "field limit" in str(error):
        return f"a field is longer than {LONGEST_LINE >> 20} Mi characters, or its quote is open"
    return (
        "a quote closes before its field ends; a field with quotes in it stands in quotes whole, "
        'with each of its own doubled: "say ""hi"" first"'
    )
