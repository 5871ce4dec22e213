"""Learning curves: the charts of every command, its runs side by side in them, and reward and gold against KL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from amenable.claims.stage_folders import Stage, number, order_of
from amenable.recipes.reports.charts import Series, line_chart
from amenable.recipes.reports.diff_runs import metric_names
from amenable.recipes.reports.formatting import display_name
from amenable.recipes.reports.report_data import Figures
from amenable.recipes.reports.stage_cards import report_of

BY_SOURCE = ("loss", "eval/loss", "eval/bpb", "accuracy", "rewards/accuracies", "eval/accuracy", "objective/scores")
"""metrics that runs on several sources have by source too, as KEY/SOURCE"""
COLOURS = 10
"""number of colours in the style sheet"""


@dataclass(frozen=True)
class Panel:
    """The charts of one command."""

    title: str
    keys: list[tuple[str, int]]
    """name and colour of its runs, where it has several"""
    charts: list[Markup]


def panels(stages: Sequence[Stage], figures: Figures) -> list[Panel]:
    """Return a panel for every command with metrics to draw, in the order they happen."""
    panels = []
    for command in sorted({stage.command for stage in stages}, key=order_of):
        runs = [stage for stage in stages if stage.command == command and stage.metrics]
        report = report_of(command, dict.fromkeys(name for run in runs for name in metric_names(run)))
        charts = [chart for name, keys in report.curves for chart in charts_of(name, with_sources(keys, runs), runs)]
        if charts:
            charts.insert(1, gold_by_step(figures["over_optimisation"], runs))
        not_empty = [chart for chart in charts if chart is not None]
        if not_empty:
            legend = [(display_name(run.name), colour_of(i)) for i, run in enumerate(runs)]
            panels.append(Panel(report.title, legend if len(runs) > 1 else [], not_empty))
    return panels


def with_sources(keys: Sequence[tuple[str, str]], runs: Sequence[Stage]) -> list[tuple[str, str]]:
    """Return a chart's keys, and after each of them those of the sources that any run measured apart."""
    names = dict.fromkeys(name for run in runs for name in metric_names(run))
    return [
        (name, label if name == key else f"{label}, {name.removeprefix(f'{key}/')}")
        for key, label in keys
        for name in (key, *(name for name in names if key in BY_SOURCE and name.startswith(f"{key}/")))
    ]


def charts_of(name: str, keys: Sequence[tuple[str, str]], runs: Sequence[Stage]) -> list[Markup | None]:
    """Draw one run's keys in one chart; of several runs a chart a key, a curve a run."""
    if len(runs) == 1:
        return [line_chart(name, [Series(label, runs[0].curve(key), 1 + i) for i, (key, label) in enumerate(keys)])]
    return [
        line_chart(
            f"{name}, {label}" if len(keys) > 1 else name,
            [Series(display_name(run.name), run.curve(key), colour_of(i)) for i, run in enumerate(runs)],
            keys=False,
        )
        for key, label in keys
    ]


def colour_of(index: int) -> int:
    """Return the colour of a curve by its index; the greyest comes last."""
    return (index + 1) % COLOURS


def gold_by_step(rows: Sequence[Figures], runs: Sequence[Stage]) -> Markup | None:
    """Draw the gold of the policies' answers to held-out prompts by step."""
    series = [
        measured_series(display_name(run.name), rows_of(rows, run.name), "step", "gold", colour_of(i), with_band=False)
        for i, run in enumerate(runs)
    ]
    return line_chart("Gold, held-out prompts", series, keys=False)


def over_optimisation(figures: Figures) -> list[Markup]:
    """Draw reward and gold against the KL from SFT: a curve a run, and best of n as its own."""
    rows, best_of = figures["over_optimisation"], figures["best_of"]
    runs = dict.fromkeys(str(row["run"]) for row in rows)
    curves = [(display_name(run), rows_of(rows, run), "proxy") for run in runs]
    curves += [(f"best of n, {display_name(name)}", points, "reward") for name, points in best_of.items()]
    charts = [
        line_chart(
            title,
            [
                measured_series(name, points, "kl", key or proxy, colour_of(i))
                for i, (name, points, proxy) in enumerate(curves)
            ],
            x_name="KL",
        )
        for title, key in (("What was paid: the reward model’s score", ""), ("What was meant: gold", "gold"))
    ]
    return [chart for chart in charts if chart is not None]


def rows_of(rows: Sequence[Figures], run: str) -> list[Figures]:
    """Return the rows of one run."""
    return [row for row in rows if row["run"] == run]


def measured_series(name: str, rows: Sequence[Figures], x: str, y: str, colour: int, with_band: bool = True) -> Series:
    """Return `y` against `x` over the rows that hold both, with a band where they hold `<y>_low` and `<y>_high`."""
    numbers = [[number(row, key) for key in (x, y, f"{y}_low", f"{y}_high")] for row in rows]
    points = [(a, b) for a, b, _, _ in numbers if a is not None and b is not None]
    band = [(a, low, high) for a, _, low, high in numbers if a is not None and low is not None and high is not None]
    return Series(name, points, colour, band if with_band else ())
