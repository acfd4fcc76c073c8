"""One file -> its examples, by the suffixes of its name: `FILE_TYPES` has an entry for each."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from trainer.corpus import decoding, spreadsheets, tables, turn_rows
from trainer.corpus.anki import ANKI, anki
from trainer.corpus.columns import Columns, fits
from trainer.corpus.damage import LIBRARIES as REPAIRING
from trainer.corpus.damage import Damage
from trainer.corpus.decoding import (
    COMPRESSED,
    RawFile,
    declared_charset,
    decoded,
    encoding_of,
    page_text,
    refuse_pointer,
)
from trainer.corpus.docx import docx
from trainer.corpus.epub import epub
from trainer.corpus.examples import (
    Conversation,
    Item,
    Notice,
    NotTrained,
    SkippedRecord,
    Text,
    Unusable,
    as_unusable,
    printable,
)
from trainer.corpus.faq_headings import questions_in_headings
from trainer.corpus.faq_page import faq_in_page, unsaid
from trainer.corpus.headings import rst_headings
from trainer.corpus.html import html
from trainer.corpus.pdf import pdf
from trainer.corpus.prose import document, is_tabbed, markdown, names_columns, prose
from trainer.corpus.records import NO_CHOICE, NUMBERED, Records
from trainer.corpus.shapes import Fits
from trainer.corpus.slides import pptx
from trainer.runtime.wording import counted

_QUOTED_COLUMNS = 8


@dataclass(frozen=True)
class FileType:
    """How files of one suffix become items: from their decoded text, or by a library from disk.

    What is read as text may also be compressed. One that `is_harmless` is read by the standard
    library, a piece at a time: nothing in it can take this process down. One that `is_prose` holds
    no records. `libraries` are the distributions whose version may change what a file reads as;
    `declared` says which encoding the first bytes of a file name.
    """

    from_text: Callable[[Iterator[str], Columns], Iterator[Item]] | None = None
    from_file: Callable[[Path, Columns], Iterator[Item]] | None = None
    is_harmless: bool = False
    is_prose: bool = False
    declared: Callable[[bytes], str] | None = None
    libraries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """What the suffixes of a name say: `.jsonl.gz` is (".jsonl", ".gz")."""

    suffix: str
    compression: str = ""

    @property
    def is_accepted(self) -> bool:
        found = FILE_TYPES.get(self.suffix)
        return found is not None and (not self.compression or found.from_text is not None)

    @property
    def is_prose(self) -> bool:
        return self.is_accepted and FILE_TYPES[self.suffix].is_prose

    @property
    def needs_limits(self) -> bool:
        return bool(self.compression) or not FILE_TYPES[self.suffix].is_harmless

    def __str__(self) -> str:
        return self.suffix + self.compression


def format_of(name: str) -> Format:
    path = PurePosixPath(name.lower())
    if path.suffix in COMPRESSED:
        return Format(PurePosixPath(path.stem).suffix, path.suffix)
    return Format(path.suffix)


def kind_of(name: str) -> str:
    """What a file of this name is called among others: `.jsonl.gz`."""
    return str(format_of(name)) or "no suffix"


def read(path: Path, form: Format, columns: Columns) -> Iterator[Item]:
    """The items of one file. Raises Unusable, also late: then none of its items counts."""
    found = Damage()
    try:
        yield from map(found.item, _as_it_stands(path, form, columns, found))
        yield from found.notices()
    except Unusable:
        raise
    except Exception as error:
        raise as_unusable(error, str(form)) from error


def _as_it_stands(path: Path, form: Format, columns: Columns, damage: Damage) -> Iterator[Item]:
    file_type = FILE_TYPES[form.suffix]
    if file_type.from_file is not None:
        with path.open("rb") as file:
            refuse_pointer(file.read(64))
        yield from file_type.from_file(path, columns)
    if file_type.from_text is not None:
        raw = RawFile(path, form.compression)
        encoding = encoding_of(raw, file_type.declared)
        if encoding.notice:
            yield Notice(encoding.notice)
        text = decoded(raw, encoding)
        text = damage.looked_at(text) if file_type.is_harmless else text  # no entities of HTML
        yield from file_type.from_text(text, columns)


# -- documents ----------------------------------------------------------------------------


def _rst(chunks: Iterator[str], columns: Columns) -> Iterator[Item]:
    return prose(rst_headings, chunks)


def _markdown(chunks: Iterator[str], columns: Columns) -> Iterator[Item]:
    for found in markdown(chunks):
        if isinstance(found, Notice):
            yield found
        else:
            yield from _document_or_questions(found)


def _document_or_questions(found: Text) -> Iterator[Item]:
    records, left = questions_in_headings(found)
    if records:
        amount = counted(len(records), "question")
        yield Notice(
            "headings that ask something are questions, what is below is the answer", amount
        )
        yield from _questions(records)
        if left:
            yield document(left)
    else:
        yield found


def _plain_text(chunks: Iterator[str], columns: Columns) -> Iterator[Item]:
    """A document; or a table, as spreadsheets and flash cards are saved as text."""
    head = next(chunks, "")
    whole = chain([head], chunks)
    if head.startswith(ANKI):
        yield from _records(anki(whole), columns)
    elif names_columns(head, columns):
        yield Notice("its first line names the columns of a table, and it is read as one")
        rows = spreadsheets.delimited(whole, partial(_can_be_read, columns=columns))
        yield from _records(rows, columns)
    else:
        if is_tabbed(head):
            yield Notice(
                "each of its lines has the same number of tabs, and it is trained as prose; for "
                "records name it .tsv, with a first line that names the columns"
            )
        yield from prose(lambda text: (), whole)


def _web_page(chunks: Iterator[str], columns: Columns) -> Iterator[Item]:
    page = "".join(chunks)
    found = list(faq_in_page(page))
    yield from (notice for notice in found if isinstance(notice, Notice))
    records = [record for record in found if not isinstance(record, Notice)]
    asked = [record for record in records if record["answers"]]
    if len(asked) < len(records):
        left = len(records) - len(asked)
        yield Notice(f"questions of pages without an accepted answer, read as prose: {left:,}")
    if asked:
        yield from _questions(asked)
    with suppress(Unusable) if asked else nullcontext():
        words, left_out = html(page)
        yield from left_out
        yield document(unsaid(words, asked))


def _book(path: Path, columns: Columns) -> Iterator[Item]:
    """The chapters that hold words: a cover may hold none."""
    chapters = []
    for page in epub(path):
        with suppress(Unusable):
            words, left_out = html(page_text(page))
            chapters.append(words)
            yield from left_out
    yield document("\n\n".join(chapters))


def _pages(
    pages: Callable[[Path], Iterable[str | Notice]], path: Path, columns: Columns
) -> Iterator[Item]:
    found = []
    for part in pages(path):
        if isinstance(part, Notice):
            yield part
        else:
            found.append(part)
    yield document("".join(found))


# -- records ------------------------------------------------------------------------------


def _table(
    rows: Callable[[Iterator[str]], Iterator[tables.TableRow]],
    chunks: Iterator[str],
    columns: Columns,
) -> Iterator[Item]:
    return _records(rows(chunks), columns)


def _table_of_names(
    rows: Callable[[Any, Fits], Iterator[tables.TableRow]], source: Any, columns: Columns
) -> Iterator[Item]:
    """One whose `rows` ask which columns can be read."""

    return _records(rows(source, partial(_can_be_read, columns=columns)), columns)


def _can_be_read(names: Iterable[str], columns: Columns) -> bool:
    known = list(names)
    return fits(known, columns) or turn_rows.turn_columns(known, columns) is not None


def _binary_table(
    rows: Callable[[Path], Iterator[tables.TableRow]], path: Path, columns: Columns
) -> Iterator[Item]:
    return _records(rows(path), columns)


def _questions(found: Iterable[dict[str, Any]]) -> Iterator[Item]:
    """Of a document, by the names that records of questions and answers have."""
    numbered = enumerate(found, start=1)
    return _records(((f"question {n}", record) for n, record in numbered), Columns())


def _records(rows: Iterable[tables.TableRow], columns: Columns) -> Iterator[Item]:
    is_empty = True
    records = Records(columns)
    untrained: dict[str, tuple[int, str]] = {}
    is_used = False
    for row in turn_rows.joined(rows, columns):
        if isinstance(row, Notice):
            yield row
            continue
        is_empty = False
        if isinstance(row, SkippedRecord):
            yield row
            continue
        where, record = row
        try:
            example = records.example(record)
            if isinstance(example, Conversation):
                example = replace(example, where=where)
            yield example
            is_used = True
        except NotTrained as said:
            count, first = untrained.get(str(said), (0, where))
            untrained[str(said)] = count + 1, first
        except Exception as error:
            yield SkippedRecord(where, str(as_unusable(error, "record")))
            is_used = True
    if is_empty:
        raise Unusable("it holds no records")
    if untrained and not is_used:
        raise Unusable(f"it holds nothing but {' and '.join(untrained)}")
    if records.counts.pop(NO_CHOICE, 0) and records.counts[NUMBERED]:
        raise Unusable(
            "some of its answers are numbers that no choice has; if they count from 1, write the "
            "letters or the words of the choices"
        )
    for what, (count, first) in untrained.items():
        yield Notice(f"{what} are left out: {count:,}, first {first}")
    for what, count in records.counts.items():
        yield Notice(f"{what}: {count:,}")
    if records.unused:
        yield Notice(f"not used: {_listed(records.unused)}")
    for role in sorted(records.missing):
        name = printable(getattr(columns, role)[:40])
        yield Notice(f"no record has {name}, the column that QLORA_{role.upper()}_COLUMN names")


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    more = len(known) - _QUOTED_COLUMNS
    shown = ", ".join(known[:_QUOTED_COLUMNS]) + (f" and {more} more" if more > 0 else "")
    return f"column{'s' * (len(known) > 1)} {shown}"


# -- every format -------------------------------------------------------------------------

_HTML = FileType(from_text=_web_page, is_prose=True, declared=declared_charset, libraries=("lxml",))

FILE_TYPES = {
    ".txt": FileType(_plain_text, is_harmless=True, is_prose=True),
    ".md": FileType(_markdown, is_harmless=True, is_prose=True),
    ".rst": FileType(_rst, is_harmless=True, is_prose=True),
    ".html": _HTML,
    ".htm": _HTML,
    ".xhtml": _HTML,
    ".jsonl": FileType(partial(_table, tables.json_lines), is_harmless=True),
    ".ndjson": FileType(partial(_table, tables.json_lines), is_harmless=True),
    ".json": FileType(partial(_table_of_names, tables.json_document)),
    ".csv": FileType(partial(_table_of_names, spreadsheets.delimited), is_harmless=True),
    ".tsv": FileType(
        partial(_table_of_names, partial(spreadsheets.delimited, delimiter="\t")), is_harmless=True
    ),
    ".xlsx": FileType(
        from_file=partial(_table_of_names, spreadsheets.xlsx), libraries=("openpyxl",)
    ),
    ".pdf": FileType(from_file=partial(_pages, pdf), is_prose=True, libraries=("pypdfium2",)),
    ".docx": FileType(from_file=partial(_pages, docx), is_prose=True, libraries=("lxml",)),
    ".pptx": FileType(from_file=partial(_pages, pptx), is_prose=True, libraries=("lxml",)),
    ".epub": FileType(from_file=_book, is_prose=True, libraries=("lxml",)),
    ".parquet": FileType(from_file=partial(_binary_table, tables.parquet), libraries=("pyarrow",)),
    ".arrow": FileType(from_file=partial(_binary_table, tables.arrow), libraries=("pyarrow",)),
}
SUFFIXES = tuple(FILE_TYPES)
LIBRARIES = tuple(
    sorted(
        {name for kind in FILE_TYPES.values() for name in kind.libraries}
        | {*decoding.LIBRARIES, *REPAIRING}
    )
)
"""Distributions whose version may change what some file reads as."""
