"""Small charts as inline SVG: lines with values under the pointer, sparklines, calibration.

Colours are classes (c0, c1 ...) that the page's style sheet defines for light and dark. Every chart carries its points
as data, so that report.js can read a value out; without scripts the picture stands as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape

Point = tuple[float, float]

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 10, 166
"""the plot's box in the picture"""
MOST_POINTS = 300
MOST_READ = 2
"""of so many curves the last values are written beside the title and noisy ones shown behind their mean; not of more"""
SMOOTH_FROM = 60
"""a curve of so many points is shown faint, with its running mean on top"""


@dataclass(frozen=True)
class Series:
    """One named curve, its points in the order they are joined."""

    name: str
    points: Sequence[Point]
    colour: int = 1
    band: Sequence[tuple[float, float, float]] = ()
    """(x, low, high): an interval drawn behind the curve"""


@dataclass(frozen=True)
class Frame:
    """Data range and the box it is drawn in."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (RIGHT - LEFT) * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - self.y_low) / (self.y_high - self.y_low)


def line_chart(title: str, series: Sequence[Series], x_name: str = "step", keys: bool = True) -> Markup | None:
    """A figure with one or more curves over steps; None where no curve has a point.

    keys: False where the curves' names and colours are told elsewhere, once for several charts.
    """
    drawn = [replace(one, points=thinned(one.points)) for one in series if one.points]
    if not drawn:
        return None
    edges = [(x, y) for one in series for x, low, high in one.band for y in (low, high)]
    frame = frame_of([point for one in series for point in one.points] + edges)
    shapes = [axes(frame), *(band(one, frame) for one in drawn if one.band)]
    for one in series:
        shapes.append(curve(one, frame, len(drawn) <= MOST_READ) if one.points else "")
    dots = "".join(f'<circle class="dot c{one.colour}" r="3.2"/>' for one in drawn)
    shapes.append(f'<g class="reader"><line y1="{TOP}" y2="{BOTTOM}"/>{dots}</g>')
    told = "".join(f'<span class="key c{one.colour}">{escape(one.name)}</span>' for one in drawn)
    told = told if keys and drawn[1:] else ""
    last = ", ".join(short(one.points[-1][1]) for one in drawn) if len(drawn) <= MOST_READ else ""
    ends = f", ends at {last}" if last else ""
    return Markup(
        f'<figure class="chart" data-chart="{escape(chart_data(drawn, frame, x_name))}">'
        f"<figcaption><span>{escape(title)} {told}</span><output>{escape(last)}</output></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}{escape(ends)}">'
        f'{"".join(shapes)}</svg><div class="tip" hidden></div></figure>'
    )


def sparkline(points: Sequence[Point], colour: int = 1) -> Markup | None:
    """A curve alone, without axes; None where there are too few points for one."""
    if len(points) < 3:
        return None
    points = thinned(running_mean(points) if len(points) >= SMOOTH_FROM else points, 80)
    frame = frame_of(points)
    across, down = 160 / (RIGHT - LEFT), 26 / (BOTTOM - TOP)
    places = [((frame.x(x) - LEFT) * across, 2 + (frame.y(y) - TOP) * down) for x, y in points]
    return Markup(
        f'<svg class="spark" viewBox="-3 0 166 30" preserveAspectRatio="none" aria-hidden="true">'
        f'<path class="line c{colour}" d="{path(places)}"/></svg>'
    )


def calibration_chart(title: str, groups: Sequence[tuple[str, Sequence[dict[str, float]], int]]) -> Markup | None:
    """Predicted against actual share of right answers, dot by bin; on the diagonal the scores mean what they say."""
    groups = [(name, bins, colour) for name, bins, colour in groups if bins]
    if not groups:
        return None
    values = [value for _, bins, _ in groups for one in bins for value in (one["predicted"], one["actual"])]
    low = min(0.5, math.floor(min(values) * 10) / 10)
    frame = Frame(low, 1.0, low, 1.0)
    shapes = [axes(frame, percent=True), f'<path class="diagonal" d="M{LEFT} {BOTTOM}L{RIGHT} {TOP}"/>']
    for name, bins, colour in groups:
        places = [(frame.x(one["predicted"]), frame.y(one["actual"])) for one in bins]
        shapes.append(f'<path class="line thin c{colour}" d="{path(places)}"/>')
        for (x, y), one in zip(places, bins):
            told = f"{name}: predicted {one['predicted']:.0%}, actual {one['actual']:.0%}, {one['count']:.0f} pairs"
            mark = (
                f'<circle class="dot c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(told)}</title></circle>'
            )
            shapes.append(mark)
    keys = "".join(f'<span class="key c{colour}">{escape(name)}</span>' for name, _, colour in groups)
    return Markup(
        f'<figure class="chart"><figcaption><span>{escape(title)} {keys}</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(shapes)}</svg></figure>'
    )


def frame_of(points: Sequence[Point]) -> Frame:
    """The range of some points, a little wider than they are; never empty."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(ys), max(ys)
    room = 0.06 * (y_high - y_low) or 0.1 * abs(y_high) or 1.0
    return Frame(x_low, x_high if x_high > x_low else x_low + 1, y_low - room, y_high + room)


def axes(frame: Frame, percent: bool = False) -> str:
    """Faint lines and their numbers; a zero within the range is drawn stronger."""
    shapes = []
    for value in ticks(frame.y_low, frame.y_high, 4):
        y, kind = frame.y(value), "zero" if value == 0 else "rule"
        shapes.append(f'<path class="{kind}" d="M{LEFT} {y:.1f}H{RIGHT}"/>')
        told = f"{value:.0%}" if percent else short(value)
        shapes.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{told}</text>')
    for value in ticks(frame.x_low, frame.x_high, 5):
        told = f"{value:.0%}" if percent else short(value)
        shapes.append(f'<text x="{frame.x(value):.1f}" y="{BOTTOM + 17}" text-anchor="middle">{told}</text>')
    return "".join(shapes)


def curve(series: Series, frame: Frame, raw: bool = True) -> str:
    """One curve: where it has many points their running mean, with `raw` the points faint behind it; dots where few."""

    def drawn(points: Sequence[Point], kind: str) -> str:
        places = [(frame.x(x), frame.y(y)) for x, y in thinned(points)]
        return f'<path class="line {kind} c{series.colour}" d="{path(places)}"/>'

    if len(series.points) >= SMOOTH_FROM:
        return (drawn(series.points, "faint") if raw else "") + drawn(running_mean(series.points), "")
    if len(series.points) > 12:
        return drawn(series.points, "")
    dots = (
        f'<circle class="dot c{series.colour}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3"/>'
        for x, y in series.points
    )
    return drawn(series.points, "") + "".join(dots)


def band(series: Series, frame: Frame) -> str:
    """The area between the lows and the highs of a curve's intervals."""
    above = [(frame.x(x), frame.y(high)) for x, _, high in series.band]
    below = [(frame.x(x), frame.y(low)) for x, low, _ in series.band]
    return f'<path class="band c{series.colour}" d="{path([*above, *reversed(below)])}Z"/>'


def running_mean(points: Sequence[Point]) -> list[Point]:
    """Each value's mean with its neighbours, a twenty-fifth of the curve on either side."""
    reach = max(1, len(points) // 25)
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    out = []
    for i, (x, _) in enumerate(points):
        start, end = max(0, i - reach), min(len(points), i + reach + 1)
        out.append((x, (sums[end] - sums[start]) / (end - start)))
    return out


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """At most so many of the points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers within [low, high], some `about` of them.

    >>> ticks(0.0, 10.0, 5)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
    return [round(i * size, 12) + 0.0 for i in range(first, last + 1)]


def path(places: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def chart_data(series: Sequence[Series], frame: Frame, x_name: str) -> str:
    """What report.js needs to read values out."""
    curves = [
        {"name": one.name, "colour": one.colour, "points": [[x, float(f"{y:.4g}")] for x, y in one.points]}
        for one in series
    ]
    ranges = [frame.x_low, frame.x_high, frame.y_low, frame.y_high]
    return json.dumps({"range": ranges, "box": [LEFT, RIGHT, TOP, BOTTOM], "x": x_name, "series": curves})


def short(value: float) -> str:
    """Three figures that matter, a real minus sign, thousands as k.

    >>> short(-0.12345), short(25000.0), short(3.0)
    ('−0.123', '25k', '3')
    """
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k".replace("-", "−")
    return f"{value:.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:.0f}".replace("-", "−")
