"""Where a long document is cut: at its structure where that is near, never inside a word.

A word that is longer than a whole sequence is cut between two characters.
"""

from bisect import bisect_left
from collections.abc import Sequence

from trainer.corpus import Outline

# What ends at a section, a paragraph or a line gives up at most this share of its length for it:
# packing cannot fill all that is given up.
_NEAR_SECTION = 1 / 8
_NEAR = 1 / 16

_STOPS = (".", "!", "?", "\N{HORIZONTAL ELLIPSIS}")
_STOPS_WITHOUT_SPACE = ("\N{IDEOGRAPHIC FULL STOP}", "\uff01", "\uff1f")  # full-width ! and ?
_CLOSING = "\"')]\u2019\u201d"


def text_boundary(text: str, low: int, high: int, near_share: float = _NEAR) -> int:
    """The last place in (low, high] behind a paragraph, else a line, else a word, else `high`.

    Paragraphs and lines are looked for in the last `near_share` only.
    """
    near = high - round((high - low) * near_share)
    for mark, start in (("\n\n", near), ("\n", near), (" ", low), ("\n", low)):
        found = text.rfind(mark, start, high)
        if found >= 0:
            return found + len(mark)
    return high


def best_cut(
    text: str, starts: Sequence[int], low: int, high: int, outline: Outline, offset: int
) -> int:
    """The token in (low, high] at which a sequence is best cut: the last one near `high` that
    starts a section, paragraph, line or sentence, else a word, else a character; else `high`.

    `starts` is the character of `text` at which each token starts; `text` begins at character
    `offset` of the document that `outline` describes.
    """
    section = _section_cut(starts, low, high, outline, offset)
    if section is not None:
        return section
    for begins, share in (
        (_paragraph, _NEAR),
        (_line, _NEAR),
        (_sentence, _NEAR),
        (_word, 1),
        (_character, 1),
    ):
        for at in range(high, _near(low, high, share), -1):
            if starts[at] > starts[at - 1] and begins(text, starts[at]):
                return at
    return high


def _near(low: int, high: int, share: float) -> int:
    return max(low, high - round((high - low) * share))


def _section_cut(
    starts: Sequence[int], low: int, high: int, outline: Outline, offset: int
) -> int | None:
    near = _near(low, high, _NEAR_SECTION)
    found = outline.last_start(offset + starts[near], offset + starts[high])
    if found is None:
        return None
    at = bisect_left(starts, found - offset)
    return at if at <= high and starts[at] == found - offset else None


def _paragraph(text: str, at: int) -> bool:
    return text[at - 2 : at] == "\n\n" and text[at : at + 1] != "\n"


def _line(text: str, at: int) -> bool:
    return text[at - 1] == "\n" and text[at : at + 1] != "\n"


def _sentence(text: str, at: int) -> bool:
    before = text[max(at - 8, 0) : at]
    if not _word(text, at):
        return before.endswith(_STOPS_WITHOUT_SPACE)
    return before.rstrip().rstrip(_CLOSING).endswith(_STOPS)


def _word(text: str, at: int) -> bool:
    return text[at - 1].isspace() or text[at : at + 1].isspace()


def _character(text: str, at: int) -> bool:
    return True
