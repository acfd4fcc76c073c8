"""A web page -> Markdown: headings, lists, tables and code stay what they are."""

import re
from collections.abc import Iterator

from trainer.corpus.examples import Unusable
from trainer.corpus.packages import Element
from trainer.corpus.page_content import content
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
_PLACEHOLDER = re.compile(
    r"not found|access denied|forbidden|enable javascript|just a moment|under construction"
    r"|accept (all )?cookies|lorem ipsum|sign in to continue|redirecting",
    re.IGNORECASE,
)
_PLACEHOLDER_WORDS = 40


def html(text: str) -> tuple[str, float]:
    """(the words of a page as Markdown, without navigation and scripts; the share of all words
    that these are). Raises Unusable."""
    found = content(text)
    words = "\n\n".join(filter(None, (_Writer().written(part) for part in found.parts)))
    if not words:
        raise Unusable("it holds no text beside navigation and scripts")
    if len(words.split()) < _PLACEHOLDER_WORDS and _PLACEHOLDER.search(words):
        raise Unusable("it is a placeholder page: " + " ".join(words.split())[:60])
    if found.title and not re.search(r"^# ", words, re.M):
        words = f"# {found.title}\n\n{words}"
    return words, found.taken


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
            case "math":
                self._line.append(_formula(element))
            case tag if tag in _EMPHASIS and not self._is_heading:
                self._marked(element, _EMPHASIS[tag])
            case _:
                self._children(element)

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
        for part in element:
            words = self._inner(part) if isinstance(part.tag, str) else ""
            if words:
                mark = f"{len(items) + 1}." if element.tag == "ol" else "*"
                indented = re.sub(r"\n(?=.)", "\n" + " " * (len(mark) + 1), words)
                items.append(f"{mark} {indented}")
        self._block("\n".join(items))

    def _table(self, element: Element) -> None:
        """One row a line; a table that only arranges the page is what it holds."""
        rows = [[c for c in row if c.tag in ("td", "th")] for row in _rows(element)]
        is_layout = max(map(len, rows), default=0) < 2 or any(
            cell.find(".//table") is not None or cell.find(".//h2") is not None
            for row in rows
            for cell in row
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
            cells = [" ".join(self._inner(cell).split()) for cell in row]
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


def _formula(element: Element) -> str:
    """As its author typed it, where the page says so."""
    for note in element.iter("annotation", "{*}annotation"):
        if "tex" in (note.get("encoding") or ""):
            return "".join(note.itertext()).strip()
    return element.get("alttext") or " ".join("".join(element.itertext()).split())
