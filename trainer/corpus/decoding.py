"""Bytes -> text: decompressed, then decoded by byte-order mark, as UTF-8, or by detection."""

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.corpus.alphabets import WESTERN, code_page
from trainer.corpus.examples import LONGEST_LINE, Unusable

if TYPE_CHECKING:
    from charset_normalizer import CharsetMatches

COMPRESSED = (".gz", ".zst")
# What a compressed file may become. Text shrinks to a tenth or, repetitive logs, to a hundredth.
MOST_RATIO = 200
ALWAYS_ALLOWED_BYTES = 16 << 20

_CHUNK_BYTES = 1 << 20
_ZSTD_INPUT_BYTES = 1 << 10  # an RLE block turns four bytes into 128 KiB
_SAMPLE_BYTES = 1 << 18
_BOMS = (  # that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UNPACK = "unpack or rename it"
_MAGIC = (  # what it is, and what to do
    (b"PK\x03\x04", "a ZIP archive or office document", _UNPACK),
    (b"%PDF-", "a PDF", _UNPACK),
    (b"\x1f\x8b", "gzip data", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "zstd data", _UNPACK),
    (b"PAR1", "Parquet", _UNPACK),
    (b"\x7fELF", "a program", "remove it"),
    (b"\x89PNG", "an image", "remove it"),
    (b"\xff\xd8\xff", "an image", "remove it"),
    (b"GIF8", "an image", "remove it"),
    (b"{\\rtf", "RTF, as word processors write it,", "save it as .docx or as plain text"),
    (b"\xd0\xcf\x11\xe0", "an old office document", "save it as .docx, .xlsx or .pptx"),
    (b"SQLite format 3\0", "an SQLite database", "export its table as .csv"),
    (b"%!PS", "PostScript", "save it as PDF"),
    (b"From: <Saved by ", "a web archive (MHTML)", "save the page as HTML only"),
    (b"MIME-Version:", "a web archive (MHTML)", "save the page as HTML only"),
)
_PAGE = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--[^>]*-->\s*)?<(!doctype\s+html|html[\s>])", re.I)
_MARKS_OF_ENCODINGS = b"\xef\xbb\xbf\xff\xfe"
_CHARSET = re.compile(
    rb"""(?:<meta[^>]{0,200}?charset|<\?xml[^>]{0,100}?encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.I
)
_DECLARATION_BYTES = 4096
# Pages that declare the left one were written in the right one, which holds more.
_AS_BROWSERS_DO = {
    **{"iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874"},
    **{"tis-620": "cp874", "shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030"},
    **{"euc_kr": "cp949", "big5": "big5hkscs", "utf-16": "utf-8", "utf-8": ""},
}
_SEVEN_BITS = ("iso2022_jp", "hz")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# Distributions whose version may change what a file reads as.
LIBRARIES = ("charset-normalizer", "zstandard")

_CANDIDATES = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949"),
]


@dataclass(frozen=True)
class RawFile:
    """The bytes of a file, decompressed if `compression` says so; may be read more than once."""

    path: Path
    compression: str = ""

    def chunks(self) -> Iterator[bytes]:
        """About a MiB at a time. Raises Unusable when it is not what its name says."""
        if not self.compression:
            with self.path.open("rb") as file:
                yield from iter(lambda: file.read(_CHUNK_BYTES), b"")
            return
        size = self.path.stat().st_size
        decompressed = 0
        for chunk in self._gzip() if self.compression == ".gz" else self._zstd():
            decompressed += len(chunk)
            if decompressed > decompressed_limit(size):
                raise decompresses_too_large(size)
            yield chunk

    def _gzip(self) -> Iterator[bytes]:
        import gzip
        import zlib

        try:
            with self.path.open("rb") as packed, gzip.open(packed) as file:
                yield from iter(lambda: file.read(_CHUNK_BYTES), b"")
        except EOFError:
            raise Unusable("the gzip data is cut off; copy the file again") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise Unusable(f"the gzip data is broken ({error})") from None

    def _zstd(self) -> Iterator[bytes]:
        import zstandard

        fresh = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj
        decompressor, is_inside = fresh(), False
        try:
            with self.path.open("rb") as file:
                while data := file.read(_ZSTD_INPUT_BYTES):
                    while data:
                        is_inside = True
                        yield decompressor.decompress(data)
                        data = decompressor.unused_data
                        if decompressor.eof:  # the next frame, if there is one
                            decompressor, is_inside = fresh(), False
        except zstandard.ZstdError as error:
            raise Unusable(f"the zstd data is broken ({error})") from None
        if is_inside:
            raise Unusable("the zstd data is cut off; copy the file again")


def decompressed_limit(size: int) -> int:
    """Bytes that a file of `size` bytes may become."""
    return max(ALWAYS_ALLOWED_BYTES, MOST_RATIO * size)


def decompresses_too_large(size: int) -> Unusable:
    limit = decompressed_limit(size) / 2**20
    return Unusable(
        f"its {size:,} bytes unpack to more than {limit:,.0f} MiB; if it is sound, unpack it"
    )


@dataclass(frozen=True)
class TextEncoding:
    """How to decode a file. `notice` is set where that was not certain."""

    name: str
    bom_bytes: int = 0
    notice: str | None = None


def encoding_of(raw: RawFile, declared: Callable[[bytes], str] | None = None) -> TextEncoding:
    """By its byte-order mark, else UTF-8 if all of it is, else what its first bytes declare, else
    detected. Raises Unusable."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    consumed, promised = 0, ""
    for chunk in raw.chunks():
        if consumed == 0:
            refuse_other_formats(chunk)
            if declared is None:
                refuse_page(chunk)
            for bom, name in _BOMS:
                if chunk.startswith(bom):
                    return TextEncoding(name, len(bom))
            promised = declared(chunk) if declared is not None else ""
            if promised in _SEVEN_BITS and b"\x1b" in chunk:
                return TextEncoding(promised)
        if b"\0" in chunk:
            return _unmarked_utf16(chunk)
        pending = decoder.getstate()[0]
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            if promised and _is_all(raw, promised):
                return TextEncoding(promised)
            return _detected(pending + chunk, error.start, consumed - len(pending) + error.start)
        consumed += len(chunk)
    if cut_off := decoder.getstate()[0]:
        raise Unusable(_not_utf8(consumed - len(cut_off)))
    return TextEncoding("utf-8")


def declared_charset(head: bytes) -> str:
    """The codec for what a page says of itself: `<meta charset>`, the older form of it, or an XML
    declaration; "" where it says nothing that is known."""
    found = _CHARSET.search(head[:_DECLARATION_BYTES])
    if found is None:
        return ""
    try:
        name = codecs.lookup(found[1].decode("ascii").strip()).name
    except LookupError:
        return ""
    return _AS_BROWSERS_DO.get(name, name)


def page_text(data: bytes) -> str:
    """The text of a page that is in memory. Raises Unusable."""
    for bom, name in _BOMS:
        if data.startswith(bom):
            return data[len(bom) :].decode(name, "replace")
    for name in ("utf-8", declared_charset(data)):
        try:
            return data.decode(name) if name else data.decode(WESTERN, "replace")
        except UnicodeDecodeError:
            continue
    raise Unusable("a page is in no encoding that it declares")


def _is_all(raw: RawFile, name: str) -> bool:
    decoder = codecs.getincrementaldecoder(name)("strict")
    try:
        for chunk in raw.chunks():
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def decoded(raw: RawFile, encoding: TextEncoding) -> Iterator[str]:
    """The text of a file, about a MiB at a time, without its byte-order mark. Raises Unusable."""
    decoder = codecs.getincrementaldecoder(encoding.name)("strict")
    consumed, line, line_chars = 0, 1, 0
    for chunk in _and_the_end(raw.chunks()):
        if consumed == 0:
            consumed, chunk = encoding.bom_bytes, chunk[encoding.bom_bytes :]
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            at = consumed - pending + error.start
            raise Unusable(
                f"byte {at} is not {encoding.name.upper()}; save the file as UTF-8"
            ) from None
        if "\0" in text:
            raise Unusable("it holds NUL bytes: binary, or UTF-16 without a mark")
        consumed += len(chunk)
        line += text.count("\n")
        line_chars = len(text) - 1 - text.rfind("\n") + (0 if "\n" in text else line_chars)
        if line_chars > LONGEST_LINE:
            raise Unusable(f"line {line} is longer than {LONGEST_LINE >> 20} Mi characters")
        yield text


def _and_the_end(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield from (chunk for chunk in chunks if chunk)
    yield b""


def refuse_pointer(head: bytes) -> None:
    """Raises Unusable where a file begins as what Git has in place of a large one."""
    if head.startswith(_LFS_POINTER):
        raise Unusable("it is a Git LFS pointer and not the file itself; run `git lfs pull`")


def refuse_other_formats(head: bytes) -> None:
    """Raises Unusable where a file begins as one that no suffix here stands for."""
    refuse_pointer(head)
    for magic, name, advice in _MAGIC:
        if head.startswith(magic):
            raise Unusable(f"it is {name} whatever its name says; {advice}")


def refuse_page(head: bytes) -> None:
    """Raises Unusable where a file begins as a web page, in any encoding."""
    if _PAGE.match(head[:_DECLARATION_BYTES].lstrip(_MARKS_OF_ENCODINGS).replace(b"\0", b"")):
        raise Unusable("it is a web page whatever its name says; name it .html")


def _unmarked_utf16(chunk: bytes) -> TextEncoding:
    """UTF-16 if nearly every other byte of Western text is NUL."""
    sample = chunk[: _SAMPLE_BYTES & ~1]
    for name, high in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[0::2])):
        if (
            len(high) > 3
            and high.count(0) > 0.6 * len(high)
            and sample.count(0) < 1.1 * high.count(0)
        ):
            return TextEncoding(
                name, notice=f"read as {name.upper()}, which it does not declare; save it as UTF-8"
            )
    raise Unusable("it holds NUL bytes: binary, or UTF-16 without a mark")


def _detected(chunk: bytes, fault: int, at: int) -> TextEncoding:
    """The encoding that `chunk` looks like; `fault` is where it stops being UTF-8."""
    from charset_normalizer import from_bytes

    start = chunk.rfind(b"\n", 0, fault) + 1 if fault > _SAMPLE_BYTES // 2 else 0
    start = max(start, fault - _SAMPLE_BYTES // 2)
    sample = chunk[start : start + _SAMPLE_BYTES]
    lenient = sample.decode("utf-8", "replace")
    broken = lenient.count("\ufffd")
    if sum(char > "\x7f" for char in lenient) > 2 * broken:
        raise Unusable(_not_utf8(at))  # damaged UTF-8, and not another encoding
    best = code_page(sample)
    if best is None:
        best = _most_likely(from_bytes(sample, cp_isolation=_CANDIDATES, enable_fallback=False))
    if best is None or any(map(_is_control, sample.decode(best, "ignore"))):
        raise Unusable(f"{_not_utf8(at)}; no other encoding fits, so it may be binary")
    return TextEncoding(
        best,
        notice=f"byte {at} is not UTF-8; read as {best}, which is a guess: save it as UTF-8 "
        f"(`iconv -f {best} -t utf-8` where the guess is right)",
    )


def _most_likely(matches: "CharsetMatches") -> str | None:
    """The best match; the Western one where that is about as good."""
    found = list(matches)
    if not found:
        return None
    best = found[0]
    near = [m for m in found if m.chaos <= best.chaos and m.coherence > best.coherence - 0.1]
    names = [name for match in near for name in match.could_be_from_charset]
    return WESTERN if WESTERN in names else best.encoding


def _is_control(char: str) -> bool:
    return (char < " " and char not in "\t\n\r\f\v\x1b") or "\x7f" <= char <= "\x9f"


def _not_utf8(at: int) -> str:
    return f"byte {at} is not UTF-8; save the file as UTF-8"
