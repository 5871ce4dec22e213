import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.recipes.reports.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Series,
    calibration_chart,
    evenly_spaced,
    frame_of,
    line_chart,
    running_mean,
    scatter_chart,
    short,
    sparkline,
    ticks,
)


def data_of(chart: str) -> dict:
    result = re.search(r'data-chart="([^"]*)"', chart)
    assert result is not None
    return json.loads(html.unescape(result.group(1)))


def test_a_curve_is_drawn_where_its_numbers_say() -> None:
    chart = line_chart("Loss", [Series("loss", [(0, 2.0), (10, 1.0)])])
    assert chart is not None
    # the range of y is 1..2, widened by 6 % of it on either side
    top, bottom = (TOP + (BOTTOM - TOP) * share for share in (0.06 / 1.12, 1.06 / 1.12))
    assert f"M{LEFT:.1f} {top:.1f}L{RIGHT:.1f} {bottom:.1f}" in chart
    assert data_of(chart)["series"] == [{"name": "loss", "colour": 1, "points": [[0, 2.0], [10, 1.0]]}]
    assert "<output>1</output>" in chart


def test_a_long_curve_is_faint_with_its_mean_on_top_and_its_data_thinned() -> None:
    chart = line_chart("Loss", [Series("loss", [(i, i % 2) for i in range(5000)])])
    assert chart is not None
    assert chart.count('class="line faint') == 1 and chart.count("<path class=") > 2
    assert len(data_of(chart)["series"][0]["points"]) == 300


def test_of_many_curves_only_the_means_are_drawn_and_no_last_values() -> None:
    series = [Series(name, [(i, i % 2) for i in range(90)]) for name in "abc"]
    chart = line_chart("Loss", series)
    assert chart is not None
    assert "line faint" not in chart and "<output></output>" in chart and chart.count('class="key') == 3
    unnamed = line_chart("Loss", series, keys=False)
    assert unnamed is not None and 'class="key' not in unnamed


def test_a_band_lies_behind_its_curve_and_within_the_frame() -> None:
    chart = line_chart("Gold", [Series("gold", [(0, 0.0), (1, 1.0)], 4, [(0, -3.0, 3.0), (1, 0.0, 3.0)])])
    assert chart is not None
    # the range is that of the band, -3..3, widened by 6 % of it
    top, bottom = (TOP + (BOTTOM - TOP) * share for share in (0.06 / 1.12, 1.06 / 1.12))
    low_end = TOP + (BOTTOM - TOP) * 0.56 / 1.12
    drawn = f"M{LEFT:.1f} {top:.1f}L{RIGHT:.1f} {top:.1f}L{RIGHT:.1f} {low_end:.1f}L{LEFT:.1f} {bottom:.1f}Z"
    assert f'<path class="band c4" d="{drawn}"/>' in chart
    assert chart.index('class="band') < chart.index('class="line')


def test_nothing_to_draw_is_no_chart() -> None:
    assert line_chart("Loss", [Series("loss", [])]) is None
    assert sparkline([(1, 1.0), (2, 2.0)]) is None
    assert calibration_chart("Calibration", [("all", [], 1)]) is None


def test_titles_and_names_are_escaped() -> None:
    chart = line_chart("<b>", [Series("<i>", [(0, 1.0)]), Series('"', [(0, 1.0)])])
    assert chart is not None
    assert "<b>" not in chart and "<i>" not in chart and "&lt;i&gt;" in chart
    assert [one["name"] for one in data_of(chart)["series"]] == ["<i>", '"']


def test_a_level_curve_and_a_single_point_have_a_range() -> None:
    for points in ([(1, 0.0)], [(1, 3.0), (2, 3.0)], [(5, -2.0)]):
        frame = frame_of(points)
        assert frame.x_low < frame.x_high and frame.y_low < points[0][1] < frame.y_high


def test_calibration_lies_on_the_diagonal_where_it_is_perfect() -> None:
    bins = [{"predicted": 0.5, "actual": 0.5, "count": 9}, {"predicted": 1.0, "actual": 1.0, "count": 9}]
    chart = calibration_chart("Calibration", [("all", bins, 1)])
    assert chart is not None
    diagonal = re.search(r'class="diagonal" d="M(\d+) (\d+)L(\d+) (\d+)"', chart)
    line = re.search(r'class="line thin c1" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', chart)
    assert diagonal is not None and line is not None
    assert [float(value) for value in diagonal.groups()] == [float(value) for value in line.groups()]


def test_running_mean_by_hand() -> None:
    # 3 points: one neighbour on either side, fewer at the ends
    assert running_mean([(1, 0.0), (2, 3.0), (3, 9.0)]) == [(1, 1.5), (2, 4.0), (3, 6.0)]


def test_thinning_keeps_both_ends() -> None:
    points = [(float(i), 0.0) for i in range(1001)]
    stored = evenly_spaced(points, 11)
    assert [x for x, _ in stored] == [100.0 * i for i in range(11)]
    assert evenly_spaced(points[:5], 11) == points[:5]


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_within(low: float, width: float) -> None:
    high = low + width
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return  # no room for numbers in between
    result = ticks(low, high, 4)
    room = 1e-6 * (high - low) + 1e-9 * abs(high)
    assert 1 <= len(result) <= 6
    assert all(low - room <= value <= high + room for value in result)


@pytest.mark.parametrize(
    ("value", "report"), [(0.0, "0"), (-0.12345, "−0.123"), (1234.5, "1234"), (25_000, "25k"), (0.00012, "0.00012")]
)
def test_short_numbers(value: float, report: str) -> None:
    assert short(value) == report


def test_a_scatter_has_a_dot_a_point() -> None:
    drawn = scatter_chart("Learned against true", [(0.0, 1.0), (10.0, 3.0), (5.0, 2.0)])
    xs = [float(x) for x in re.findall(r'<circle class="dot c1" cx="([\d.]+)"', str(drawn))]
    assert len(xs) == 3 and xs[0] < xs[2] < xs[1] and xs[2] == pytest.approx((xs[0] + xs[1]) / 2, abs=0.1)
    assert scatter_chart("nothing", []) is None
