"""Where the headings of a document are, and what stands above a place in it."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from trainer.corpus.examples import Heading

_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.*)")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_ADORNMENT = re.compile(r"""([=\-~^"'`#*+:.<>_!$%&,/;?@\\|(){}\[\]])\1{2,}\s*$""")
_LONGEST_TITLE = 200


class Outline:
    """The headings of one document, asked by character."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        self._starts = [heading.at for heading in headings]
        self._above: list[tuple[str, ...]] = []
        self._inside: list[tuple[str, ...]] = []
        open_ones: list[Heading] = []
        for heading in headings:
            while open_ones and open_ones[-1].level >= heading.level:
                open_ones.pop()
            self._above.append(tuple(h.title for h in open_ones))
            open_ones.append(heading)
            self._inside.append(tuple(h.title for h in open_ones))

    def path(self, at: int) -> tuple[str, ...]:
        """Titles of the sections that hold `at`, outermost first; not of one that starts there."""
        last = bisect_right(self._starts, at) - 1
        if last < 0:
            return ()
        return self._above[last] if self._starts[last] == at else self._inside[last]

    def last_start(self, low: int, high: int) -> int | None:
        """The last section start in (low, high]."""
        last = bisect_right(self._starts, high) - 1
        return self._starts[last] if last >= bisect_left(self._starts, low + 1) else None


def markdown_headings(text: str) -> tuple[Heading, ...]:
    """`# Title` and underlined ones; what stands in a fenced block is code."""
    found: list[Heading] = []
    fence = ""
    previous, previous_at = "", 0
    for at, line in _lines(text):
        delimiter = _FENCE.match(line)
        if delimiter and (not fence or delimiter[1].startswith(fence)):
            fence = "" if fence else delimiter[1]
        elif not fence:
            if (atx := _ATX.match(line)) and (title := atx[2].rstrip(" \t#")):
                found.append(Heading(at, len(atx[1]), title[:_LONGEST_TITLE]))
                line = ""
            elif (setext := _SETEXT.match(line)) and _is_title(previous):
                level = 1 if setext[1][0] == "=" else 2
                found.append(Heading(previous_at, level, previous.strip()))
                line = ""
        previous, previous_at = ("" if delimiter or fence else line), at
    return tuple(found)


def rst_headings(text: str) -> tuple[Heading, ...]:
    """Lines underlined with punctuation at least as long; styles are levels as they appear."""
    found: list[Heading] = []
    styles: list[tuple[str, bool]] = []
    lines = list(_lines(text))
    for number in range(1, len(lines)):
        (title_at, title), (_, under) = lines[number - 1 : number + 1]
        if not _ADORNMENT.match(under) or not _is_title(title) or _ADORNMENT.match(title):
            continue
        over = lines[number - 2] if number > 1 else (0, "")
        is_framed = over[1].rstrip() == under.rstrip()
        is_indented = title[:1].isspace() and not is_framed
        if is_indented or len(under.rstrip()) < len(title.strip()):
            continue
        style = (under[0], is_framed)
        if style not in styles:
            styles.append(style)
        at = over[0] if is_framed else title_at
        found.append(Heading(at, styles.index(style) + 1, title.strip()))
    return tuple(found)


def _is_title(line: str) -> bool:
    return any(map(str.isalnum, line)) and len(line) <= _LONGEST_TITLE and line[:1] not in "|>-*+"


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(where it starts, line without its end) of each line."""
    at = 0
    for line in text.split("\n"):
        yield at, line
        at += len(line) + 1
