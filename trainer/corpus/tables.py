"""Rows of JSON, CSV and Parquet files: (where, record), or why there is none."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trainer.corpus.decoding import LONGEST_LINE
from trainer.corpus.examples import SkippedRecord, Unusable, json_type

TableRow = tuple[str, Any] | SkippedRecord

_DELIMITERS = ",;\t|"
_PARQUET_ROWS = 256


def json_lines(chunks: Iterable[str]) -> Iterator[TableRow]:
    """One record a line; blank lines are nothing."""
    for number, line in enumerate(_lines(chunks), start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            record = _parsed(line)
        except Unusable as refused:
            yield SkippedRecord(where, str(refused))
            continue
        if isinstance(record, dict):
            yield where, record
        else:
            yield SkippedRecord(where, f"the line is {json_type(record)}, not an object")


def json_document(chunks: Iterable[str]) -> Iterator[TableRow]:
    """A list of records, one record, or an object whose only list holds them; or JSON lines."""
    text = "".join(chunks)
    try:
        data = _parsed(text)
    except Unusable as refused:
        if "Extra data" in str(refused):
            yield from json_lines([text])
            return
        raise
    if isinstance(data, dict):
        lists = [value for value in data.values() if _is_table(value)]
        data = lists[0] if len(lists) == 1 and "messages" not in data else [data]
    if not isinstance(data, list):
        raise Unusable(f"it is {json_type(data)}, not a list of records")
    yield from ((f"record {number}", record) for number, record in enumerate(data, start=1))


def delimited(chunks: Iterable[str], delimiter: str | None = None) -> Iterator[TableRow]:
    """Rows below a header. Without a `delimiter` it is the likeliest one of the header.

    Every value is text, also NA, null and 007.
    """
    csv.field_size_limit(LONGEST_LINE)
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    lines = (line + "\n" for line in _lines(newlines.decode(chunk) for chunk in chunks))
    first = next((line for line in lines if line.strip()), "")
    if not first:
        return
    chosen = delimiter or max(_DELIMITERS, key=first.count)
    rows = csv.reader(_again(first, lines), delimiter=chosen, strict=True)
    header: list[str] | None = None
    line = 1
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise Unusable(f"line {line}: {_csv_fault(error)}") from None
        if row is None:
            return
        where, line = f"line {line}", rows.line_num + 1
        if not any(row):
            continue
        if header is None:
            header = _header(row)
        elif len(row) != len(header):
            yield SkippedRecord(where, f"has {len(row)} fields and the header has {len(header)}")
        else:
            yield where, dict(zip(header, row, strict=True))


def parquet(path: Path) -> Iterator[TableRow]:
    from pyarrow.parquet import ParquetFile

    number = 0
    with ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS, use_threads=False):
            for record in batch.to_pylist():
                number += 1
                yield f"row {number}", record


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise Unusable(f"broken JSON ({error.msg} at {where}character {error.colno})") from None
    except RecursionError:
        raise Unusable("JSON nested too deep") from None
    except ValueError:  # a number of more than 4,300 digits
        raise Unusable("JSON with a number that is too long") from None


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    r"""Lines that end in \n. Not `str.splitlines`: JSON strings may hold U+2028 and the like."""
    started: list[str] = []
    for chunk in chunks:
        *whole, rest = chunk.split("\n")
        for line in whole:
            yield "".join(started) + line
            started = []
        started.append(rest)
    yield "".join(started)


def _again(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _header(row: list[str]) -> list[str]:
    names = [name.strip() for name in row]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Unusable(f"the header names {twice[0][:40]!r} twice; rename one of the columns")
    return names


def _csv_fault(error: csv.Error) -> str:
    if "unexpected end of data" in str(error):
        return "a quote that opens here is never closed"
    if "field limit" in str(error):
        return f"a field is longer than {LONGEST_LINE >> 20} Mi characters, or its quote is open"
    return f"broken row ({error})"
