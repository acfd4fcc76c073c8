"""Curves, laid out once and drawn twice: as SVG for the report, as PNG for the model card."""

import html
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Point = tuple[float, float]

WIDTH, HEIGHT = 480, 250  # of one chart, in the units of its labels' 13
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 34, 30
MOST_POINTS = 300  # of one line; longer ones are averaged
# The roles of lines and their colours on paper; the report's style sheet has those for a screen.
INK = {
    "main": "#2563eb",
    "second": "#d9480f",
    "faint": "#bcd0f7",
    "grid": "#e3e3e3",
    "text": "#444",
}
SCALE = 2  # pixels of the PNG for each unit
SMOOTH = 4  # it is drawn this much larger and shrunk


@dataclass(frozen=True)
class Line:
    """Points by optimizer step. `shape` is a line, dots on a line, or a dashed level."""

    name: str
    points: Sequence[Point]
    role: str = "main"
    shape: str = "line"


@dataclass(frozen=True)
class Chart:
    title: str
    lines: Sequence[Line]
    from_zero: bool = True


@dataclass
class Pen:
    """What a drawing consists of; coordinates have their origin at the top left."""

    stroke: Callable[[Sequence[Point], str, float, bool], None]
    dot: Callable[[Point, str, str], None]
    text: Callable[[Point, str, str, bool], None]
    """anchor is start, middle or end; the last argument is bold"""


@dataclass(frozen=True)
class Scale:
    """From values to places on one axis, with round numbers as ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...] = field(default=())

    @classmethod
    def around(cls, values: Sequence[float], start: float, end: float, most: int) -> "Scale":
        low, high = min(values), max(values)
        if low == high:
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        step = _round_step((high - low) / most)
        ticks = [n * step for n in range(math.ceil(low / step - 1e-9), int(high / step + 1e-9) + 1)]
        return cls(low, high, start, end, tuple(ticks))

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def svg(chart: Chart) -> str:
    """An inline SVG element whose classes are the roles; a sentence where there is no curve."""
    parts: list[str] = []

    def stroke(points: Sequence[Point], role: str, width: float, dashed: bool) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        parts.append(f'<polyline class="{role}" stroke-width="{width}"{dash} points="{path}"/>')

    def dot(at: Point, role: str, words: str) -> None:
        title = f"<title>{html.escape(words)}</title>"
        parts.append(
            f'<circle class="{role}" cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="3">{title}</circle>'
        )

    def text(at: Point, words: str, anchor: str, bold: bool) -> None:
        weight = ' font-weight="600"' if bold else ""
        parts.append(
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}"{weight}>'
            f"{html.escape(words)}</text>"
        )

    if not _draw(chart, Pen(stroke, dot, text)):
        return f"<p>{html.escape(chart.title)}: too few steps for a curve.</p>"
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(chart.title)}"'
    return f"<svg {box}>{''.join(parts)}</svg>"


def png(charts: Sequence[Chart], columns: int = 2) -> bytes:
    """All charts that have a curve on one white picture."""
    from PIL import Image, ImageDraw

    shown = [chart for chart in charts if _draw(chart, _NO_PEN)]
    rows = max(1, -(-len(shown) // columns))
    size = SCALE * WIDTH * columns, SCALE * HEIGHT * rows
    large = Image.new("RGB", (size[0] * SMOOTH // SCALE, size[1] * SMOOTH // SCALE), "white")
    canvas = ImageDraw.Draw(large)
    for number, chart in enumerate(shown):
        corner = WIDTH * (number % columns), HEIGHT * (number // columns)
        _draw(chart, _canvas_pen(canvas, corner, SMOOTH))
    picture = large.resize(size, Image.Resampling.LANCZOS).quantize(64)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _canvas_pen(canvas: Any, corner: Point, scale: float) -> Pen:
    from PIL import ImageFont

    font = ImageFont.load_default(13 * scale)

    def place(point: Point) -> Point:
        return (corner[0] + point[0]) * scale, (corner[1] + point[1]) * scale

    def stroke(points: Sequence[Point], role: str, width: float, dashed: bool) -> None:
        for part in _dashes(points) if dashed else [points]:
            canvas.line([place(p) for p in part], INK[role], round(width * scale), joint="curve")

    def dot(at: Point, role: str, words: str) -> None:
        canvas.circle(place(at), 3 * scale, INK[role])

    def text(at: Point, words: str, anchor: str, bold: bool) -> None:
        where = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
        width = scale / 4 if bold else 0
        canvas.text(place(at), words, INK["text"], font, where, stroke_width=width)

    return Pen(stroke, dot, text)


_NO_PEN = Pen(lambda *_: None, lambda *_: None, lambda *_: None)


def _draw(chart: Chart, pen: Pen) -> bool:
    """Draw `chart`; False where fewer than two points of any line are known."""
    lines = [Line(n.name, _thinned(n.points), n.role, n.shape) for n in chart.lines]
    curves = [line for line in lines if line.shape != "level"]
    xs = [x for line in curves for x, _ in line.points]
    if len(set(xs)) < 2:
        return False
    ys = [y for line in lines for _, y in line.points] + ([0.0] if chart.from_zero else [])
    across = Scale.around(xs, LEFT, WIDTH - RIGHT, 5)
    up = Scale.around(ys, HEIGHT - BOTTOM, TOP, 5)
    _axes(across, up, pen)
    pen.text((LEFT, 18), chart.title, "start", True)
    _legend([line for line in lines if line.name and line.points], pen)
    for line in lines:
        places = [(across.at(x), up.at(y)) for x, y in line.points]
        if line.shape == "level" and places:
            ends = [(LEFT, places[0][1]), (WIDTH - RIGHT, places[0][1])]
            pen.stroke(ends, line.role, 1.5, True)
            continue
        if len(places) > 1:
            pen.stroke(places, line.role, 1 if line.role == "faint" else 2, False)
        if line.shape == "dots":
            for (x, y), place in zip(line.points, places, strict=True):
                pen.dot(place, line.role, f"step {x:g}: {y:.4g}")
    return True


def _axes(across: Scale, up: Scale, pen: Pen) -> None:
    for tick in up.ticks:
        y = up.at(tick)
        pen.stroke([(LEFT, y), (WIDTH - RIGHT, y)], "grid", 1, False)
        pen.text((LEFT - 6, y + 4), _short(tick), "end", False)
    for tick in across.ticks:
        if tick == int(tick):
            pen.text((across.at(tick), HEIGHT - BOTTOM + 18), _short(tick), "middle", False)


def _legend(lines: Sequence[Line], pen: Pen) -> None:
    """From the right, where the title has left room."""
    x = float(WIDTH - RIGHT)
    for line in reversed(lines):
        pen.text((x, 18), line.name, "end", False)
        x -= 6.6 * len(line.name) + 8
        pen.stroke([(x - 16, 14), (x, 14)], line.role, 2, line.shape == "level")
        x -= 28


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Finite points, averaged in groups where they are many."""
    known = [(x, y) for x, y in points if math.isfinite(y)]
    size = -(-len(known) // MOST_POINTS) or 1
    groups = [known[at : at + size] for at in range(0, len(known), size)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group))
        for group in groups
    ]


def smoothed(points: Iterable[Point], keep: float = 0.9) -> list[Point]:
    """The moving average that weighs each step before by `keep`, corrected for its start."""
    out: list[Point] = []
    mean = weight = 0.0
    for x, y in points:
        if math.isfinite(y):
            mean, weight = keep * mean + (1 - keep) * y, keep * weight + 1 - keep
            out.append((x, mean / weight))
    return out


def _dashes(points: Sequence[Point]) -> Iterable[list[Point]]:
    """A level line of two points as dashes of 5 and gaps of 4."""
    for (x, y), (end, _) in pairwise(points):
        while x < end:
            yield [(x, y), (min(x + 5, end), y)]
            x += 9


def _round_step(rough: float) -> float:
    """1, 2 or 5 times a power of ten, not below `rough`."""
    power = 10 ** math.floor(math.log10(rough))
    return float(next(n * power for n in (1, 2, 5, 10) if n * power >= rough * (1 - 1e-9)))


def _short(value: float) -> str:
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2g}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.10g}"
