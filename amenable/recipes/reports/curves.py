"""Learning curves: the charts of every command, its runs side by side in them, and reward and gold against KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from amenable.claims.stage_folders import Stage, number, order_of
from amenable.recipes.reports import words
from amenable.recipes.reports.charts import Series, line_chart
from amenable.recipes.reports.diff_runs import metric_names
from amenable.recipes.reports.report_data import Figures
from amenable.recipes.reports.stage_cards import report_of

COLOURS = 10
"""how many the style sheet has"""


@dataclass(frozen=True)
class Panel:
    """The charts of one command."""

    title: str
    keys: list[tuple[str, int]]
    """name and colour of its runs, where it has several"""
    charts: list[Markup]


def panels(stages: Sequence[Stage], figures: Figures) -> list[Panel]:
    """A panel for every command that has something to draw, in the order they happen."""
    made = []
    for command in sorted({stage.command for stage in stages}, key=order_of):
        runs = [stage for stage in stages if stage.command == command and stage.metrics]
        report = report_of(command, dict.fromkeys(name for run in runs for name in metric_names(run)))
        drawn = [chart for name, keys in report.curves for chart in charts_of(name, keys, runs)]
        if drawn:
            drawn.insert(1, gold_by_step(figures["over_optimisation"], runs))
        kept = [chart for chart in drawn if chart is not None]
        if kept:
            keys = [(words.name_of(run.name), colour_of(i)) for i, run in enumerate(runs)]
            made.append(Panel(report.title, keys if len(runs) > 1 else [], kept))
    return made


def charts_of(name: str, keys: Sequence[tuple[str, str]], runs: Sequence[Stage]) -> list[Markup | None]:
    """One run: all keys in one chart. Several runs: a chart a key, a curve a run."""
    if len(runs) == 1:
        return [line_chart(name, [Series(label, runs[0].curve(key), 1 + i) for i, (key, label) in enumerate(keys)])]
    return [
        line_chart(
            f"{name}, {label}" if len(keys) > 1 else name,
            [Series(words.name_of(run.name), run.curve(key), colour_of(i)) for i, run in enumerate(runs)],
            keys=False,
        )
        for key, label in keys
    ]


def colour_of(place: int) -> int:
    """A colour for the curve of that place; the greyest is left to the last."""
    return (place + 1) % COLOURS


def gold_by_step(rows: Sequence[Figures], runs: Sequence[Stage]) -> Markup | None:
    """Gold of the policy's answers to held-out prompts as it learned, where it was worked out."""
    series = [
        Series(words.name_of(run.name), points(rows_of(rows, run.name), "step", "gold"), colour_of(i))
        for i, run in enumerate(runs)
    ]
    return line_chart("Gold, held-out prompts", series, keys=False)


def over_optimisation(figures: Figures) -> list[Markup]:
    """Reward and gold against the distance from SFT: a curve a run, and best of n as its own."""
    rows, best_of = figures["over_optimisation"], figures["best_of"]
    runs = list(dict.fromkeys(str(row["run"]) for row in rows))
    told = [(words.name_of(run), rows_of(rows, run), "proxy") for run in runs]
    told += [(f"best of n, {words.name_of(name)}", found, "reward") for name, found in best_of.items()]
    drawn = [
        line_chart(
            title,
            [
                Series(name, points(found, "kl", key or proxy), colour_of(i), band(found, key or proxy))
                for i, (name, found, proxy) in enumerate(told)
            ],
            x_name="KL",
        )
        for title, key in (("What was paid: the reward model’s score", ""), ("What was meant: gold", "gold"))
    ]
    return [chart for chart in drawn if chart is not None]


def rows_of(rows: Sequence[dict[str, Any]], run: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["run"] == run]


def points(rows: Sequence[dict[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    found = [(number(row, x), number(row, y)) for row in rows]
    return [(one, other) for one, other in found if one is not None and other is not None]


def band(rows: Sequence[dict[str, Any]], key: str) -> list[tuple[float, float, float]]:
    """(KL, low, high) of the rows that hold an interval of `key`."""
    found = [(number(row, "kl"), number(row, f"{key}_low"), number(row, f"{key}_high")) for row in rows]
    return [(x, low, high) for x, low, high in found if x is not None and low is not None and high is not None]
