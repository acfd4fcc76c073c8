"""How sentences for people count, say times and are broken into lines."""

import os
import sys
import textwrap
import unicodedata
from pathlib import Path


def counted(number: int, one: str, several: str = "") -> str:
    """`1 record`, `2,000 records`; `several` where that is not `one` with an s: `copies`, or with
    a verb, `records are`."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def lasting(seconds: float) -> str:
    """`0.4 seconds`, `48 seconds`, `1.5 minutes`, `2.0 hours`."""
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} hours"
    if seconds >= 60:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.1f} seconds"


def columns(char: str) -> int:
    """How many a terminal takes for `char`."""
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def this_command() -> str:
    """What a person types here to start this program again, as far as its own name shows it."""
    started = Path(sys.argv[0])
    python = os.path.relpath(sys.executable)
    python = "python" if python.startswith("..") else python
    if started.name == "__main__.py":
        return f"{python} -m {started.parent.name}"
    if started.suffix == ".py":
        return f"{python} {started}"
    return started.name


def hanging(text: str, width: int, before: str, further: int = 0) -> str:
    """`text` behind `before`, its further lines below its first, or `further` columns to the right
    of it, in `width` columns."""
    return textwrap.fill(
        text,
        max(width, len(before) + 20),
        initial_indent=before,
        subsequent_indent=" " * (len(before) + further),
        break_long_words=False,
        break_on_hyphens=False,
    )
