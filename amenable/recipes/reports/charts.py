"""Small charts as inline SVG: lines with values under the pointer, sparklines, calibration.

Colours are classes (c0, c1 ...) that the page's style sheet defines for light and dark. Every chart carries its points
as data, so that report.js can read a value out; without scripts the picture stands as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from markupsafe import Markup, escape

Point = tuple[float, float]
T = TypeVar("T")

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 10, 166
"""the plot's box in the picture"""
MAX_POINTS = 300
MAX_LABELLED = 2
"""up to this many curves have their last value beside the title, and their noise behind the mean"""
SMOOTH_FROM = 60
"""points from which a curve is faint, with its running mean on top"""


@dataclass(frozen=True)
class Series:
    """A named curve, its points in the order they are joined."""

    name: str
    points: Sequence[Point]
    colour: int = 1
    band: Sequence[tuple[float, float, float]] = ()
    """(x, low, high): an interval drawn behind the curve"""


@dataclass(frozen=True)
class Frame:
    """The data range that fills the plot's box."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - self.y_low) / (self.y_high - self.y_low)


def line_chart(title: str, series: Sequence[Series], x_name: str = "step", keys: bool = True) -> Markup | None:
    """Draw one or more curves over steps; None where no curve has a point.

    keys: False where a legend of the curves' names and colours stands elsewhere, once for several charts.
    """
    curves = [curve for curve in series if curve.points]
    if not curves:
        return None
    edges = [(x, y) for curve in series for x, low, high in curve.band for y in (low, high)]
    frame = frame_of([point for curve in curves for point in curve.points] + edges)
    shapes = [axes(frame), *(draw_band(curve, frame) for curve in curves if curve.band)]
    shapes += [draw_curve(curve, frame, len(curves) <= MAX_LABELLED) for curve in curves]
    dots = "".join(f'<circle class="dot c{curve.colour}" r="3.2"/>' for curve in curves)
    shapes.append(f'<g class="reader"><line y1="{TOP}" y2="{BOTTOM}"/>{dots}</g>')
    legend = "".join(key(curve.name, curve.colour) for curve in curves) if keys and curves[1:] else ""
    last = ", ".join(short(curve.points[-1][1]) for curve in curves) if len(curves) <= MAX_LABELLED else ""
    ends = f", ends at {last}" if last else ""
    data = f' data-chart="{escape(chart_data(curves, frame, x_name))}"'
    output = f"<output>{escape(last)}</output>"
    return chart(title, legend, shapes, ends, data, output, '<div class="tip" hidden></div>')


def sparkline(points: Sequence[Point], colour: int = 1) -> Markup | None:
    """Draw a curve alone, without axes; None where there are too few points."""
    if len(points) < 3:
        return None
    points = evenly_spaced(running_mean(points) if len(points) >= SMOOTH_FROM else points, 80)
    frame = frame_of(points)
    x_scale, y_scale = 160 / (RIGHT - LEFT), 26 / (BOTTOM - TOP)
    pixels = [((frame.x(x) - LEFT) * x_scale, 2 + (frame.y(y) - TOP) * y_scale) for x, y in points]
    return Markup(
        f'<svg class="spark" viewBox="-3 0 166 30" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="line c{colour}" d="{path(pixels)}"/></svg>'
    )


def calibration_chart(
    title: str, groups: Sequence[tuple[str, Sequence[dict[str, float]], int]], counted: str = "pairs", low: float = 0.5
) -> Markup | None:
    """Draw predicted against actual share of right answers, a dot a bin; a calibrated model lies on the diagonal.

    counted: what a bin counts. low: the axes begin at it, or below where a bin lies below.
    """
    groups = [(name, bins, colour) for name, bins, colour in groups if bins]
    if not groups:
        return None
    values = [group[key] for _, bins, _ in groups for group in bins for key in ("predicted", "actual")]
    low = min(low, math.floor(min(values) * 10) / 10)
    frame = Frame(low, 1.0, low, 1.0)
    shapes = [axes(frame, percent=True), f'<path class="diagonal" d="M{LEFT} {BOTTOM}L{RIGHT} {TOP}"/>']
    for name, bins, colour in groups:
        pixels = [(frame.x(group["predicted"]), frame.y(group["actual"])) for group in bins]
        shapes.append(f'<path class="line thin c{colour}" d="{path(pixels)}"/>')
        for (x, y), group in zip(pixels, bins):
            text = f"predicted {group['predicted']:.0%}, actual {group['actual']:.0%}, {group['count']:.0f} {counted}"
            title_of_dot = f"<title>{escape(name)}: {text}</title>"
            shapes.append(f'<circle class="dot c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4">{title_of_dot}</circle>')
    return chart(title, "".join(key(name, colour) for name, _, colour in groups), shapes)


def scatter_chart(title: str, points: Sequence[Point], colour: int = 1) -> Markup | None:
    """Draw points alone; None for none."""
    if not points:
        return None
    frame = frame_of(points)
    xs = [x for x, _ in points]
    margin = 0.03 * (max(xs) - min(xs))
    frame = Frame(frame.x_low - margin, frame.x_high + margin, frame.y_low, frame.y_high)
    dots = [
        f'<circle class="dot c{colour}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="2.4"/>'
        for x, y in evenly_spaced(points)
    ]
    return chart(title, "", [axes(frame), *dots])


def chart(
    title: str, legend: str, shapes: Sequence[str], ends: str = "", data: str = "", output: str = "", tip: str = ""
) -> Markup:
    """Return a figure: title, legend and last values above the drawing."""
    label = f"{escape(title)}{escape(ends)}"
    return Markup(
        f'<figure class="chart"{data}><figcaption><span>{escape(title)} {legend}</span>{output}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(shapes)}</svg>{tip}</figure>'
    )


def key(name: str, colour: int) -> str:
    """Return a curve's entry in a legend."""
    return f'<span class="key c{colour}">{escape(name)}</span>'


def frame_of(points: Sequence[Point]) -> Frame:
    """Return the range of points, a little wider than they are; never empty."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    margin = 0.06 * (max(ys) - min(ys)) or 0.1 * abs(max(ys)) or 1.0
    return Frame(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, min(ys) - margin, max(ys) + margin)


def axes(frame: Frame, percent: bool = False) -> str:
    """Draw the grid and its numbers; a zero within the range is stronger."""
    to_text = "{:.0%}".format if percent else short
    shapes = []
    for value in ticks(frame.y_low, frame.y_high, 4):
        y, kind = frame.y(value), "zero" if value == 0 else "rule"
        shapes.append(f'<path class="{kind}" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        shapes.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{to_text(value)}</text>')
    for value in ticks(frame.x_low, frame.x_high, 5):
        shapes.append(f'<text x="{frame.x(value):.1f}" y="{BOTTOM + 17}" text-anchor="middle">{to_text(value)}</text>')
    return "".join(shapes)


def draw_curve(series: Series, frame: Frame, with_points: bool = True) -> str:
    """Draw one curve: many points as their running mean, `with_points` faint behind it; few points with dots."""

    def line(points: Sequence[Point], kind: str = "") -> str:
        pixels = [(frame.x(x), frame.y(y)) for x, y in evenly_spaced(points)]
        return f'<path class="line {kind} c{series.colour}" d="{path(pixels)}"/>'

    if len(series.points) >= SMOOTH_FROM:
        return (line(series.points, "faint") if with_points else "") + line(running_mean(series.points))
    if len(series.points) > 12:
        return line(series.points)
    dots = (
        f'<circle class="dot c{series.colour}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3"/>'
        for x, y in series.points
    )
    return line(series.points) + "".join(dots)


def draw_band(series: Series, frame: Frame) -> str:
    """Draw the area between the lows and the highs of a curve's intervals."""
    above = [(frame.x(x), frame.y(high)) for x, _, high in series.band]
    below = [(frame.x(x), frame.y(low)) for x, low, _ in series.band]
    return f'<path class="band c{series.colour}" d="{path([*above, *reversed(below)])}Z"/>'


def running_mean(points: Sequence[Point]) -> list[Point]:
    """Return each value's mean with its neighbours, a twenty-fifth of the curve on either side."""
    reach, sums = max(1, len(points) // 25), [0.0, *accumulate(y for _, y in points)]
    means = []
    for i, (x, _) in enumerate(points):
        start, end = max(0, i - reach), min(len(points), i + reach + 1)
        means.append((x, (sums[end] - sums[start]) / (end - start)))
    return means


def evenly_spaced(items: Sequence[T], most: int = MAX_POINTS) -> list[T]:
    """Return at most `most` of the items at even distances, the first and the last among them.

    >>> evenly_spaced([1, 5, 10, 15, 20, 25], 3)
    [1, 10, 25]
    """
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers within [low, high], some `about` of them.

    >>> ticks(0.0, 10.0, 5)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
    return [round(i * size, 12) + 0.0 for i in range(first, last + 1)]


def path(pixels: Sequence[Point]) -> str:
    """Return the SVG path through some pixels."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)


def chart_data(series: Sequence[Series], frame: Frame, x_name: str) -> str:
    """Return the points as JSON, from which report.js shows values under the pointer."""
    curves = []
    for curve in series:
        points = [[x, float(f"{y:.4g}")] for x, y in evenly_spaced(curve.points)]
        curves.append({"name": curve.name, "colour": curve.colour, "points": points})
    ranges = [frame.x_low, frame.x_high, frame.y_low, frame.y_high]
    return json.dumps({"range": ranges, "box": [LEFT, RIGHT, TOP, BOTTOM], "x": x_name, "series": curves})


def short(value: float) -> str:
    """Format a number with three significant digits, a real minus sign, thousands as k.

    >>> short(-0.12345), short(25000.0), short(3.0)
    ('−0.123', '25k', '3')
    """
    if abs(value) >= 10_000:
        text = f"{value / 1000:.3g}k"
    else:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", "−")
