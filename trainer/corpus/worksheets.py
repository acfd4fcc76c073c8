"""The rows of a worksheet, each value as Excel shows it: what is hidden there is not read."""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from openpyxl.cell.read_only import ReadOnlyCell
from openpyxl.utils.escape import unescape
from openpyxl.worksheet._reader import (
    FORMULA_TAG,
    VALUE_TAG,
    WorkSheetParser,
)

from trainer.corpus.examples import CellError, UnsavedFormula

_PERCENT = re.compile(r"[#,]*0(?:\.(0+))?( ?)%")
_PADDED = re.compile(r"0{2,}")
_COLOUR = re.compile(r"\[[A-Za-z]+\d*\]")
_WORDS = r'(?:"[^"]*"|\\.|\[\$[^]]*\]|[-+$€£¥ ()]|_.|\*.)*'
_NUMBER = re.compile(rf"({_WORDS})[#,]*[0#](?:\.([0#]+))?({_WORDS})")
_WORD = re.compile(r'"([^"]*)"|\\(.)|\[\$([^]-]*)[^]]*\]|_(.)|\*.|(.)')
_MOST_SHOWN = 1e15  # digits that Excel has
_MOST_PLACES = 10  # of Decimal's 28 digits


class Worksheet:
    """One sheet of a workbook that was loaded `read_only` and `data_only`. After its rows were
    taken `hidden_rows` is how many of them hold something and are hidden."""

    def __init__(self, sheet: Any) -> None:
        self.title: str = sheet.title
        self.is_hidden: bool = sheet.sheet_state != "visible"
        self.hidden_rows = 0
        self._sheet = sheet

    def rows(self) -> Iterator[tuple[int, Sequence[Any]]]:
        """(number of the row, its values), the first column first."""
        book = self._sheet.parent
        with self._sheet._get_source() as source:
            parser = _Parser(
                source,
                self._sheet._shared_strings,
                data_only=True,
                epoch=book.epoch,
                date_formats=book._date_formats,
                timedelta_formats=book._timedelta_formats,
            )
            parser.sheet = self._sheet
            parser.formats = {}
            parser.hidden = 0
            for number, cells in parser.parse():
                self.hidden_rows = parser.hidden
                yield number, self._sheet._get_row(cells, values_only=True)
            self.hidden_rows = parser.hidden


class _Parser(WorkSheetParser):  # type: ignore[misc]
    """openpyxl's, which knows of each cell its style, and whether a formula has a value."""

    sheet: Any
    formats: dict[int, str]
    hidden: int

    def parse_row(self, row: Any) -> tuple[int, list[dict[str, Any]]]:
        number, cells = super().parse_row(row)
        self.row_dimensions.clear()  # nobody asks for them, and there is one for each row
        if row.get("hidden") in ("1", "true"):
            self.hidden += any(cell["value"] is not None for cell in cells)
            return number, []
        return number, cells

    def parse_cell(self, element: Any) -> dict[str, Any]:
        cell: dict[str, Any] = super().parse_cell(element)
        if isinstance(cell["value"], str):
            cell["value"] = unescape(cell["value"])  # of _x000D_ and the like
        if cell["data_type"] == "e" and cell["value"] is not None:
            cell["value"] = CellError(str(cell["value"]))
        elif cell["value"] is None:
            if element.find(FORMULA_TAG) is not None and _has_no_value(element):
                cell["value"] = UnsavedFormula()
        elif cell["data_type"] in ("n", "d"):
            style = cell["style_id"]
            if style not in self.formats:
                self.formats[style] = ReadOnlyCell(self.sheet, 1, 1, None, "n", style).number_format
            cell["value"] = shown(cell["value"], self.formats[style])
        return cell


def shown(value: Any, number_format: str) -> Any:
    """`value` as text where Excel shows it otherwise than as_text does: percentages, padded
    numbers, currencies and units, places and durations; and a date without its midnight."""
    if isinstance(value, datetime):
        return value.date() if value.time() == time() else value
    if isinstance(value, timedelta):
        return _duration(value)
    if not isinstance(value, int | float) or not abs(value) < _MOST_SHOWN:
        return value
    positive = number_format.partition(";")[0]
    if percent := _PERCENT.fullmatch(positive):
        places, space = len(percent[1] or ""), percent[2]
        return f"{_rounded(Decimal(str(value)) * 100, places)}{space}%"
    if _PADDED.fullmatch(positive):
        digits = str(_rounded(Decimal(str(abs(value))), 0)).zfill(len(positive))
        return f"-{digits}" if value < 0 else digits
    if number := _NUMBER.fullmatch(_COLOUR.sub("", positive)):
        return _with_words(value, *number.groups(default=""))
    return value


def _with_words(value: int | float, before: str, places: str, behind: str) -> Any:
    before, behind = _words(before).lstrip(), _words(behind).rstrip()
    if not before and not behind and not places:
        return value
    digits = f"{_rounded(abs(Decimal(str(value))), len(places)):f}"
    for _ in range(len(places) - len(places.rstrip("#"))):
        digits = digits.removesuffix("0")
    return f"{'-' if value < 0 else ''}{before}{digits.rstrip('.')}{behind}"


def _words(form: str) -> str:
    """What a format writes beside the digits: "€" of `[$€-407]`, a space of `_)`."""
    parts = (word.groups() for word in _WORD.finditer(form))
    return "".join(
        quoted or escaped or money or (" " if as_wide_as else plain or "")
        for quoted, escaped, money, as_wide_as, plain in parts
    )


def _rounded(value: Decimal, places: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-min(places, _MOST_PLACES)), ROUND_HALF_UP)


def _duration(value: timedelta) -> str:
    """36:30:00 for a day and a half and 30 minutes."""
    seconds = round(abs(value.total_seconds()))
    sign = "-" if value < timedelta() else ""
    return f"{sign}{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _has_no_value(element: Any) -> bool:
    """Empty text, which a formula may give, is a value."""
    return element.find(VALUE_TAG) is None or element.get("t") != "str"
