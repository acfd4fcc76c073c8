"""The curves of a run, as SVG and as a picture."""

import io
import math
import re

import pytest
from PIL import Image
from support.run_records import ROWS, record

from trainer.reporting.charts import Chart, Line, Scale, png, smoothed, svg
from trainer.reporting.html_report import charts


def test_a_gap_or_a_number_that_is_none_breaks_no_curve() -> None:
    points = [(1, 1.0), (2, math.nan), (3, 3.0), (4, math.inf)]
    drawn = svg(Chart("Loss", [Line("", points)]))
    assert "nan" not in drawn
    assert len(re.findall(r'class="main"[^>]*points="([^"]*)"', drawn)[0].split()) == 2
    assert svg(Chart("Loss", [Line("", points[:1])])).startswith("<p>")
    assert smoothed(points, keep=0) == [(1, 1.0), (3, 3.0)]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 5.2], (0, 2, 4)),
        ([0, 2e-4], (0, 5e-5, 1e-4, 1.5e-4, 2e-4)),
        ([0.27, 0.31], (0.27, 0.28, 0.29, 0.3, 0.31)),
        ([7, 7], (4, 6, 8, 10)),
        ([0, 0], (-0.4, -0.2, 0, 0.2, 0.4)),
    ],
)
def test_ticks_are_round_numbers_within_the_values(
    values: list[float], ticks: tuple[float, ...]
) -> None:
    scale = Scale.around(values, 0, 100, 5)
    assert scale.ticks == pytest.approx(ticks)
    assert (scale.at(scale.low), scale.at(scale.high)) == (0, 100)


def test_the_picture_shows_the_same_curves_and_is_small() -> None:
    data = png(charts(record(), ROWS))
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    assert picture.size == (1920, 1000)
    assert {(37, 99, 235), (217, 72, 15)} <= {
        color for _, color in picture.getcolors(1 << 24) or []
    }
    assert len(data) < 100_000
    assert png([])  # a run of one step has a picture too
