"""A chart of an Office document -> its title, and its values as a table."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import zip_longest

from trainer.corpus.cells import cell, line
from trainer.corpus.packages import Element, child, kind_of

_MOST_POINTS = 200  # of a series: more are a picture, and no table


def chart(root: Element) -> str:
    """A block of text; "" where the chart says nothing."""
    found = child(root, "chart")
    title = "" if found is None else _title(found)
    series = [part for part in root.iter() if kind_of(part) == "ser"]
    columns = [_points(part, "cat", "xVal") for part in series[:1]]
    columns += [_points(part, "val", "yVal") for part in series]
    names = ["", *(" ".join(_points(part, "tx")) for part in series)]
    if max(map(len, columns), default=0) > _MOST_POINTS:
        columns = []
    rows = zip_longest(*columns, fillvalue="")
    lines = [line([cell(words) for words in row]) for row in (names, *rows)]
    shown = "\n".join(found for found in lines if found)
    return "\n\n".join(part for part in (title, shown) if part)


def _title(element: Element) -> str:
    title = child(element, "title")
    if title is None:
        return ""
    return " ".join("".join(p.text or "" for p in title.iter() if kind_of(p) == "t").split())


def _points(series: Element, *kinds: str) -> list[str]:
    """What was saved of a series under one of these names, each value at its place."""
    parts = (child(series, kind) for kind in kinds)
    found = {at: words for part in parts if part is not None for at, words in _saved(part)}
    return [found.get(at, "") for at in range(max(found, default=-1) + 1)]


def _saved(element: Element) -> Iterator[tuple[int, str]]:
    for point in element.iter():
        if kind_of(point) == "pt":
            value = child(point, "v")
            at = point.get("idx") or ""
            if value is not None and at.isdecimal() and int(at) < 100 * _MOST_POINTS:
                yield int(at), _shown(value.text or "")


def _shown(value: str) -> str:
    """1 for 1.0, and 0.3 for 0.30000000000000004."""
    with suppress(ValueError):
        return f"{float(value):.15g}" if value[:1].isdigit() or value[:1] == "-" else value
    return value
