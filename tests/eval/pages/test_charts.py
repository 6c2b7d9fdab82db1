"""Charts: gaps and dots, equal axes, labels that do not cover each other, seconds below steps; histograms."""

import math
import re

import numpy as np

from understudy.eval.pages.charts import Line, Mark, chart
from understudy.eval.pages.histogram import Histogram, histogram


def drawn(lines, **settings):
    return chart(lines, x_label="x", y_label="y", **settings)


def numbers(text, pattern):
    return [tuple(map(float, found)) for found in re.findall(pattern, text)]


def test_what_is_not_finite_is_a_gap():
    low, high = [0.0, 0.1, math.nan, 0.3, math.nan, 0.2], [0.4, 0.5, math.nan, 0.7, math.nan, 0.6]
    middle = [0.2, 0.3, math.nan, 0.5, math.nan, 0.4]
    svg = drawn([Line(range(6), middle, "a", "rate", low, high, dots=True)], y_range=(0, 1))
    assert svg.count("<polyline") == svg.count("<polygon") == 3 and svg.count("<circle") == 4
    assert svg.count('class="bar a"') == 2  # points that stand alone
    assert "nan" not in svg and svg.count('data-key="0"') == 3


def test_equal_axes_make_the_diagonal_45_degrees():
    svg = drawn([Line([0, 1], [0, 1], "soft", "equal")], y_range=(0, 1), square=True)
    ((x0, y0, x1, y1),) = numbers(svg, r'points="([\d.]+),([\d.]+) ([\d.]+),([\d.]+)"')
    assert x1 - x0 == y0 - y1 > 0


def test_labels_of_close_points_do_not_cover_each_other():
    marks = [Mark(0.5 + 0.004 * i, 0.5 + 0.003 * i, "a", str(i)) for i in range(6)]
    svg = drawn([Line([0, 1], [0, 1], "soft")], y_range=(0, 1), square=True, marks=marks)
    found = re.findall(r'<text class="name" x="([\d.]+)" y="([\d.]+)" text-anchor="(start|end)">', svg)
    boxes = [(float(x) - 12 * (end == "end"), float(y)) for x, y, end in found]
    assert len(boxes) == 6
    for i, (x, y) in enumerate(boxes):
        assert all(abs(x - other) >= 12 or abs(y - below) >= 20 for other, below in boxes[:i])


def test_seconds_stand_below_steps():
    svg = drawn([Line([0, 200], [0, 1], "a")], rate=20)
    assert ">10 s</text>" in svg and ">200</text>" in svg and 'data-rate="20"' in svg
    places = dict(re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">([^<]+)</text>', svg))
    at = {text: float(x) for x, text in places.items()}
    assert at["10 s"] > at["8 s"] > at["6 s"]


def test_a_histogram_names_its_axes_and_marks_the_ends():
    values = np.array([0.0, 1.0, 1.0, 2.0, np.nan])
    svg = histogram(Histogram(values, "length, s", "frames", marks={"first": np.array([0.0, np.nan])}))
    assert "length, s</text>" in svg and "frames</text>" in svg and svg.count("<rect") == 3
    assert svg.count('<path class="first"') == 1 and "nan" not in svg


def test_a_constant_is_told_instead_of_drawn():
    assert "always 1" in histogram(Histogram(np.ones(5), "reward", "episodes"))
    assert "no finite value" in histogram(Histogram(np.array([np.nan]), "reward", "episodes"))
