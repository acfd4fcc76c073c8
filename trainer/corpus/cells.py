"""Rows of tables as lines: what stands between the cells is told from what stands inside."""

from collections.abc import Sequence

MOST_COLUMNS = 64  # of a table that one cell may span


def cell(words: str) -> str:
    """On one line, and without a sign of its own that would begin the next cell."""
    return " ".join(words.split()).replace("\\|", "|").replace("|", "\\|")


def line(cells: Sequence[str]) -> str:
    """Without the empty ones at its end."""
    filled = max((at for at, words in enumerate(cells, start=1) if words), default=0)
    return " | ".join(cells[:filled])
