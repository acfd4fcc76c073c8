"""Cells of a workbook are what Excel shows, and what it hides is not read."""

import io
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from openpyxl import Workbook
from support.corpora import read_named

from trainer.corpus.worksheets import shown


def workbook(rows: list[list[Any]], change: Callable[[Any], None]) -> bytes:
    book = Workbook()
    book.active.append(["question", "answer"])
    for row in rows:
        book.active.append(row)
    change(book)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


@pytest.mark.parametrize(
    "value, number_format, words",
    [
        (datetime(2024, 5, 1), "yyyy-mm-dd", "2024-05-01"),
        (datetime(2024, 5, 1, 12), "yyyy-mm-dd h:mm", "2024-05-01T12:00:00"),
        (0.25, "0%", "25%"),
        (0.0825, "0.0%", "8.3%"),
        (1, "0 %", "100 %"),
        (-0.5, "0.00%;[Red]-0.00%", "-50.00%"),
        (123, "00000", "00123"),
        (-7, "000", "-007"),
        (timedelta(days=1, hours=12, minutes=30), "[h]:mm:ss", "36:30:00"),
        (0.25, "General", "0.25"),
        (3, "0", "3"),
        (True, "0%", "true"),
        (1234.5, '#,##0.00 "€"', "1234.50 €"),
        (5, "#,##0.00\\ [$€-407]", "5.00 €"),
        (-5.25, "[$$-409]#,##0.00", "-$5.25"),
        (-4.5, '_-* #,##0.00\\ "€"_-;-* #,##0.00', "-4.50 €"),
        (12, '0 "km"', "12 km"),
        (3.14159, "[Red]0.00", "3.14"),
        (2.5, "0.##", "2.5"),
        (0.125, "0." + 40 * "0" + "%", "12.5000000000%"),
        (1500000, '0.0,,"M"', "1500000"),
        (0.5, "# ?/?", "0.5"),
    ],
)
def test_a_cell_is_what_excel_shows(tmp_path, value, number_format, words):
    def change(book):
        book.active["B2"].number_format = number_format

    corpus = read_named(tmp_path, a_xlsx=workbook([["q", value]], change))
    assert [e.messages[-1].content for e in corpus.examples] == [words]


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e300, "0.25"])
def test_what_no_format_is_for_stays(value):
    assert shown(value, "0%") is value


def test_a_formula_that_was_never_computed_is_named(tmp_path):
    rows = [["q", "=1+1"], ["r", "b"], ["s", "c", "=A1"]]
    corpus = read_named(tmp_path, a_xlsx=workbook(rows, lambda book: None))
    assert [e.messages[-1].content for e in corpus.examples] == ["b", "c"]
    assert corpus.skipped == [
        'a.xlsx Sheet row 2: "answer" is a formula without its value '
        "(open and save the file once in Excel), not text"
    ]


def test_a_formula_whose_value_is_empty_text_is_an_empty_cell(tmp_path):
    made = zipfile.ZipFile(io.BytesIO(workbook([["q", '=""'], ["r", "b"]], lambda book: None)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as saved:
        for name in made.namelist():
            data = made.read(name)
            saved.writestr(name, data.replace(b'<c r="B2">', b'<c r="B2" t="str">'))
    corpus = read_named(tmp_path, a_xlsx=out.getvalue())
    assert corpus.skipped == ['a.xlsx Sheet row 2: "answer" is null, not text']


def test_hidden_sheets_and_rows_are_not_read_and_told(tmp_path):
    def change(book):
        book.active.row_dimensions[3].hidden = True
        book.active.row_dimensions[9].hidden = True
        draft = book.create_sheet("Draft")
        draft.append(["question", "answer"])
        draft.append(["old", "old"])
        draft.sheet_state = "hidden"

    corpus = read_named(tmp_path, a_xlsx=workbook([["q", "a"], ["no", "no"], ["r", "b"]], change))
    assert [e.messages[-1].content for e in corpus.examples] == ["a", "b"]
    assert corpus.notices == [
        "a.xlsx: sheet Sheet: hidden rows, which are not used: 1",
        "a.xlsx: sheet Draft: it is hidden and is not used",
    ]


def test_an_error_of_excel_is_no_answer(tmp_path):
    rows = [["q", "#N/A"], ["r", "b"], ["s", "#REF!"]]
    corpus = read_named(tmp_path, a_xlsx=workbook(rows, lambda book: None))
    assert [e.messages[-1].content for e in corpus.examples] == ["b"]
    assert corpus.skipped == [
        f'a.xlsx Sheet row {row}: "answer" is an error of Excel ({shown}), not text'
        for row, shown in ((2, "#N/A"), (4, "#REF!"))
    ]
