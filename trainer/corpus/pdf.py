"""A PDF -> Markdown: its lines in reading order, large ones as headings, divided words whole."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.corpus.examples import Notice, Unusable
from trainer.corpus.pdf_layout import Line, in_reading_order, lines_of
from trainer.runtime.wording import counted

_LIGATURES = {
    0xFB00 + n: text for n, text in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))
}
_DROPPED = dict.fromkeys((0x0, 0xAD, 0xFFFD, 0xFFFE, 0xFFFF))
# Of the letters a to z in a text of any language that is written with them.
_LEAST_VOWELS = 0.2
_FEWEST_UNKNOWN = 10
_MOST_UNKNOWN = 0.1  # of the characters
_VOWELS = set("aeiouyAEIOUY")
_FEWEST_LETTERS = 100
_HEADING_SIZE = 1.15  # times that of most of the text
_MOST_HEADINGS = 0.25  # of the lines
_LONGEST_HEADING = 120  # characters
_LEVELS = 4


def pdf(path: Path) -> Iterator[str | Notice]:
    """The text of each page. Raises Unusable where nobody could read it."""
    found = list(_pages(path))
    pages = [page for page, _ in found]
    lines = [line for page in pages for line in page]
    dropped = sum(line.text.count("\0") for line in lines)
    if not any(line.text.strip() for line in lines):
        raise Unusable("it holds no text: scanned pages; run text recognition (OCR) over it first")
    ciphers = [_is_cipher(page) for page in pages]
    if all(cipher or not page for cipher, page in zip(ciphers, pages, strict=True)):
        raise Unusable(
            "its fonts do not say which letters they show; print it to a new PDF or run text "
            "recognition (OCR) over it"
        )
    if any(ciphers):
        pages_hold = counted(len(pages), "page holds", "pages hold")
        yield Notice(f"{sum(ciphers)} of {pages_hold} no readable letters: left out")
    if pictures := sum(is_picture for _, is_picture in found):
        pages_are = counted(len(pages), "page is a picture", "pages are pictures")
        yield Notice(
            f"{pictures} of {pages_are} without words: left out; run text recognition (OCR) over "
            "the file"
        )
    if dropped:
        yield Notice(f"characters that stand for nothing (U+0000) were left out: {dropped}")
    levels = _heading_levels(lines)
    compounds = {word for line in lines for word in re.findall(r"\w+-\w+", line.text)}
    for page, cipher in zip(pages, ciphers, strict=True):
        text = "" if cipher else "\n".join(_joined(page, levels, compounds))
        yield re.sub(r"\n{3,}", "\n\n", text).strip() + "\n\n"


def _pages(path: Path) -> Iterator[tuple[list[Line], bool]]:
    """The lines of each page, and whether it is a picture instead."""
    from pypdfium2 import PdfDocument, PdfiumError
    from pypdfium2.raw import FPDF_PAGEOBJ_IMAGE

    try:
        document = PdfDocument(path.read_bytes())
    except PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise Unusable("it is encrypted; save it without a password") from None
        raise
    for number in range(len(document)):
        try:
            page = document[number]
        except PdfiumError:
            continue  # a broken page costs itself only
        text = page.get_textpage()
        lines = in_reading_order(lines_of(text.raw))
        is_empty = not any(line.text.strip() for line in lines)
        yield lines, is_empty and any(page.get_objects([FPDF_PAGEOBJ_IMAGE]))
        text.close()
        page.close()


def _joined(page: Sequence[Line], levels: dict[float, int], compounds: set[str]) -> Iterator[str]:
    """Lines of text; a word that two of them divide is whole, headings stand apart."""
    words, level = "", 0
    for line in page:
        text = _cleaned(line.text)
        if not text:
            continue
        own_level = levels.get(line.size, 0) if len(text) <= _LONGEST_HEADING else 0
        if level and own_level == level:
            words = f"{words} {text}"
            continue
        if not level and not own_level and _is_divided(words, text):
            words = _whole(words, text, compounds)
            continue
        if words:
            yield _written(words, level)
        words, level = text, own_level
    if words:
        yield _written(words, level)


def _written(words: str, level: int) -> str:
    return f"\n{'#' * level} {words}\n" if level else words


def _is_divided(words: str, following: str) -> bool:
    return bool(re.search(r"[^\W\d_]-$", words)) and following[:1].islower()


def _whole(words: str, following: str, compounds: set[str]) -> str:
    """Without the hyphen, unless the word has it in the middle of a line too."""
    first = re.search(r"\w+-$", words)
    second = re.match(r"\w+", following)
    if first and second and first[0] + second[0] in compounds:
        return words + following
    return words[:-1] + following


def _cleaned(text: str) -> str:
    """Letters for their ligatures; what no reader sees left out."""
    text = text.translate(_DROPPED | _LIGATURES)
    return "".join(char for char in text if not _is_unknown(char) or char == "\t").strip()


def _heading_levels(lines: Sequence[Line]) -> dict[float, int]:
    """The level of each size of letters that is well above that of most of the text."""
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[line.size] += len(line.text)
    if not sizes:
        return {}
    body = sizes.most_common(1)[0][0]
    large = sorted((size for size in sizes if size > _HEADING_SIZE * body), reverse=True)[:_LEVELS]
    if sum(line.size in large for line in lines) > _MOST_HEADINGS * len(lines):
        return {}
    return {size: level for level, size in enumerate(large, start=1)}


def _is_unknown(char: str) -> bool:
    return char < " " or char == "\N{REPLACEMENT CHARACTER}" or "\ud800" <= char <= "\udfff"


def _is_private(char: str) -> bool:
    """Whether it is one of those that mean what a font wants: symbols, or its letters."""
    return "\ue000" <= char <= "\uf8ff"


def _is_cipher(page: Sequence[Line]) -> bool:
    """Whether its letters are the numbers of glyphs: most unknown, or hardly a vowel among them."""
    text = "".join(line.text for line in page)
    printed = [char for char in text if not char.isspace()]
    if not printed:
        return False
    if sum(map(_is_unknown, printed)) > max(_MOST_UNKNOWN * len(printed), _FEWEST_UNKNOWN):
        return True
    if sum(map(_is_private, printed)) > 0.5 * len(printed):
        return True
    letters = [char for char in printed if char.isascii() and char.isalpha()]
    if len(letters) < max(_FEWEST_LETTERS, sum(map(str.isalpha, printed)) / 2):
        return False
    return sum(char in _VOWELS for char in letters) < _LEAST_VOWELS * len(letters)
