"""What two run directories differ in: options, what went in, closing figures, and the course of their metrics.

A difference is a row {"name", "a", "b"}; what one of the two does not have is left out of it.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from amenable.claims.stage_folders import Stage, number
from amenable.recipes.reports.charts import Series, line_chart

Row = dict[str, Any]


def options(a: Stage, b: Stage) -> list[Row]:
    """Options that differ, by dotted name. What went in is told by `inputs`: its content counts, not its path."""
    elsewhere = {"command", "out", *inputs_of(a), *inputs_of(b)}
    one, other = (
        {name: value for name, value in flat(stage.config).items() if name not in elsewhere} for stage in (a, b)
    )
    return comparable(a, b, differing(one, other))


def inputs(a: Stage, b: Stage) -> list[Row]:
    """Inputs whose content differs, each as {"path", "sha256"}."""
    facts = {"a": inputs_of(a), "b": inputs_of(b)}
    hashes = [{name: fact.get("sha256") for name, fact in told.items()} for told in facts.values()]
    changed = [
        {"name": row["name"]} | {side: facts[side][row["name"]] for side in ("a", "b") if side in row}
        for row in differing(*hashes)
    ]
    return comparable(a, b, changed)


def inputs_of(stage: Stage) -> dict[str, dict[str, str]]:
    """By name: path and hash of what a run read."""
    return stage.lineage.get("inputs") or {}


def versions(a: Stage, b: Stage) -> list[Row]:
    """Versions of the software that differ."""
    rows = differing(a.lineage.get("versions") or {}, b.lineage.get("versions") or {})
    return [row for row in rows if {"a", "b"} <= row.keys()]


def figures(a: Stage, b: Stage) -> list[Row]:
    """Closing figures of finished.json, by dotted name."""
    one, other = (numbers(stage.finished or {}) for stage in (a, b))
    return comparable(a, b, [row_of(name, one, other) for name in dict.fromkeys([*one, *other])])


def comparable(a: Stage, b: Stage, rows: list[Row]) -> list[Row]:
    """The rows that mean something: of runs of different stages, those of what both have."""
    return [row for row in rows if a.command == b.command or {"a", "b"} <= row.keys()]


def metrics(a: Stage, b: Stage) -> list[Row]:
    """The metrics that both runs kept, each as {"last", "low", "high", "steps"}."""
    return [
        {"name": name, "a": course(a, name), "b": course(b, name)}
        for name in metric_names(a)
        if name in metric_names(b)
    ]


def metric_names(stage: Stage) -> list[str]:
    """The metrics that a run kept numbers of, in their order."""
    names = dict.fromkeys(name for row in stage.metrics for name in row if name != "step")
    return [name for name in names if stage.curve(name)]


def course(stage: Stage, name: str) -> dict[str, float]:
    """Where a metric ended, between which values it ran, and how many there are."""
    values = [value for _, value in stage.curve(name)]
    return {"last": values[-1], "low": min(values), "high": max(values), "steps": len(values)}


def charts(a: Stage, b: Stage, names: tuple[str, str]) -> list[Markup]:
    """Both runs' curves in one chart, for every metric that both kept and that moves."""
    drawn = []
    for row in metrics(a, b):
        moves = any(row[side]["low"] < row[side]["high"] for side in ("a", "b"))
        series = [Series(names[0], a.curve(row["name"]), 1), Series(names[1], b.curve(row["name"]), 3)]
        chart = line_chart(row["name"], series, keys=False) if moves else None
        drawn += [chart] if chart is not None else []
    return drawn


def flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted name.

    >>> flat({"optimizer": {"beta1": 0.9}, "seed": 1})
    {'optimizer.beta1': 0.9, 'seed': 1}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return found


def numbers(values: dict[str, Any]) -> dict[str, float]:
    """The finite numbers among nested mappings, by dotted name."""
    told = flat(values)
    return {name: found for name in told if (found := number(told, name)) is not None}


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[Row]:
    """A row for every name that the two mappings hold different values of, or that only one of them holds."""
    rows = (row_of(name, a, b) for name in dict.fromkeys([*a, *b]))
    return [row for row in rows if not ({"a", "b"} <= row.keys() and row["a"] == row["b"])]


def row_of(name: str, a: dict[str, Any], b: dict[str, Any]) -> Row:
    """
    >>> row_of("seed", {"seed": 0}, {})
    {'name': 'seed', 'a': 0}
    """
    return {"name": name} | {side: held[name] for side, held in (("a", a), ("b", b)) if name in held}
