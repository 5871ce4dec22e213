"""Differences of two run directories: options, inputs, versions, closing figures and metrics.

A difference is a row {"name", "a", "b"}; a side that lacks the name is left out of it.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from amenable.claims.stage_folders import Stage, number
from amenable.recipes.reports.charts import Series, line_chart

Row = dict[str, Any]


def options(a: Stage, b: Stage) -> list[Row]:
    """Return options that differ, by dotted name, without inputs: `inputs` compares their content, not their path."""
    left_out = {"command", "out", *inputs_of(a), *inputs_of(b)}
    values = [{name: value for name, value in flat(run.config).items() if name not in left_out} for run in (a, b)]
    return comparable(a, b, differing(*values))


def inputs(a: Stage, b: Stage) -> list[Row]:
    """Return inputs whose content differs, each as {"path", "sha256"}."""
    facts = {"a": inputs_of(a), "b": inputs_of(b)}
    hashes = [{name: fact.get("sha256") for name, fact in side.items()} for side in facts.values()]
    changed = [
        {"name": row["name"]} | {side: facts[side][row["name"]] for side in ("a", "b") if side in row}
        for row in differing(*hashes)
    ]
    return comparable(a, b, changed)


def inputs_of(stage: Stage) -> dict[str, dict[str, str]]:
    """Return path and hash of a run's inputs, by name."""
    return stage.lineage.get("inputs") or {}


def versions(a: Stage, b: Stage) -> list[Row]:
    """Return versions of libraries that differ."""
    return in_both(differing(a.lineage.get("versions") or {}, b.lineage.get("versions") or {}))


def figures(a: Stage, b: Stage) -> list[Row]:
    """Return the closing figures of finished.json, by dotted name."""
    figures_a, figures_b = (numbers(stage.finished or {}) for stage in (a, b))
    return comparable(a, b, [row_of(name, figures_a, figures_b) for name in dict.fromkeys([*figures_a, *figures_b])])


def comparable(a: Stage, b: Stage, rows: list[Row]) -> list[Row]:
    """Return the rows; of runs of different stages only those that both have."""
    return rows if a.command == b.command else in_both(rows)


def in_both(rows: list[Row]) -> list[Row]:
    """Return the rows that both runs have."""
    return [row for row in rows if {"a", "b"} <= row.keys()]


def metrics(a: Stage, b: Stage) -> list[Row]:
    """Return the metrics that both runs logged, each as {"last", "low", "high", "steps"}."""
    shared = [name for name in metric_names(a) if name in metric_names(b)]
    return [{"name": name, "a": metric_range(a, name), "b": metric_range(b, name)} for name in shared]


def metric_names(stage: Stage) -> list[str]:
    """Return the metrics that a run logged numbers of, in their order."""
    names = dict.fromkeys(name for row in stage.metrics for name in row if name != "step")
    return [name for name in names if stage.curve(name)]


def metric_range(stage: Stage, name: str) -> dict[str, float]:
    """Return the last, lowest and highest value of a metric, and their number."""
    values = [value for _, value in stage.curve(name)]
    return {"last": values[-1], "low": min(values), "high": max(values), "steps": len(values)}


def charts(a: Stage, b: Stage, names: tuple[str, str]) -> list[Markup]:
    """Draw both runs' curves in one chart, for every shared metric that moves."""
    charts = []
    for row in metrics(a, b):
        if any(row[side]["low"] < row[side]["high"] for side in ("a", "b")):
            series = [Series(names[0], a.curve(row["name"]), 1), Series(names[1], b.curve(row["name"]), 3)]
            charts.append(line_chart(row["name"], series, keys=False))
    return [chart for chart in charts if chart is not None]


def flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Flatten nested mappings, by dotted name.

    >>> flat({"optimizer": {"beta1": 0.9}, "seed": 1})
    {'optimizer.beta1': 0.9, 'seed': 1}
    """
    flattened: dict[str, Any] = {}
    for name, value in values.items():
        flattened |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return flattened


def numbers(values: dict[str, Any]) -> dict[str, float]:
    """Return the finite numbers among nested mappings, by dotted name."""
    flattened = flat(values)
    return {name: value for name in flattened if (value := number(flattened, name)) is not None}


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[Row]:
    """Return a row for every name whose value differs, or that only one of the mappings has."""
    rows = (row_of(name, a, b) for name in dict.fromkeys([*a, *b]))
    return [row for row in rows if not ({"a", "b"} <= row.keys() and row["a"] == row["b"])]


def row_of(name: str, a: dict[str, Any], b: dict[str, Any]) -> Row:
    """Return the row of one name.

    >>> row_of("seed", {"seed": 0}, {})
    {'name': 'seed', 'a': 0}
    """
    return {"name": name} | {side: values[name] for side, values in (("a", a), ("b", b)) if name in values}
