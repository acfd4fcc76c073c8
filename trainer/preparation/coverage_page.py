"""What `prepare` kept and left out, as a page for a person: one file that loads nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.runtime.templates import render

TEMPLATE = Path(__file__).with_name("prepare.html.jinja")
MOST_SHOWN = 200


def render_page(summary: Mapping[str, Any], records: Sequence[Mapping[str, str]]) -> str:
    """The page; `summary` is that of `Kept`, `records` are what was published."""
    return render(TEMPLATE, summary=summary, shown=records[:MOST_SHOWN])
