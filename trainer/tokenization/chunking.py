"""Where a long document is divided into chunks: at its structure where that is near, never inside
a word.

A word that is longer than a whole chunk is divided between two characters.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from trainer.corpus.headings import Outline

# What ends at a section, a paragraph or a line gives up at most this share of its length for it:
# packing cannot fill all that is given up.
_NEAR_SECTION = 1 / 8
_NEAR = 1 / 16

_PARAGRAPH, _LINE = re.compile(r"\n\n(?!\n)"), re.compile(r"\n(?!\n)")
_STOPS = (".", "!", "?", "\N{HORIZONTAL ELLIPSIS}")
_STOPS_WITHOUT_SPACE = ("\N{IDEOGRAPHIC FULL STOP}", "\uff01", "\uff1f")  # full-width ! and ?
_STOP = re.compile(f"[{re.escape(''.join(_STOPS + _STOPS_WITHOUT_SPACE))}]")
_REACH = 8  # a sentence starts at most so many characters behind the stop before it
_CLOSING = "\"')]\u2019\u201d"


def text_boundary(text: str, low: int, high: int, near_share: float = _NEAR) -> int:
    """The last place in (low, high] behind a paragraph, else a line, else a word, else `high`.

    Paragraphs and lines are looked for in the last `near_share` only.
    """
    near = high - round((high - low) * near_share)
    for separator, start in (("\n\n", near), ("\n", near), (" ", low), ("\n", low)):
        found = text.rfind(separator, start, high)
        if found >= 0:
            return found + len(separator)
    return high


def best_boundary(
    text: str, starts: Sequence[int], low: int, high: int, outline: Outline, offset: int
) -> int:
    """The token in (low, high] with which the next chunk best begins: the last one near `high` that
    starts a section, paragraph, line or sentence, else a word, else a character; else `high`.

    `starts` is the character of `text` at which each token starts; `text` begins at character
    `offset` of the document that `outline` describes.
    """
    section = _section_boundary(starts, low, high, outline, offset)
    if section is not None:
        return section
    near = _near(low, high, _NEAR)
    for begins in (_PARAGRAPH, _LINE):
        if (at := _last_match(begins, text, starts, near, high)) is not None:
            return at
    if (at := _last_sentence(text, starts, near, high)) is not None:
        return at
    for is_boundary in (_word, _character):
        for at in range(high, low, -1):
            if starts[at] > starts[at - 1] and is_boundary(text, starts[at]):
                return at
    return high


def _near(low: int, high: int, share: float) -> int:
    return max(low, high - round((high - low) * share))


def _section_boundary(
    starts: Sequence[int], low: int, high: int, outline: Outline, offset: int
) -> int | None:
    near = _near(low, high, _NEAR_SECTION)
    found = outline.last_start(offset + starts[near], offset + starts[high])
    if found is None:
        return None
    at = bisect_left(starts, found - offset)
    return at if at <= high and starts[at] == found - offset else None


def _last_match(
    begins: re.Pattern[str], text: str, starts: Sequence[int], low: int, high: int
) -> int | None:
    """The last token in (low, high] that starts where a match of `begins` ends."""
    found = begins.finditer(text, max(starts[low] - 1, 0), starts[high] + 1)
    for character in reversed([match.end() for match in found]):
        at = bisect_left(starts, character)
        if low < at <= high and starts[at] == character:
            return at
    return None


def _last_sentence(text: str, starts: Sequence[int], low: int, high: int) -> int | None:
    """The last token in (low, high] that starts a sentence, looked for behind full stops only."""
    found = _STOP.finditer(text, max(starts[low] - _REACH, 0), starts[high])
    for stop in reversed([match.start() for match in found]):
        behind = min(bisect_right(starts, stop + _REACH) - 1, high)
        for at in range(behind, low, -1):
            if starts[at] <= stop:
                break
            if starts[at] > starts[at - 1] and _sentence(text, starts[at]):
                return at
    return None


def _sentence(text: str, at: int) -> bool:
    before = text[max(at - _REACH, 0) : at]
    if not _word(text, at):
        return before.endswith(_STOPS_WITHOUT_SPACE)
    return before.rstrip().rstrip(_CLOSING).endswith(_STOPS)


def _word(text: str, at: int) -> bool:
    return text[at - 1].isspace() or text[at : at + 1].isspace()


def _character(text: str, at: int) -> bool:
    return True
