"""The numbers of lists: as browsers and PowerPoint count them, and Word over a document."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trainer.corpus.packages import Element, Package, child, kind_of, value

BULLET = "*"
_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l")),
    *((40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i")),
)
_MOST_ROMAN = 3999
_WORD_FORMATS = {"lowerLetter": "a", "upperLetter": "A", "lowerRoman": "i", "upperRoman": "I"}
_SLIDE_FORMATS = {"alphaLc": "a", "alphaUc": "A", "romanLc": "i", "romanUc": "I"}
_SIGNS = {"Period": "{}.", "ParenR": "{})", "ParenBoth": "({})"}
_AUTOMATIC = re.compile(
    r"(alphaLc|alphaUc|romanLc|romanUc|arabic|circleNum)\w*?(Period|ParenR|ParenBoth)?"
)
_LEVELS = 9  # that Word's lists have
_PLACE = re.compile(r"%([1-9])")


def numeral(number: int, form: str) -> str:
    """`number` as HTML's list types name it: "1", "a", "A", "i" or "I"."""
    if form in ("a", "A") and number > 0:
        letters = ""
        while number:
            number, at = divmod(number - 1, 26)
            letters = chr(ord(form) + at) + letters
        return letters
    if form in ("i", "I") and 0 < number <= _MOST_ROMAN:
        found = ""
        for size, letters in _ROMAN:
            times, number = divmod(number, size)
            found += letters * times
        return found if form == "i" else found.upper()
    return str(number)


class AutomaticNumbers:
    """Those of the paragraphs of one text on a slide. Ask for each in their order."""

    def __init__(self, paragraphs: Iterable[Element]) -> None:
        styles = next((e for e in paragraphs if kind_of(e) == "lstStyle"), None)
        self._styles = {kind_of(e): e for e in styles} if styles is not None else {}
        self._counts: dict[int, tuple[str, int]] = {}

    def of(self, paragraph: Element) -> str:
        """The number with a space behind it; empty for a paragraph that has none."""
        own = child(paragraph, "pPr")
        level = int(lvl) if (lvl := value(own, "lvl") or "").isdecimal() else 0
        for below in [known for known in self._counts if known > level]:
            del self._counts[below]
        numbered = self._numbered(own, level)
        if numbered is None:
            self._counts.pop(level, None)
            return ""
        form, start = value(numbered, "type") or "", value(numbered, "startAt") or ""
        before, number = self._counts.get(level, ("", 0))
        if before != form:
            number = (int(start) if start.isdecimal() else 1) - 1
        self._counts[level] = form, number + 1
        kind, sign = found.groups() if (found := _AUTOMATIC.fullmatch(form)) else ("", None)
        shown = numeral(number + 1, _SLIDE_FORMATS.get(kind, "1"))
        return "  " * level + _SIGNS.get(sign or "", "{}").format(shown) + " "

    def _numbered(self, own: Element | None, level: int) -> Element | None:
        """By its own properties, which may say that it has none, else by those of its level."""
        for properties in (own, self._styles.get(f"lvl{level + 1}pPr")):
            for part in properties if properties is not None else ():
                if kind_of(part) in ("buNone", "buChar", "buBlip"):
                    return None
                if kind_of(part) == "buAutoNum":
                    return part
        return None


@dataclass
class _Level:
    form: str = "decimal"
    text: str = ""
    start: int = 1

    def of(self, definition: Element) -> "_Level":
        """What `definition` says, and this where it says nothing."""
        start = value(child(definition, "start"))
        return _Level(
            value(child(definition, "numFmt")) or self.form,
            self.text if (text := value(child(definition, "lvlText"))) is None else text,
            int(start) if start and start.isdecimal() else self.start,
        )


@dataclass
class _List:
    """Lists that count on together: `counts` is the last number of each level."""

    levels: dict[int, _Level]
    counts: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Which list a paragraph or a style is in, and at which level of it."""

    list: str
    level: int = 0


class Numbering:
    """The lists of a Word document. Ask for each paragraph's mark in their order."""

    def __init__(self, package: Package, main: str) -> None:
        self._lists: dict[str, _List] = {}
        self._starts: dict[str, dict[int, int]] = {}
        for part in package.related(main, "numbering"):
            self._read(package.xml(part))

    def _read(self, root: Element) -> None:
        shared = {
            value(element, "abstractNumId"): _List(_levels(element, {}))
            for element in root
            if kind_of(element) == "abstractNum"
        }
        for element in root:
            if kind_of(element) != "num":
                continue
            found = shared.get(value(child(element, "abstractNumId")), _List({}))
            name = value(element, "numId") or ""
            overrides = [e for e in element if kind_of(e) == "lvlOverride"]
            self._starts[name] = dict(filter(None, map(_start, overrides)))
            for override in overrides:
                found.levels |= _levels(override, found.levels)
            self._lists[name] = found

    def mark(self, place: Place) -> str:
        """What stands in front of the next paragraph at `place`: "2.1" or a bullet, behind two
        spaces for each level above it; empty for no list."""
        found = self._lists.get(place.list)
        if found is None:
            return ""
        level = found.levels.get(place.level, _Level(text=f"%{place.level + 1}."))
        if place.level in (starts := self._starts.get(place.list, {})):
            found.counts[place.level] = starts.pop(place.level) - 1
        found.counts[place.level] = found.counts.get(place.level, level.start - 1) + 1
        for below in range(place.level + 1, _LEVELS):
            found.counts.pop(below, None)
        return "  " * place.level + _label(found, level) if level.form != "none" else ""


def place_of(properties: Element | None, inherited: Place | None = None) -> Place | None:
    """The list that a paragraph's or a style's properties name; `inherited` is that of what it is
    based on."""
    named = None if properties is None else child(properties, "numPr")
    if named is None:
        return inherited
    of_list, level = value(child(named, "numId")), value(child(named, "ilvl"))
    above = inherited or Place("")
    at = int(level) if level and level.isdecimal() else above.level
    return Place(above.list if of_list is None else of_list, min(at, _LEVELS - 1))


def _levels(parent: Element, before: Mapping[int, _Level]) -> dict[int, _Level]:
    found = {}
    for element in parent:
        at = value(element, "ilvl") or ""
        if kind_of(element) == "lvl" and at.isdecimal():
            found[int(at)] = before.get(int(at), _Level()).of(element)
    return found


def _start(override: Element) -> tuple[int, int] | None:
    at, start = value(override, "ilvl") or "", value(child(override, "startOverride")) or ""
    return (int(at), int(start)) if at.isdecimal() and start.isdecimal() else None


def _label(found: _List, level: _Level) -> str:
    if level.form == "bullet":
        return BULLET

    def number(place: re.Match[str]) -> str:
        at = int(place[1]) - 1
        of = found.levels.get(at, _Level())
        return numeral(found.counts.get(at, of.start), _WORD_FORMATS.get(of.form, "1"))

    return _PLACE.sub(number, level.text).strip()
