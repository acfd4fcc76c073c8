"""Which part of a web page is what it says, and which surrounds it on every page of its site.

What is dropped is known by its element, its role, or by short text under a telling name that is
mostly links. What is left is all `article` and `main` elements where they hold most of the words,
else the body: rather a line too much than an answer lost.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from trainer.corpus.examples import Unusable, asks
from trainer.corpus.packages import Element

_MOST_DEPTH = 400  # of elements; the writer goes down one call an element
_INVISIBLE = ("script", "style", "template", "svg", "canvas", "head", "input", "datalist", "rp")
# What a browser shows in another way, if at all; broken pages hold all they say in one of them.
_REPLACED = {"noscript", "iframe", "object", "select", "textarea", "video", "audio", "map"}
_ROLES = {"navigation", "search", "menu", "menubar", "contentinfo", "dialog", "alertdialog"}
_NAMES = re.compile(
    r"(?<![a-z])(cookies?|consent|gdpr|breadcrumbs?|side-?bar|menu|nav(bar|i|igation)?|social"
    r"|shar(e|ing)|related|recommend(ed|ations)?|newsletter|subscribe|advert(isement)?s?|ads?"
    r"|sponsor(ed|s)?|promo(tion)?s?|popup|paginat(ion|or)|pager|skip|toolbar|footer|login"
    r"|sign-?up|copyright|topbar|tags|masthead|trending|most-?read)(?![a-z])"
)
_UNSEEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_FOLDED = re.compile(
    r"accordion|collaps|toggle|faq|expand|panel|tab|answer|drop-?down|more|slide|carousel"
)
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6", "dt", "summary", "button")
_TARGETS = ("aria-controls", "data-target", "data-bs-target", "href")
_SIGNS = re.compile(r"(?<![a-z])(linenos?|line-?numbers?|headerlink|permalink|anchor)(?![a-z])")
_COMMENT = re.compile(r"cmnt(_ref)?\d+")  # what Google Docs writes of one, and where
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_BLOCKS = {
    *(
        "div",
        "section",
        "ul",
        "ol",
        "aside",
        "header",
        "table",
        "dl",
        "td",
        "p",
        "figure",
        "center",
    ),
    *("form", "footer", "nav"),
}
_PARTS = ("article", "main")
_MOST_LOST = 0.2  # of the words beside links that one element may take with it
_MOST_SHARE = 0.65  # of the words of a page that `article` and `main` hold where they are enough


@dataclass(frozen=True)
class Content:
    """What is read of a page; `taken` is the share of its words beside links that this is, and
    `left_out` how many words beside links stand in which other part of it."""

    title: str
    parts: list[Element]
    taken: float
    left_out: dict[str, int]


def content(text: str) -> Content:
    """What a page says, without what surrounds it. Raises Unusable."""
    from lxml import etree

    page = parsed(text)
    found = page.find(".//title")
    title = " ".join("".join(found.itertext()).split()) if found is not None else ""
    body = page.find(".//body")
    body = page if body is None else body
    etree.strip_elements(page, etree.Comment, *_INVISIBLE, with_tail=False)
    weights = _Weights(body)
    left_out: Counter[str] = Counter()
    for element in [e for e in body.iter() if isinstance(e.tag, str)]:
        if _is_sign(element):
            _drop(element)
        elif element.tag == "a" and _COMMENT.fullmatch(element.get("id") or ""):
            _drop(element.getparent())
            left_out["in comments of Google Docs"] += _words(element.getparent())
    gone: set[Element] = set()
    for element in [e for e in body.iter() if isinstance(e.tag, str)]:
        if element.getparent() in gone:
            gone.add(element)
        elif element is not body and weights.is_boilerplate(element):
            left_out[_part_name(element)] += 0 if _is_drawn_formula(element) else _words(element)
            gone.add(element)
            _drop(element)
    parts = _parts(body)
    left_out["beside its main part"] = _words(body) - sum(map(_words, parts))
    taken = sum(map(_Weights.unlinked, parts)) / weights.unlinked_chars
    return Content(title, parts, taken, left_out)


def chars(element: Element) -> int:
    """Characters of its text, white space left out."""
    return sum(len("".join(text.split())) for text in element.itertext())


def parsed(text: str) -> Element:
    """The tree of a page. Raises Unusable for none, and for one too deep to be written."""
    from lxml import etree

    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True, remove_pis=True)
    page = etree.fromstring(text.encode(), parser)
    if page is None:
        raise Unusable("it holds no text beside navigation and scripts")
    if _depth(page) > _MOST_DEPTH or any("depth" in str(e.message) for e in parser.error_log):
        raise Unusable("it is nested too deep for a .html")
    return page


def _depth(page: Element) -> int:
    from lxml import etree

    deepest = depth = 0
    for event, _ in etree.iterwalk(page, events=("start", "end")):
        depth += 1 if event == "start" else -1
        deepest = max(deepest, depth)
    return deepest


def _parts(body: Element) -> list[Element]:
    """The outermost parts that hold content; the body where there is much beside them."""
    found = [e for e in body.iter(*_PARTS) if not any(a.tag in _PARTS for a in e.iterancestors())]
    if sum(map(chars, found)) > _MOST_SHARE * chars(body):
        return [*_headings_before(body, found), *found]
    return [body]


def _headings_before(body: Element, parts: list[Element]) -> Iterator[Element]:
    """The title of a page often stands above its `main`."""
    for element in body.iter("h1"):
        if not any(part in element.iterancestors() for part in parts):
            yield element


class _Weights:
    """How much text the elements of a page hold, and how much of it is in links."""

    def __init__(self, body: Element) -> None:
        self._text: dict[Element, int] = {}
        self._linked: dict[Element, int] = {}
        self._add(body)
        self._opened = {
            target.lstrip("#")
            for element in body.iter()
            for name in _TARGETS
            if (target := element.get(name) or "")[1:]
        }
        self.unlinked_chars = max(self._text[body] - self._linked[body], 1)
        unseen = [e for e in body.iter() if isinstance(e.tag, str) and self._is_unseen(e)]
        known = set(unseen)
        alone = [e for e in unseen if not any(above in known for above in e.iterancestors())]
        self._hides_little = sum(map(self._share, alone)) <= _MOST_LOST

    @classmethod
    def unlinked(cls, element: Element) -> int:
        return cls(element).unlinked_chars

    def _add(self, body: Element) -> None:
        from lxml import etree

        for _, element in etree.iterwalk(body, events=("end",)):
            text = len("".join((element.text or "").split()))
            linked = 0
            for part in element:
                text += self._text.get(part, 0) + len("".join((part.tail or "").split()))
                linked += self._linked.get(part, 0)
            self._text[element] = text
            self._linked[element] = text if element.tag == "a" else linked

    def is_boilerplate(self, element: Element) -> bool:
        tag, role = element.tag, (element.get("role") or "").lower()
        text, linked = self._text.get(element, 0), self._linked.get(element, 0)
        links = linked / max(text, 1)
        if tag == "nav" or role in _ROLES or _is_foot(element):
            return not _has_paragraphs(element)
        if self._share(element) > _MOST_LOST:
            return False
        if tag in _REPLACED:
            return True
        if self._hides_little and self._is_unseen(element):
            return True
        if tag == "aside":
            return not _is_inside(element, *_PARTS) and (links > 0.3 or text < 40)
        if tag == "form":
            return not _has_paragraphs(element)
        if tag not in _BLOCKS:
            return False
        if _NAMES.search(_names(element)):
            return links > 0.3 or text < 200
        return links > 0.8 and text > 0 and len(element.findall(".//a")) > 3

    def _share(self, element: Element) -> float:
        """Of the words of the page beside links."""
        unlinked = self._text.get(element, 0) - self._linked.get(element, 0)
        return unlinked / self.unlinked_chars

    def _is_unseen(self, element: Element) -> bool:
        return is_hidden(element) and not self._can_be_opened(element)

    def _can_be_opened(self, element: Element) -> bool:
        """Whether a click shows it, or it is a formula for whoever cannot see the picture."""
        opener = element.getprevious()
        return (
            element.tag == "math"
            or element.find(".//math") is not None
            or element.get("id") in self._opened
            or element.get("hidden") == "until-found"
            or element.get("role") in ("tabpanel", "region")
            or bool(_FOLDED.search(_names(element)))
            or (opener is not None and _opens(opener))
        )


def _is_sign(element: Element) -> bool:
    """Whether it is the number of a line of code, or leads to the heading that it stands in."""
    found = _SIGNS.search(_names(element))
    if found is None or (element.tag != "a" and not found[1].startswith("line")):
        return False
    return not any(map(str.isalpha, "".join(element.itertext())))


def is_hidden(element: Element) -> bool:
    """Whether a browser does not show it, or a screen reader does not say it."""
    return (
        element.get("hidden") is not None
        or (element.get("aria-hidden") or "").lower() == "true"
        or bool(_UNSEEN.search(element.get("style") or ""))
    )


def _opens(element: Element) -> bool:
    """Whether it is a question, or a heading or button that is not above other words too."""
    text = " ".join("".join(element.itertext()).split())
    parts = [element, *(e for e in element.iter() if e.tag in _HEADINGS)]
    named = (e for e in parts if e.tag in _HEADINGS or e.get("role") == "button")
    return asks(text) or any(" ".join("".join(e.itertext()).split()) == text for e in named)


def _words(element: Element) -> int:
    """Words of its text, those of links left out."""
    return sum(len(text.split()) for text in element.xpath(".//text()[not(ancestor::a)]"))


def _is_drawn_formula(element: Element) -> bool:
    """Whether it shows what the `math` beside it says."""
    before = element.getprevious()
    return before is not None and before.find(".//math") is not None and is_hidden(element)


def _part_name(element: Element) -> str:
    if element.tag in _REPLACED:
        return f"in <{element.tag}>"
    if is_hidden(element):
        return "in hidden parts"
    role = (element.get("role") or "").lower()
    if element.tag == "nav" or role in _ROLES:
        return "in its navigation"
    if element.tag in ("footer", "form", "aside"):
        return f"in <{element.tag}>"
    return "in parts named as menus, adverts and the like"


def _has_paragraphs(element: Element) -> bool:
    return sum(len("".join(p.itertext()).split()) > 20 for p in element.iter("p")) > 1


def _is_foot(element: Element) -> bool:
    return bool(element.tag == "footer" and not _is_inside(element, *_PARTS, "blockquote"))


def _is_inside(element: Element, *tags: str) -> bool:
    return any(ancestor.tag in tags for ancestor in element.iterancestors())


def _names(element: Element) -> str:
    return _CAMEL.sub("-", f"{element.get('class') or ''} {element.get('id') or ''}").lower()


def _drop(element: Element) -> None:
    """Take it out of its page; what follows it stays."""
    parent = element.getparent()
    if parent is None:
        return
    if element.tail:
        before = element.getprevious()
        if before is None:
            parent.text = (parent.text or "") + element.tail
        else:
            before.tail = (before.tail or "") + element.tail
    parent.remove(element)
