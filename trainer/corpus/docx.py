"""A Word document -> Markdown: what Word shows as its final text, each word once.

What a tracked change put in is there and what it took out is not; content controls, smart tags and
fields are what stands in them; a text box and a chart follow the paragraph that they hang on. What
stands around the text on every page, and what Word does not show in it, is told and not used.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from trainer.corpus.cells import MOST_COLUMNS, cell, line
from trainer.corpus.examples import Notice, Unusable, left_out
from trainer.corpus.formulas import formula
from trainer.corpus.numbering import BULLET, Numbering, Place, place_of
from trainer.corpus.office_charts import chart
from trainer.corpus.packages import Element, Package, child, is_on, kind_of, open_package, value
from trainer.corpus.raised import struck, subscript, superscript
from trainer.corpus.symbols import readable, symbol
from trainer.runtime.wording import counted

# Elements that only hold others: what they hold stands in their place.
_WRAPPERS = {
    *("sdt", "sdtContent", "smartTag", "customXml", "ins", "moveTo", "hyperlink", "fldSimple"),
    *("dir", "bdo", "rubyBase"),
}
_GONE = {"del", "moveFrom", "instrText", "delText", "delInstrText", "pPr", "rPr", "sdtPr", "rt"}
_CHARACTERS = {"tab": "\t", "ptab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
_MOST_LEVELS = 6
_FEWEST_WORDS = 3  # around the pages: "Page 1 of 3" is nothing that anybody misses
_HEXADECIMAL = re.compile("[0-9A-Fa-f]{1,4}")


def docx(path: Path) -> Iterator[str | Notice]:
    """Paragraphs, headings with their `#`, tables one row a line, and notes at the end."""
    with open_package(path) as package:
        main = next(iter(package.related("", "officeDocument")), "word/document.xml")
        if main not in package:
            raise Unusable("it is no readable .docx (it holds no document)")
        body = child(package.xml(main), "body")
        if body is None:
            raise Unusable("it is no readable .docx (it holds no document)")
        document = _Document(package, main)
        yield from document.blocks(body)
        for kind in ("footnotes", "endnotes"):
            for part in package.related(main, kind):
                yield from document.notes(package.xml(part), kind)
        around = sum(map(_words, _parts(package, main, "header", "footer")))
        if around >= _FEWEST_WORDS:
            document.left_out["in headers and footers"] = around
        document.left_out["in comments"] = sum(map(_words, _parts(package, main, "comments")))
        yield from left_out(document.left_out)
        if document.signs:
            amount = counted(document.signs, "sign")
            yield Notice("signs of fonts that have no letters are left out", amount)


class _Document:
    """Its elements as text; keeps what is open from one paragraph to the next."""

    def __init__(self, package: Package, main: str) -> None:
        self._styles, self._numbering = _Styles(package, main), Numbering(package, main)
        self._package, self._targets = package, package.targets(main)
        self.left_out: Counter[str] = Counter()  # words, by where they stand
        self.signs = 0  # that are no letters and are left out
        self._charts: list[str] = []
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
        level = 0 if properties is None else self._styles.level(properties)
        mark = "" if properties is None else self._mark(properties, level)  # counts empty ones too
        words = f"{mark}{words}" if words else ""
        if words and level:
            yield f"{'#' * level} {' '.join(words.split())}\n\n"
        elif words:
            yield f"{words}\n\n"
        boxes, self._boxes = self._boxes, []
        for box in boxes:
            yield from self.blocks(box)
        charts, self._charts = self._charts, []
        yield from (f"{shown}\n\n" for shown in charts if shown)

    def _mark(self, properties: Element, level: int) -> str:
        """The number that Word shows in front, or a bullet, which no heading has."""
        place = self._styles.place(properties)
        mark = self._numbering.mark(place) if place is not None else ""
        return f"{mark} " if mark and not (level and mark.strip() == BULLET) else ""

    def _table(self, table: Element) -> Iterator[str]:
        """One row a line; a table of one column is a frame around what it holds."""
        rows = [row for row in _unwrapped(table) if kind_of(row) == "tr" and not _is_taken_out(row)]
        cells = [
            [part for part in _unwrapped(row) if kind_of(part) == "tc" and not _is_gone(part)]
            for row in rows
        ]
        if max(map(len, cells), default=0) == 1:
            for (only,) in filter(None, cells):
                yield from self.blocks(only)
            return
        lines = (line(list(chain.from_iterable(map(self._spanned, row)))) for row in cells)
        if shown := [found for found in lines if found]:
            yield "\n".join(shown) + "\n\n"

    def _spanned(self, element: Element) -> list[str]:
        """What it says, and nothing in the other columns that it spans."""
        span = value(child(element, "tcPr", "gridSpan")) or ""
        wide = min(int(span), MOST_COLUMNS) if span.isdecimal() else 1
        return [self._cell(element), *[""] * (wide - 1)]

    def _cell(self, element: Element) -> str:
        if _is_covered(element):
            return ""
        return cell(" ".join(self.blocks(element)))

    def _inline(self, element: Element) -> Iterator[str]:
        for part in _unwrapped(element):
            kind = kind_of(part)
            if kind == "fldChar":
                self._field(value(part, "fldCharType"))
            elif kind in ("oMath", "oMathPara"):
                yield formula(part)
            elif kind == "txbxContent":
                self._boxes.append(part)
            elif kind == "chart" and (target := self._targets.get(value(part, "id") or "")):
                self._charts.append(chart(self._package.xml(target)))
            elif kind == "r":
                yield self._run(part)
            elif not all(self._fields):
                continue
            elif kind == "t":
                yield part.text or ""
            elif kind == "sym":
                yield self._sign(part)
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
        words, unknown = readable(words, value(child(properties, "rFonts"), "ascii") or "")
        self.signs += unknown
        if is_on(child(properties, "vanish")):
            self.left_out["in hidden text"] += len(words.split())
            return ""
        if any(is_on(child(properties, kind)) for kind in ("strike", "dstrike")):
            words = struck(words)
        height = value(child(properties, "vertAlign"))
        if height == "superscript" and "[^" not in words:
            return superscript(words)
        return subscript(words) if height == "subscript" else words

    def _sign(self, element: Element) -> str:
        code = value(element, "char") or ""
        known = bool(_HEXADECIMAL.fullmatch(code))
        found = symbol(int(code, 16), value(element, "font") or "") if known else ""
        self.signs += not found
        return found

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


def _words(root: Element) -> int:
    """How many with letters it has, so not the numbers of pages."""
    texts = (part.text or "" for part in root.iter() if kind_of(part) == "t")
    return sum(any(map(str.isalpha, word)) for text in texts for word in text.split())


def _parts(package: Package, main: str, *kinds: str) -> Iterator[Element]:
    return (package.xml(part) for kind in kinds for part in package.related(main, kind))


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


class _Styles:
    """What the styles of a document say of its paragraphs: the level of a heading, a list."""

    def __init__(self, package: Package, main: str) -> None:
        self._levels: dict[str, int] = {}
        self._places: dict[str, Place | None] = {}
        styles: dict[str, Element] = {}
        for part in package.related(main, "styles"):
            for style in package.xml(part):
                if kind_of(style) == "style":
                    styles[value(style, "styleId") or ""] = style
        for name in styles:
            based = _based_on(name, styles)
            own = next(filter(None, map(_own_level, based)), 0)
            self._levels[name] = max(own, 0)
            place = None
            for style in reversed(based):
                place = place_of(child(style, "pPr"), place)
            self._places[name] = place

    def level(self, properties: Element) -> int:
        """By its own outline, else that of its style."""
        own = value(child(properties, "outlineLvl"))
        if own is not None and own.isdigit():
            return int(own) + 1 if int(own) < _MOST_LEVELS else 0
        return self._levels.get(value(child(properties, "pStyle")) or "", 0)

    def place(self, properties: Element) -> Place | None:
        style = value(child(properties, "pStyle")) or ""
        return place_of(properties, self._places.get(style))


def _based_on(name: str, styles: dict[str, Element]) -> list[Element]:
    """A style, that which it is based on, and so on."""
    found: dict[str, Element] = {}
    while name in styles and name not in found:
        found[name] = styles[name]
        name = value(child(styles[name], "basedOn")) or ""
    return list(found.values())


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
