"""Small files of every format, made on the spot: sound ones, which tests then damage."""

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import zstandard

PAGE_BYTES = b"BT /F1 12 Tf 72 720 Td (%s) Tj ET"


def jsonl(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def pdf(*pages: str, trailer: bytes = b"") -> bytes:
    """One line of text a page; an empty one has no text, as a scanned page."""
    contents = [PAGE_BYTES % page.encode("latin-1") if page else b"q Q" for page in pages]
    return pdf_of(contents, trailer=trailer)


def pdf_of(contents: Sequence[bytes], trailer: bytes = b"", stream: bytes = b"") -> bytes:
    """A PDF whose pages have these content streams; `stream` joins each stream's dictionary."""
    kids = b" ".join(b"%d 0 R" % (4 + 2 * n) for n in range(len(contents)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(contents)),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, content in enumerate(contents):
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (5 + 2 * n)
        )
        objects.append(
            b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), stream, content)
        )
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    out.write(b"trailer << /Size %d /Root 1 0 R %s >>\n" % (size, trailer))
    out.write(b"startxref\n%d\n%%%%EOF" % start)
    return out.getvalue()


def pdf_bomb(mebibytes: int) -> bytes:
    """A page whose content unpacks to `mebibytes` of text operators."""
    body = PAGE_BYTES % b"bomb" + b" " + b"(aaaaaaaaaaaa) Tj " * (mebibytes << 16)
    return pdf_of([zlib.compress(body, 9)], stream=b"/Filter /FlateDecode")


def locked_pdf(text: str, password: str) -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(PdfReader(io.BytesIO(pdf(text))))
    writer.encrypt(password, algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def docx(*parts: tuple[str, str], rows: Sequence[Sequence[str]] = ()) -> bytes:
    """(style, text) paragraphs, then one table."""
    from docx import Document

    document = Document()
    for style, text in parts:
        document.add_paragraph(text, style=style)
    if rows:
        table = document.add_table(len(rows), len(rows[0]))
        for row, values in zip(table.rows, rows, strict=True):
            for cell, value in zip(row.cells, values, strict=True):
                cell.text = value
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def docx_with(name: str, content: bytes) -> bytes:
    """A Word file whose part `name` is `content`."""
    import zipfile

    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(docx(("Normal", "a")))) as sound,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as changed,
    ):
        for part in sound.namelist():
            changed.writestr(part, content if part == name else sound.read(part))
    return out.getvalue()


def parquet(records: Iterable[dict[str, Any]], **options: Any) -> bytes:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    out = io.BytesIO()
    write_table(pa.Table.from_pylist(list(records)), out, **options)
    return out.getvalue()


def arrow(records: Iterable[dict[str, Any]], *, is_stream: bool = True) -> bytes:
    """The stream that `datasets` keeps, or an Arrow file."""
    import pyarrow as pa

    table = pa.Table.from_pylist(list(records))
    out = io.BytesIO()
    with (pa.ipc.new_stream if is_stream else pa.ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def xlsx(*sheets: Sequence[Sequence[Any]]) -> bytes:
    """A workbook of one sheet for each list of rows."""
    from openpyxl import Workbook

    book = Workbook()
    for number, rows in enumerate(sheets):
        sheet = book.worksheets[0] if number == 0 else book.create_sheet()
        for row in rows:
            sheet.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def gz(data: bytes) -> bytes:
    return gzip.compress(data, 9, mtime=0)


def zst(data: bytes) -> bytes:
    return zstandard.compress(data, 3)
