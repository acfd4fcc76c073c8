"""A web page -> Markdown: headings, lists, tables and code stay what they are."""

import re
from collections.abc import Iterator
from itertools import chain

from trainer.corpus.cells import MOST_COLUMNS, cell
from trainer.corpus.examples import Notice, Unusable, left_out
from trainer.corpus.formulas import mathml
from trainer.corpus.numbering import BULLET, numeral
from trainer.corpus.packages import Element
from trainer.corpus.page_content import Content, content, parsed
from trainer.corpus.raised import subscript, superscript

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = {
    *("address", "article", "aside", "body", "blockquote", "center", "dd", "details", "dialog"),
    *("div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup"),
    *("hr", "html", "legend", "li", "main", "menu", "nav", "ol", "p", "section", "summary", "ul"),
    *("td", "th", "tr", "caption", "option", "optgroup"),
}
_EMPHASIS = {"b": "**", "strong": "**", "em": "*", "i": "*"}
_SPACES = re.compile(r"[ \t\r\n\f]+")
_UNSEEN = re.compile("[\u00ad\u200b\ufeff]")  # where a word may be divided
_OPENS = re.compile(r"accordion|collapse|toggle|faq|expand", re.IGNORECASE)
_STRUCK = re.compile(r"text-decoration(-line)?\s*:[^;]*line-through", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"not found|access denied|forbidden|enable javascript|just a moment|under construction"
    r"|accept (all )?cookies|lorem ipsum|sign in to continue|redirecting",
    re.IGNORECASE,
)
_PLACEHOLDER_WORDS = 40


_LEAST_TAKEN = 0.5  # of the words of a page: with less it is named
_FEWEST_WORDS = 4  # beside links, in a part that is left out: with fewer it is not


def html(text: str) -> tuple[str, list[Notice]]:
    """(the words of a page as Markdown, without navigation and scripts; what was left out that
    holds words). Raises Unusable."""
    found = content(text)
    words = "\n\n".join(filter(None, (_Writer().written(part) for part in found.parts)))
    if not words:
        raise Unusable("it holds no text beside navigation and scripts")
    if len(words.split()) < _PLACEHOLDER_WORDS and _PLACEHOLDER.search(words):
        raise Unusable("it is a placeholder page: " + " ".join(words.split())[:60])
    if found.title and not re.search(r"^# ", words, re.M):
        words = f"# {found.title}\n\n{words}"
    return words, list(_left_out(found))


def fragment(text: str) -> str:
    """A piece of HTML as Markdown, all of it. Raises Unusable."""
    return _Writer().written(parsed(text))


def _left_out(page: Content) -> Iterator[Notice]:
    if page.taken < _LEAST_TAKEN:
        yield Notice(f"{page.taken:.0%} of the page's words were taken for its content")
    yield from left_out(page.left_out, _FEWEST_WORDS)


class _Writer:
    """Writes one element after the other; `blocks` are finished, `line` is not."""

    def __init__(self, level: int = 1) -> None:
        self._blocks: list[str] = []
        self._line: list[str] = []
        self._level = level  # of the last heading
        self._is_heading = False

    def written(self, element: Element) -> str:
        if element.tag in _HEADINGS:
            self._element(element)
        else:
            self._children(element)
        self._end_block()
        return "\n\n".join(self._blocks)

    def _children(self, element: Element) -> None:
        self._text(element.text)
        for part in element:
            if isinstance(part.tag, str):
                self._element(part)
            self._text(part.tail)

    def _element(self, element: Element) -> None:
        tag = element.tag
        if tag in _HEADINGS or _is_question(element):
            self._heading(element)
        elif tag in ("ul", "ol", "menu"):
            self._list(element)
        elif tag == "table":
            self._table(element)
        elif tag == "pre":
            self._block(f"```\n{_raw(element)}\n```" if _raw(element).strip() else "")
        elif tag == "blockquote":
            self._block(re.sub(r"^(?=.)", "> ", self._inner(element), flags=re.M))
        elif tag in _BLOCKS:
            self._end_block()
            self._children(element)
            self._end_block()
        else:
            self._inline(element)

    def _inline(self, element: Element) -> None:
        match element.tag:
            case "br":
                self._line.append("\n")
            case "button" if not _is_in_a_sentence(element):
                return
            case "sup":
                self._line.append(superscript(self._inner(element)))
            case "sub":
                self._line.append(subscript(self._inner(element)))
            case "rt":
                self._line.append(f"({self._inner(element)})")
            case "code" | "kbd" | "samp" | "tt":
                self._marked(element, "`")
            case "del" | "s" | "strike":
                self._marked(element, "~~")
            case _ if _STRUCK.search(element.get("style") or ""):
                self._marked(element, "~~")
            case "math":
                self._formula(element)
            case tag if tag in _EMPHASIS and not self._is_heading:
                self._marked(element, _EMPHASIS[tag])
            case _:
                self._children(element)

    def _formula(self, element: Element) -> None:
        """Apart from a digit before it: 1 and a half is not 11/2."""
        words = mathml(element)
        before = "".join(self._line)[-1:]
        self._line.append(f" {words}" if before.isdigit() and words[:1].isdigit() else words)

    def _text(self, text: str | None) -> None:
        if text:
            self._line.append(_UNSEEN.sub("", _SPACES.sub(" ", text)))

    def _marked(self, element: Element, mark: str) -> None:
        """`mark` stands at its words; blocks inside of it go without."""
        inner = self._inner(element)
        words = inner.strip()
        if not words or "\n\n" in inner or mark in words:
            self._children(element)
            return
        outer = "".join(element.itertext())
        before, after = (" " if c.isspace() else "" for c in (outer[:1], outer[-1:]))
        self._line.append(f"{before}{mark}{words}{mark}{after}")

    def _heading(self, element: Element) -> None:
        level = _HEADINGS.get(element.tag) or min(self._level + 1, 6)
        inner = _Writer(level)
        inner._is_heading = True
        words = " ".join(inner.written_children(element).split())
        self._block(f"{'#' * level} {words}" if words else "")
        if words and element.tag in _HEADINGS:
            self._level = level

    def _list(self, element: Element) -> None:
        items: list[str] = []
        for mark, part in _marked_items(element):
            words = self._inner(part)
            if words:
                indented = re.sub(r"\n(?=.)", "\n" + " " * (len(mark) + 1), words)
                items.append(f"{mark} {indented}")
        self._block("\n".join(items))

    def _table(self, element: Element) -> None:
        """One row a line; a table that only arranges the page is what it holds."""
        rows = list(_grid(element))
        is_layout = max(map(len, rows), default=0) < 2 or any(
            part.find(".//table") is not None or part.find(".//h2") is not None
            for part in chain.from_iterable(rows)
            if part is not None
        )
        if is_layout:
            self._end_block()
            self._children(element)
            self._end_block()
            return
        for caption in element.findall("caption"):
            self._block(self._inner(caption))
        lines = []
        for row in rows:
            cells = ["" if c is None else cell(self._inner(c)) for c in row]
            if any(cells):
                lines.append(f"| {' | '.join(cells)} |")
        if lines:
            lines.insert(1, f"|{' --- |' * max(map(len, rows))}")
        self._block("\n".join(lines))

    def _inner(self, element: Element) -> str:
        """What `element` holds, written apart."""
        return _Writer(self._level).written_children(element)

    def written_children(self, element: Element) -> str:
        self._children(element)
        self._end_block()
        return "\n\n".join(self._blocks)

    def _block(self, words: str) -> None:
        self._end_block()
        if words:
            self._blocks.append(words)

    def _end_block(self) -> None:
        lines = "".join(self._line).split("\n")
        words = "\n".join(re.sub(" {2,}", " ", line).strip() for line in lines).strip()
        self._line.clear()
        if words:
            self._blocks.append(re.sub(r"\n{2,}", "\n", words))


def _is_question(element: Element) -> bool:
    """What opens an answer that is folded away."""
    if element.tag == "summary":
        return True
    if element.tag != "button" and element.get("role") != "button":
        return False
    if any(ancestor.tag in _HEADINGS for ancestor in element.iterancestors()):
        return False
    words = "".join(element.itertext()).split()
    if len(words) > 2 and words[-1].endswith("?") and element.getnext() is not None:
        return True
    opens = any(element.get(name) for name in ("aria-expanded", "aria-controls", "data-target"))
    named = _OPENS.search(f"{element.get('class')} {element.get('data-bs-toggle')}")
    return bool(opens or named) and (len(words) > 2 or "".join(words).endswith("?"))


def _is_in_a_sentence(button: Element) -> bool:
    if any(ancestor.tag in _HEADINGS for ancestor in button.iterancestors()):
        return True
    parent = button.getparent()
    if parent is None or parent.tag not in ("p", "li", "td", "dd", "span", "strong", "b", "em"):
        return False
    own = [parent.text, *(part.tail for part in parent)]
    return any(text and text.strip() for text in own)


def _marked_items(element: Element) -> Iterator[tuple[str, Element]]:
    """(its number as a browser counts, or a bullet; the item)."""
    parts = [part for part in element if isinstance(part.tag, str)]
    if element.tag != "ol":
        yield from ((BULLET, part) for part in parts)
        return
    items = [part for part in parts if part.tag == "li"]
    is_reversed = element.get("reversed") is not None
    number = _whole(element.get("start"), len(items) if is_reversed else 1)
    for part in parts:
        number = _whole(part.get("value"), number)
        form = part.get("type") or element.get("type") or "1"
        yield f"{numeral(number, form)}.", part
        number += 0 if part.tag != "li" else -1 if is_reversed else 1


def _whole(text: str | None, otherwise: int) -> int:
    found = re.match(r"\s*([+-]?\d{1,9})", text or "")
    return int(found[1]) if found else otherwise


def _grid(table: Element) -> Iterator[list[Element | None]]:
    """The cells of each row, each in its column; None where one from above or beside goes on."""
    above: dict[int, int] = {}  # rows that a column is still covered for
    for row in _rows(table):
        line: list[Element | None] = []
        for part in (e for e in row if e.tag in ("td", "th")):
            while above.get(len(line), 0):
                line.append(None)
            wide = min(max(_whole(part.get("colspan"), 1), 1), MOST_COLUMNS)
            for column in range(len(line), len(line) + wide):
                above[column] = max(_whole(part.get("rowspan"), 1), 1)
            line += [part, *[None] * (wide - 1)]
        while above.get(len(line), 0):
            line.append(None)
        above = {column: rows - 1 for column, rows in above.items() if rows > 1}
        yield line


def _rows(table: Element) -> Iterator[Element]:
    for part in table:
        if part.tag == "tr":
            yield part
        elif part.tag in ("thead", "tbody", "tfoot"):
            yield from (row for row in part if row.tag == "tr")


def _raw(element: Element) -> str:
    for line_break in element.iter("br"):
        line_break.text = "\n"
    return "".join(element.itertext()).strip("\n").rstrip()
