"""A Word document -> Markdown: what Word shows as its final text, each word once.

What a tracked change put in is there and what it took out is not; content controls, smart tags and
fields are what stands in them; a text box follows the paragraph that it hangs on.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from trainer.corpus.examples import Unusable
from trainer.corpus.formulas import formula
from trainer.corpus.packages import Element, Package, child, is_on, kind_of, open_package, value
from trainer.corpus.raised import subscript, superscript

# Elements that only hold others: what they hold stands in their place.
_WRAPPERS = {
    *("sdt", "sdtContent", "smartTag", "customXml", "ins", "moveTo", "hyperlink", "fldSimple"),
    *("dir", "bdo", "rubyBase"),
}
_GONE = {"del", "moveFrom", "instrText", "delText", "delInstrText", "pPr", "rPr", "sdtPr", "rt"}
_CHARACTERS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_MOST_LEVELS = 6


def docx(path: Path) -> Iterator[str]:
    """Paragraphs, headings with their `#`, tables one row a line, and notes at the end."""
    with open_package(path) as package:
        main = next(iter(package.related("", "officeDocument")), "word/document.xml")
        if main not in package:
            raise Unusable("it is no readable .docx (it holds no document)")
        body = child(package.xml(main), "body")
        document = _Document(_heading_levels(package, main))
        yield from document.blocks(body if body is not None else ())
        for kind in ("footnotes", "endnotes"):
            for part in package.related(main, kind):
                yield from document.notes(package.xml(part), kind)


class _Document:
    """Its elements as text; keeps what is open from one paragraph to the next."""

    def __init__(self, levels: dict[str, int]) -> None:
        self._levels = levels
        self._fields: list[bool] = []  # open ones, and whether what stands now is their result
        self._joined = ""  # of paragraphs whose end was taken out
        self._boxes: list[Element] = []

    def blocks(self, elements: Iterable[Element]) -> Iterator[str]:
        for element in _unwrapped(elements):
            if kind_of(element) == "p":
                yield from self._paragraph(element)
            elif kind_of(element) == "tbl":
                yield from self._table(element)
        if self._joined:
            words, self._joined = self._joined, ""
            yield f"{words}\n\n"

    def notes(self, root: Element, kind: str) -> Iterator[str]:
        for note in root:
            if value(note, "type") in (None, "normal"):
                words = " ".join(" ".join(self.blocks(note)).split())
                if words:
                    yield f"[^{_note_name(kind, value(note, 'id'))}]: {words}\n\n"

    def _paragraph(self, paragraph: Element) -> Iterator[str]:
        words = self._joined + "".join(self._inline(paragraph))
        properties = child(paragraph, "pPr")
        self._joined = ""
        if properties is not None and _runs_on(properties):
            self._joined = words
            return
        words = words.strip()
        level = 0 if properties is None else self._level(properties)
        if words and level:
            yield f"{'#' * level} {' '.join(words.split())}\n\n"
        elif words:
            yield f"{words}\n\n"
        boxes, self._boxes = self._boxes, []
        for box in boxes:
            yield from self.blocks(box)

    def _level(self, properties: Element) -> int:
        own = value(child(properties, "outlineLvl"))
        if own is not None and own.isdigit():
            return int(own) + 1 if int(own) < _MOST_LEVELS else 0
        return self._levels.get(value(child(properties, "pStyle")) or "", 0)

    def _table(self, table: Element) -> Iterator[str]:
        """One row a line; a table of one column is a frame around what it holds."""
        rows = [row for row in _unwrapped(table) if kind_of(row) == "tr" and not _is_taken_out(row)]
        cells = [
            [cell for cell in _unwrapped(row) if kind_of(cell) == "tc" and not _is_gone(cell)]
            for row in rows
        ]
        if max(map(len, cells), default=0) == 1:
            for (cell,) in filter(None, cells):
                yield from self.blocks(cell)
            return
        lines = (" | ".join(map(self._cell, row)) for row in cells)
        shown = [line for line in lines if line.strip(" |")]
        if shown:
            yield "\n".join(shown) + "\n\n"

    def _cell(self, cell: Element) -> str:
        if _is_covered(cell):
            return ""
        return " ".join(" ".join(self.blocks(cell)).split())

    def _inline(self, element: Element) -> Iterator[str]:
        for part in _unwrapped(element):
            kind = kind_of(part)
            if kind == "fldChar":
                self._field(value(part, "fldCharType"))
            elif kind in ("oMath", "oMathPara"):
                yield formula(part)
            elif kind == "txbxContent":
                self._boxes.append(part)
            elif kind == "r":
                yield self._run(part)
            elif not all(self._fields):
                continue
            elif kind == "t":
                yield part.text or ""
            elif kind in _CHARACTERS:
                yield _CHARACTERS[kind]
            elif kind in ("footnoteReference", "endnoteReference"):
                yield f"[^{_note_name(kind, value(part, 'id'))}]"
            elif kind == "ruby":
                yield self._ruby(part)
            else:
                yield from self._inline(part)

    def _run(self, run: Element) -> str:
        properties = child(run, "rPr")
        words = "".join(self._inline(run))
        if properties is None or not words:
            return words
        if is_on(child(properties, "vanish")):
            return ""
        height = value(child(properties, "vertAlign"))
        if height == "superscript" and "[^" not in words:
            return superscript(words)
        return subscript(words) if height == "subscript" else words

    def _ruby(self, ruby: Element) -> str:
        base, reading = (child(ruby, kind) for kind in ("rubyBase", "rt"))
        words = "" if base is None else "".join(self._inline(base))
        above = "" if reading is None else "".join(self._inline(reading))
        return f"{words}({above})" if above else words

    def _field(self, kind: str | None) -> None:
        if kind == "begin":
            self._fields.append(False)
        elif kind == "separate" and self._fields:
            self._fields[-1] = True
        elif kind == "end" and self._fields:
            self._fields.pop()


def _unwrapped(elements: Iterable[Element]) -> Iterator[Element]:
    """Without what was taken out; what wrappers hold, and of alternatives the first that holds
    something, stand in their place."""
    for element in elements:
        kind = kind_of(element)
        if kind == "AlternateContent":
            yield from _unwrapped(_alternative(element))
        elif kind in _WRAPPERS:
            yield from _unwrapped(element)
        elif kind not in _GONE:
            yield element


def _alternative(element: Element) -> list[Element]:
    for choice in element:
        if any(kind_of(part) in ("t", "txbxContent") for part in choice.iter()):
            return list(choice)
    return []


def _runs_on(properties: Element) -> bool:
    """Whether the next paragraph goes on in this one: its end was taken out, or it is the large
    first letter of the next."""
    frame = child(properties, "framePr")
    return child(properties, "rPr", "del") is not None or value(frame, "dropCap") in (
        "drop",
        "margin",
    )


def _is_taken_out(row: Element) -> bool:
    return child(row, "trPr", "del") is not None


def _is_gone(cell: Element) -> bool:
    """Whether it was taken out, or the cell beside it has its place."""
    merge = child(cell, "tcPr", "hMerge")
    is_beside = merge is not None and value(merge) in (None, "continue")
    return is_beside or child(cell, "tcPr", "cellDel") is not None


def _is_covered(cell: Element) -> bool:
    """Whether the cell above it stands in its place."""
    merge = child(cell, "tcPr", "vMerge")
    return merge is not None and value(merge) in (None, "continue")


def _note_name(kind: str, number: str | None) -> str:
    return f"{'' if kind.startswith('footnote') else 'e'}{number or ''}"


def _heading_levels(package: Package, main: str) -> dict[str, int]:
    """The level of the headings of each style: by its name, its outline, or the style it is
    based on."""
    styles: dict[str, tuple[int, str]] = {}
    for part in package.related(main, "styles"):
        for style in package.xml(part):
            if kind_of(style) == "style":
                based = value(child(style, "basedOn")) or ""
                styles[value(style, "styleId") or ""] = _own_level(style), based
    levels = {}
    for name in styles:
        at, seen = name, set[str]()
        while at in styles and not styles[at][0] and at not in seen:
            seen.add(at)
            at = styles[at][1]
        levels[name] = max(styles[at][0], 0) if at in styles else 0
    return levels


def _own_level(style: Element) -> int:
    """0 where it says nothing, below where it says that it is none."""
    name = (value(child(style, "name")) or "").lower()
    if found := re.fullmatch(r"heading ([1-6])", name):
        return int(found[1])
    if name == "title":
        return 1
    outline = value(child(style, "pPr", "outlineLvl"))
    if outline is None or not outline.isdigit():
        return 0
    return int(outline) + 1 if int(outline) < _MOST_LEVELS else -1
