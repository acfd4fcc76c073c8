"""The lines of a PDF's page: where they stand, how large they are, in which order they are read."""

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

_LINE_HYPHEN = "\x02"  # pdfium's, in place of the hyphen of a word that two lines divide
_GAP = 1.5  # times the size of the letters: what parts columns, and not words
_FEWEST_LINES = 5  # of a column
_FEWEST_WORDS = 4  # of a line in one, at the median; cells of a table are shorter
_MOST_CROSSING = 0.3  # of the lines: titles, footers, wide figures
_STEPS = 40


@dataclass(frozen=True)
class Line:
    """Text that stands in one line; from x0 to x1 and up from y, in points, letters of `size`."""

    text: str
    x0: float = 0.0
    x1: float = 0.0
    y: float = 0.0
    size: float = 0.0


def lines_of(textpage: Any) -> Iterator[Line]:
    """Those of pdfium's text page, as its author wrote them; wide gaps part them."""
    from pypdfium2 import raw

    count = raw.FPDFText_CountChars(textpage)
    unicode_of = raw.FPDFText_GetUnicode
    box = _boxes(raw, textpage)
    started: list[tuple[str, int]] = []
    for at in range(max(count, 0)):
        code = unicode_of(textpage, at)
        char = chr(code) if code <= sys.maxunicode else "\N{REPLACEMENT CHARACTER}"
        if char in "\r\n":
            yield from _parted(started, box)
            started = []
        elif char == _LINE_HYPHEN:
            yield from _parted([*started, ("-", at)], box)
            started = []
        elif "\udc00" <= char <= "\udfff" and started and "\ud800" <= started[-1][0] <= "\udbff":
            started[-1] = _pair(started[-1][0], char), at
        else:
            started.append((char, at))
    yield from _parted(started, box)


def in_reading_order(lines: Iterator[Line]) -> list[Line]:
    """A column after the other where text stands in two and is written from side to side."""
    found = list(lines)
    gutter = _gutter(found)
    if gutter is None:
        return found
    sides = [_side(line, gutter) for line in found]
    along = [side for side in sides if side]
    turns = sum(a != b for a, b in pairwise(along))
    if turns <= 2 * (1 + sides.count(0)):
        return found  # already a column after the other
    ordered: list[Line] = []
    band: list[Line] = []
    for line in sorted(found, key=lambda line: -line.y):
        if _side(line, gutter):
            band.append(line)
        else:
            ordered += [*_columns(band, gutter), line]
            band = []
    return ordered + _columns(band, gutter)


def _columns(band: Sequence[Line], gutter: float) -> list[Line]:
    return sorted(band, key=lambda line: _side(line, gutter))


def _side(line: Line, gutter: float) -> int:
    """-1 left of it, 1 right of it, 0 across."""
    if line.x1 <= gutter + 2:
        return -1
    return 1 if line.x0 >= gutter - 2 else 0


def _gutter(lines: Sequence[Line]) -> float | None:
    """Where the white stripe between two columns of prose stands."""
    lines = [line for line in lines if line.text.strip()]
    if len(lines) < 2 * _FEWEST_LINES:
        return None
    low, high = min(line.x0 for line in lines), max(line.x1 for line in lines)
    tried = (low + (0.3 + 0.4 * n / _STEPS) * (high - low) for n in range(_STEPS + 1))
    best = min(tried, key=lambda x: sum(not _side(line, x) for line in lines))
    left, right = ([line for line in lines if _side(line, best) == s] for s in (-1, 1))
    if min(len(left), len(right)) < _FEWEST_LINES:
        return None
    if len(lines) - len(left) - len(right) > _MOST_CROSSING * len(lines):
        return None
    if (
        min(median(len(line.text.split()) for line in side) for side in (left, right))
        < _FEWEST_WORDS
    ):
        return None
    return best if _stand_side_by_side(left, right) else None


def _stand_side_by_side(left: Sequence[Line], right: Sequence[Line]) -> bool:
    spans = [(min(line.y for line in side), max(line.y for line in side)) for side in (left, right)]
    shared = min(top for _, top in spans) - max(bottom for bottom, _ in spans)
    return shared > 0.5 * min(top - bottom for bottom, top in spans)


def _pair(high: str, low: str) -> str:
    return (high + low).encode("utf-16-le", "surrogatepass").decode("utf-16-le")


Box = Callable[[int], tuple[float, float, float, float] | None]


def _parted(chars: Sequence[tuple[str, int]], box: Box) -> Iterator[Line]:
    """A line of pdfium's, in two where a gap in it is wider than one between words."""
    started: list[tuple[str, int]] = []
    is_behind_space = False
    for char, at in chars:
        if char.isspace():
            started.append((char, at))
            is_behind_space = True
            continue
        here = box(at) if is_behind_space or not started else None
        if here is not None and is_behind_space and started:
            previous = next((box(i) for c, i in reversed(started) if not c.isspace()), None)
            if previous is not None and here[0] - previous[1] > _GAP * (here[3] - here[2]):
                yield from _line(started, box)
                started = []
        started.append((char, at))
        is_behind_space = False
    yield from _line(started, box)


def _line(chars: Sequence[tuple[str, int]], box: Box) -> Iterator[Line]:
    text = "".join(char for char, _ in chars).strip(" \t\xa0")
    seen = [at for char, at in chars if not char.isspace()]
    if not text or not seen:
        return
    first, middle, last = (box(seen[at]) for at in (0, len(seen) // 2, -1))
    if first is None or middle is None or last is None:
        yield Line(text)
    else:
        yield Line(text, first[0], last[1], first[2], round(2 * (middle[3] - middle[2])) / 2)


def _boxes(raw: Any, textpage: Any) -> Box:
    """(left, right, bottom, top) of a character by its number, its font's height and not its own;
    None where it has none."""
    rect = raw.FS_RECTF()
    pointer = ctypes.byref(rect)

    def box(at: int) -> tuple[float, float, float, float] | None:
        if not raw.FPDFText_GetLooseCharBox(textpage, at, pointer):
            return None
        return rect.left, rect.right, rect.bottom, rect.top

    return box
