"""Rows of JSON, Parquet and Arrow files: (where, record), or why there is none."""

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trainer.corpus import shapes
from trainer.corpus.columns import quoted
from trainer.corpus.examples import (
    NextTable,
    Notice,
    SkippedRecord,
    Unusable,
    WrittenNumber,
    json_type,
    printable,
)
from trainer.corpus.header_rows import holds_something, records_below
from trainer.corpus.shapes import Fits

TableRow = tuple[str, Any] | SkippedRecord | Notice | NextTable
_BATCH_ROWS = 256
_JSON = json.JSONDecoder(parse_float=WrittenNumber)
_FIRST_LINES = 3  # that are JSON objects: the file is no prose
_ARRAY_OF_RECORDS = re.compile(r"\s*\[\s*(\{|$)")
_ARROW_FILE = b"ARROW1"
_ARROW_STREAM = b"\xff\xff\xff\xff"


def json_lines(chunks: Iterable[str]) -> Iterator[TableRow]:
    """One record a line; blank lines are nothing. Raises Unusable for what is one JSON value, or
    records over several lines."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    each = lines(newlines.decode(chunk) for chunk in chunks)
    found = ((n, line.lstrip("\ufeff")) for n, line in enumerate(each, start=1) if line.strip())
    head = list(islice(found, 2))
    if head and head[0][1].strip() == "{":
        raise Unusable("its records stand over several lines each; write each on one line")
    if (
        head
        and _ARRAY_OF_RECORDS.match(head[0][1])
        and not (len(head) > 1 and _is_json(head[0][1]))
    ):
        raise Unusable("it is one JSON array and not JSON Lines; name it .json")
    twice = _KeysTwice()
    for number, line in chain(head, found):
        where = f"line {number}"
        try:
            record = _parsed(line, twice.at(where))
        except Unusable as refused:
            yield SkippedRecord(where, str(refused))
            continue
        if isinstance(record, dict):
            yield where, record
        else:
            yield SkippedRecord(where, f"the line is {json_type(record)}, not an object")
    yield from twice.notices()


def holds_json_lines(text: str) -> bool:
    """Whether the first lines that `text` has are objects of JSON."""
    head = list(islice(filter(str.strip, io.StringIO(text)), _FIRST_LINES))
    return bool(head) and all(line.lstrip().startswith("{") and _is_json(line) for line in head)


def json_document(chunks: Iterable[str], fits: Fits) -> Iterator[TableRow]:
    """A list of records, one record, or another of `shapes.table`; or JSON lines."""
    text = "".join(chunks)
    twice = _KeysTwice()
    try:
        data = _parsed(text, twice)
    except Unusable as refused:
        if "Extra data" in str(refused):
            yield from json_lines([text])
            return
        raise
    data, notices = shapes.table(data, fits)
    if not isinstance(data, list):
        raise Unusable(f"it is {json_type(data)}, not a list of records")
    if data and all(isinstance(row, list) for row in data):
        yield from _lists(data, fits)
    else:
        for row in _numbered(data):
            if isinstance(row, NextTable):
                yield row
            else:
                yield from ((row[0], part) for part in shapes.squad(row[1]))
    yield from notices
    yield from twice.notices()


def _numbered(data: list[Any]) -> Iterator[tuple[str, Any] | NextTable]:
    number = 0
    for record in data:
        if isinstance(record, NextTable):
            yield record
        else:
            number += 1
            yield f"record {number}", record


def _lists(data: list[list[Any]], fits: Fits) -> Iterator[TableRow]:
    """Conversations that are lists of turns; else rows, which may have a header."""
    numbered = ((f"record {number}", row) for number, row in enumerate(data, start=1))
    if all(row and all(isinstance(cell, dict) for cell in row) for row in data):
        yield from ((where, {"messages": turns}) for where, turns in numbered)
    else:
        filled = ((where, row) for where, row in numbered if any(map(holds_something, row)))
        yield from records_below(filled, fits, is_ragged=True)


def parquet(path: Path) -> Iterator[TableRow]:
    from pyarrow.parquet import ParquetFile

    with path.open("rb") as opened, ParquetFile(opened) as file:
        yield from _arrow_rows(file.iter_batches(batch_size=_BATCH_ROWS, use_threads=False))


def arrow(path: Path) -> Iterator[TableRow]:
    """An Arrow file, or the stream that `datasets` keeps and `save_to_disk` writes."""
    import pyarrow as pa

    with path.open("rb") as file:
        head = file.read(len(_ARROW_FILE))
        file.seek(0)
        if head == _ARROW_FILE:
            found = pa.ipc.open_file(file)
            yield from _arrow_rows(map(found.get_batch, range(found.num_record_batches)))
        elif head.startswith(_ARROW_STREAM):
            yield from _arrow_rows(pa.ipc.open_stream(file))
        else:
            raise Unusable("it is no readable .arrow (neither a file nor a stream of Arrow)")


def _arrow_rows(batches: Iterable[Any]) -> Iterator[TableRow]:
    number = 0
    for batch in batches:
        narrow = {field.name: field.type for field in batch.schema if _is_narrow(field.type)}
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            for record in batch.slice(start, _BATCH_ROWS).to_pylist():
                number += 1
                for name, kind in narrow.items():
                    record[name] = _as_short(record[name], kind)
                yield f"row {number}", record


def _is_narrow(kind: Any) -> bool:
    """Whether it holds numbers of fewer digits than Python's."""
    import pyarrow as pa

    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        return True
    return not pa.types.is_map(kind) and any(
        _is_narrow(kind.field(at).type) for at in range(kind.num_fields)
    )


def _as_short(value: Any, kind: Any) -> Any:
    """0.1 in 32 bits is 0.10000000149011612 in 64: with no more digits than it was stored with."""
    import numpy as np
    import pyarrow as pa

    if value is None or not _is_narrow(kind):
        return value
    if isinstance(value, dict):
        return {name: _as_short(part, kind.field(name).type) for name, part in value.items()}
    if isinstance(value, list):
        return [_as_short(part, kind.value_type) for part in value]
    narrow = np.float16 if pa.types.is_float16(kind) else np.float32
    return float(str(narrow(value)))


def _is_json(text: str) -> bool:
    try:
        _parsed(text)
    except Unusable:
        return False
    return True


class _KeysTwice:
    """Keys that an object names more than once: the last is used, as everywhere."""

    def __init__(self) -> None:
        self._names: dict[str, None] = {}
        self._first = self._where = ""

    def at(self, where: str) -> "_KeysTwice":
        """The same, for what stands there."""
        self._where = where
        return self

    def object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            self._first = self._first or self._where
            counts = Counter(name for name, _ in pairs)
            self._names |= {name: None for name, times in counts.items() if times > 1}
        return found

    def notices(self) -> Iterator[Notice]:
        if self._names:
            where = f", first {self._first}" if self._first else ""
            names = quoted(printable(name[:40]) for name in self._names)
            yield Notice(f"keys that stand in an object twice, the last is used: {names}{where}")


def _keys(value: Any) -> int:
    """How many keys all its objects have."""
    if type(value) is dict:
        return len(value) + sum(map(_keys, value.values()))
    return sum(map(_keys, value)) if type(value) is list else 0


def _parsed(text: str, twice: _KeysTwice | None = None) -> Any:
    try:
        found = _JSON.decode(text)
        if twice is not None and text.count('":') + text.count('" :') > _keys(found):
            # a key twice, or it is in a text
            json.loads(text, object_pairs_hook=twice.object)
        return found
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise Unusable(f"broken JSON ({error.msg} at {where}character {error.colno})") from None
    except RecursionError:
        raise Unusable("JSON nested too deep") from None
    except ValueError:  # a number of more than 4,300 digits
        raise Unusable("JSON with a number that is too long") from None


def lines(chunks: Iterable[str]) -> Iterator[str]:
    r"""Lines that end in \n. Not `str.splitlines`: JSON strings may hold U+2028 and the like."""
    started: list[str] = []
    for chunk in chunks:
        *whole, rest = chunk.split("\n")
        for line in whole:
            yield "".join(started) + line
            started = []
        started.append(rest)
    yield "".join(started)
