"""One file -> its examples, by the suffixes of its name."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainer.corpus import documents, tables
from trainer.corpus.decoding import PACKED, Encoding, Raw, decoded, encoding_of
from trainer.corpus.examples import Heading, Item, Notice, Refused, Text, Unusable, worded
from trainer.corpus.headings import markdown_headings, rst_headings
from trainer.corpus.records import Columns, example_of

# A text file that is longer becomes several documents.
LONGEST_DOCUMENT = 4 << 20  # characters

Outline = Callable[[str], tuple[Heading, ...]]

_OUTLINES: dict[str, Outline] = {
    ".txt": lambda text: (),
    ".md": markdown_headings,
    ".rst": rst_headings,
}
_ROWS: dict[str, Callable[[Iterator[str]], Iterator[tables.Row]]] = {
    ".jsonl": tables.json_lines,
    ".json": tables.json_document,
    ".csv": tables.delimited,
    ".tsv": lambda chunks: tables.delimited(chunks, "\t"),
}
_PAGES: dict[str, Callable[[Path], Iterator[str]]] = {
    ".pdf": documents.pdf,
    ".docx": documents.docx,
}
_HTML = (".html", ".htm")

PACKABLE = (*_OUTLINES, *_HTML, *_ROWS)
SUFFIXES = (*PACKABLE, *_PAGES, ".parquet")
# Read by the standard library, a piece at a time: nothing in them can take this process down.
_HARMLESS = (".txt", ".md", ".rst", ".jsonl", ".csv", ".tsv")


@dataclass(frozen=True)
class Format:
    """What the suffixes of a name say: `.jsonl.gz` is (".jsonl", ".gz")."""

    suffix: str
    packing: str = ""

    @property
    def is_accepted(self) -> bool:
        return self.suffix in (PACKABLE if self.packing else SUFFIXES)

    @property
    def needs_limits(self) -> bool:
        return bool(self.packing) or self.suffix not in _HARMLESS

    def __str__(self) -> str:
        return self.suffix + self.packing


def format_of(name: str) -> Format:
    path = PurePosixPath(name.lower())
    if path.suffix in PACKED:
        return Format(PurePosixPath(path.stem).suffix, path.suffix)
    return Format(path.suffix)


def read(path: Path, form: Format, columns: Columns) -> Iterator[Item]:
    """The items of one file. Raises Unusable, also late: then none of its items counts."""
    if form.suffix in _PAGES:
        yield _document("".join(_PAGES[form.suffix](path)), markdown_headings)
        return
    if form.suffix == ".parquet":
        yield from _records(tables.parquet(path), columns)
        return
    raw = Raw(path, form.packing)
    encoding = encoding_of(raw)
    if encoding.notice:
        yield Notice(encoding.notice)
    yield from _text_items(raw, encoding, form.suffix, columns)


def _text_items(raw: Raw, encoding: Encoding, suffix: str, columns: Columns) -> Iterator[Item]:
    chunks = decoded(raw, encoding)
    if suffix in _ROWS:
        yield from _records(_ROWS[suffix](chunks), columns)
    elif suffix in _HTML:
        yield _document(documents.html("".join(chunks)), markdown_headings)
    else:
        yield from _documents(chunks, _OUTLINES[suffix])


def _document(text: str, outline: Outline) -> Text:
    text = worded(text.replace("\r\n", "\n").replace("\r", "\n"), "the file")
    if not _has_words(text):
        raise Unusable("it holds no words")
    return Text(text, outline(text))


def _documents(chunks: Iterator[str], outline: Outline) -> Iterator[Text]:
    """One document, or several where it is so long that it is better not held in memory."""
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    waiting: list[str] = []
    is_first = True
    for chunk in chunks:
        waiting.append(newlines.decode(chunk))
        if sum(map(len, waiting)) > LONGEST_DOCUMENT:
            text = "".join(waiting)
            end = _last_paragraph(text)
            waiting = [text[end:]]
            if _has_words(text[:end]):
                yield _document(text[:end], outline)
                is_first = False
    text = "".join(waiting) + newlines.decode("", final=True)
    if is_first or _has_words(text):
        yield _document(text, outline)


def _has_words(text: str) -> bool:
    return any(map(str.isalpha, text))


def _last_paragraph(text: str) -> int:
    """The last place behind a paragraph, else a line, else a word, else the end."""
    for mark in ("\n\n", "\n", " "):
        found = text.rfind(mark, len(text) // 2)
        if found >= 0:
            return found + len(mark)
    return len(text)


def _records(rows: Iterator[tables.Row], columns: Columns) -> Iterator[Item]:
    is_empty = True
    for row in rows:
        is_empty = False
        if isinstance(row, Refused):
            yield row
            continue
        where, record = row
        try:
            yield example_of(record, columns)
        except Unusable as refused:
            yield Refused(where, str(refused))
    if is_empty:
        raise Unusable("it holds no records")
