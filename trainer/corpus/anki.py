"""Cards that Anki exports as text -> records: the front of a note asks, its back answers."""

import csv
import io
import re
from collections.abc import Iterator
from html import unescape
from itertools import chain
from typing import Any

from trainer.corpus.examples import LONGEST_LINE, SkippedRecord, Unusable
from trainer.corpus.tables import lines

ANKI = "#separator:"
_SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "space": " ", "pipe": "|", "colon": ":"}
_OWN_COLUMNS = ("guid column", "notetype column", "deck column", "tags column")
_NAMES = ("question", "answer")
_CLOZE = "{{c"
_LINE_END, _TAG = (
    re.compile(r"<br ?/?>|</(?:div|p|li|tr)>", re.I),
    re.compile(r"</?[A-Za-z][^<>]*>"),
)


def anki(chunks: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]] | SkippedRecord]:
    """Notes of the file, whose first lines say what is in it. Raises Unusable."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    found = (line + "\n" for line in lines(newlines.decode(chunk) for chunk in chunks))
    said: dict[str, str] = {}
    number, first = 0, ""
    for first in found:
        if not first.startswith("#"):
            break
        name, _, value = first[1:].rstrip("\n").partition(":")
        said[name.strip().lower()] = value
        number, first = number + 1, ""
    between = said["separator"].strip()
    between = _SEPARATORS.get(between.lower(), between[:1] or "\t")
    columns = [said.get(name, "").strip() for name in _OWN_COLUMNS]
    own = {int(column) - 1 for column in columns if re.fullmatch(r"\d{1,4}", column, re.ASCII)}
    csv.field_size_limit(LONGEST_LINE)
    if between == '"':
        raise Unusable("its fields stand between quotes alone; export it with tabs")
    rows = csv.reader(chain([first] if first else [], found), delimiter=between)
    try:
        for row in rows:
            if any(map(str.strip, row)):
                yield _note(f"line {number + rows.line_num}", row, own, said)
    except csv.Error as error:
        raise Unusable(f"line {number + rows.line_num}: broken row ({error})") from None


def _note(
    where: str, row: list[str], own: set[int], said: dict[str, str]
) -> tuple[str, dict[str, Any]] | SkippedRecord:
    fields = [words for at, words in enumerate(row) if at not in own]
    if any(_CLOZE in words for words in fields):
        return SkippedRecord(where, "is a card with a gap; write it as a question with its answer")
    if said.get("html", "").strip().lower() == "true":
        fields = [_words(field) for field in fields]
    more = [f"field {number}" for number in range(len(_NAMES) + 1, len(fields) + 1)]
    return where, dict(zip((*_NAMES, *more), fields, strict=False))


def _words(field: str) -> str:
    """Of the HTML of a card; read here, and not in the child that lxml is given to, by the
    standard library."""
    return unescape(_TAG.sub("", _LINE_END.sub("\n", field))).strip()
