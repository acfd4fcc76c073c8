"""Small files of every format, made on the spot: sound ones, which tests then damage."""

import gzip
import io
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import zstandard

PAGE_BYTES = b"BT /F1 12 Tf 72 720 Td (%s) Tj ET"


def jsonl(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def pdf(*pages: str, trailer: bytes = b"") -> bytes:
    """One line of text a page; an empty one has no text, as a scanned page."""
    contents = [PAGE_BYTES % page.encode("latin-1") if page else b"q Q" for page in pages]
    return pdf_of(contents, trailer=trailer)


def pdf_of(
    contents: Sequence[bytes], trailer: bytes = b"", stream: bytes = b"", extra: bytes = b""
) -> bytes:
    """A PDF whose pages have these content streams; `stream` joins each stream's dictionary, and
    `extra` is a stream of its own."""
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
    if extra:
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(extra), extra))
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


def pdf_with_map(letters: dict[str, str], shown: str) -> bytes:
    """A page of `shown`, whose font says that each letter means what `letters` has for it."""
    entries = b"".join(
        b"<%02X> <%s>\n" % (ord(key), value.encode("utf-16-be").hex().encode())
        for key, value in letters.items()
    )
    cmap = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapType 2 def\n"
        b"1 begincodespacerange <00> <FF> endcodespacerange\n%d beginbfchar\n%sendbfchar\n"
        b"endcmap end end" % (len(letters), entries)
    )
    plain = pdf_of([PAGE_BYTES % shown.encode()], extra=cmap)
    return plain.replace(b"/BaseFont /Helvetica", b"/BaseFont /Helvetica /ToUnicode 6 0 R")


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


def word(body: str, *, styles: str = "", **parts: str) -> bytes:
    """A Word file of this XML; `w:` and `m:` are bound. `parts` are others, such as footnotes."""
    names = (
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main" '
        'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
        'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    )
    found = {"styles": f"<w:styles {names}>{styles}</w:styles>"} | {
        kind: f"<w:{kind} {names}>{content}</w:{kind}>" for kind, content in parts.items()
    }
    return zipped(
        {
            "_rels/.rels": relationships({"officeDocument": "word/document.xml"}),
            "word/document.xml": f"<w:document {names}><w:body>{body}</w:body></w:document>",
            "word/_rels/document.xml.rels": relationships({k: f"{k}.xml" for k in found}),
            **{f"word/{kind}.xml": content for kind, content in found.items()},
        }
    )


def pptx(*slides: tuple[str, str], shapes: str = "") -> bytes:
    """(title, text) of each slide, then `shapes` on the first."""
    drawing = "http://schemas.openxmlformats.org/drawingml/2006/main"
    main = "http://schemas.openxmlformats.org/presentationml/2006/main"
    names = f'xmlns:a="{drawing}" xmlns:p="{main}" xmlns:r="urn:officeDocument/relationships"'

    def shape(words: str, kind: str) -> str:
        lines = "".join(f"<a:p><a:r><a:t>{line}</a:t></a:r></a:p>" for line in words.split("\n"))
        place = f'<p:nvSpPr><p:nvPr><p:ph type="{kind}"/></p:nvPr></p:nvSpPr>'
        return f"<p:sp>{place}<p:txBody>{lines}</p:txBody></p:sp>"

    ids = "".join(f'<p:sldId id="{256 + n}" r:id="slide{n}"/>' for n in range(len(slides)))
    parts = {
        "_rels/.rels": relationships({"officeDocument": "ppt/presentation.xml"}),
        "ppt/presentation.xml": f"<p:presentation {names}><p:sldIdLst>{ids}</p:sldIdLst>"
        "</p:presentation>",
        "ppt/_rels/presentation.xml.rels": relationships(
            {f"slide{n}": f"slides/{n}.xml" for n in range(len(slides))}
        ),
    }
    for n, (title, words) in enumerate(slides):
        tree = shape(words, "body") + shape(title, "title") + shape("7", "sldNum")
        tree += shapes if n == 0 else ""
        parts[f"ppt/slides/{n}.xml"] = f"<p:sld {names}><p:cSld>{tree}</p:cSld></p:sld>"
    return zipped(parts)


def epub(*pages: str, locked: str = "") -> bytes:
    """The bodies of its pages, which are listed before they are in order; `locked` is a part."""
    items = "".join(
        f'<item id="p{n}" href="p%20{n}.xhtml" media-type="application/xhtml+xml"/>'
        for n in reversed(range(len(pages)))
    )
    spine = "".join(f'<itemref idref="p{n}"/>' for n in range(len(pages)))
    parts = {
        "META-INF/container.xml": '<container><rootfile full-path="OPS/a.opf"/></container>',
        "OPS/a.opf": f"<package><manifest>{items}</manifest><spine>{spine}</spine></package>",
    }
    for n, page in enumerate(pages):
        parts[f"OPS/p {n}.xhtml"] = f"<html><body>{page}</body></html>"
    if locked:
        parts["META-INF/encryption.xml"] = (
            f'<encryption><CipherReference URI="{locked}"/></encryption>'
        )
    return zipped(parts)


def relationships(targets: dict[str, str]) -> str:
    """The parts that another one names, by their kinds, which are their ids too."""
    found = "".join(
        f'<Relationship Id="{kind}" Type="urn:relationships/{kind}" Target="{target}"/>'
        for kind, target in targets.items()
    )
    name = "http://schemas.openxmlformats.org/package/2006/relationships"
    return f'<Relationships xmlns="{name}">{found}</Relationships>'


def zipped(parts: Mapping[str, str | bytes]) -> bytes:
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return out.getvalue()


def unzipped(archive: bytes) -> dict[str, str | bytes]:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        return {name: found.read(name) for name in found.namelist()}


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
