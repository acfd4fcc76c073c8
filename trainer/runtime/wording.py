"""How sentences for people count, say times and are broken into lines."""

import os
import re
import sys
import textwrap
import unicodedata
from pathlib import Path

_VARIABLE = re.compile(r"QLORA_([A-Z0-9_]+)")


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


def sized(count: float) -> str:
    """So many bytes: `4.00 GB`, `0.25 MB`."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"


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


def as_typed(text: str) -> str:
    """`text` with the flag in the place of each variable whose setting was typed as a flag here:
    whoever gave `--epochs` has set no QLORA_EPOCHS."""
    typed = {word.partition("=")[0] for word in sys.argv[1:] if word.startswith("--")}

    def name(found: re.Match[str]) -> str:
        flag = "--" + found[1].lower().replace("_", "-")
        return flag if flag in typed else found[0]

    return _VARIABLE.sub(name, text)


def hanging(text: str, width: int, before: str, further: int = 0) -> str:
    """`text`, with settings as they were typed, behind `before`: further lines below its first, or
    `further` columns to the right of it, in `width` columns."""
    return textwrap.fill(
        as_typed(text),
        max(width, len(before) + 20),
        initial_indent=before,
        subsequent_indent=" " * (len(before) + further),
        break_long_words=False,
        break_on_hyphens=False,
    )
