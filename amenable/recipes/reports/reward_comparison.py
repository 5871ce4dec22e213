"""The comparison of rewards as sentences, tables and charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from amenable.recipes.reports.charts import calibration_chart
from amenable.recipes.reports.formatting import NONE, change, decimal, interval, percent, plural, share
from amenable.recipes.reports.terminal import Grid

Row = dict[str, Any]

MAX_GROUPS = 20
"""annotators or groups in a table; compare.json has all"""


def by_accuracy(rankings: Row) -> dict[str, Row]:
    """Return the figures of the rewards by name, the best first."""
    models: dict[str, Row] = rankings["models"]
    return dict(sorted(models.items(), key=lambda item: (item[0] != rankings["best"], -item[1]["accuracy"])))


def sentences(rankings: Row) -> list[str]:
    """Return which reward predicts people best, how far the others are behind, and whom the best predicts worst."""
    (best, figures), *others = by_accuracy(rankings).items()
    lines = [
        f"{best} predicts people best: it orders {share(figures, 'accuracy')} of"
        f" {plural(figures['pairs'], 'pair')} as they did."
    ]
    for name, row in others:
        gap = row["difference"]
        behind = gap["high"] is not None and gap["high"] < 0
        lines.append(
            f"{name}, paired with it: {points(gap)} percentage points{'' if behind else ', not shown to be worse'}."
        )
    if figures["worst"] is not None:
        groups = groups_of(rankings, figures)
        worst = groups[figures["worst"]]
        lines.append(
            f"{best} does worst on {figures['worst']}, of {len(groups)} by {rankings['group_by']}:"
            f" {share(worst, 'accuracy')} of {plural(worst['pairs'], 'pair')}."
        )
    if len(rankings["agreement"]) == 1:
        (row,) = rankings["agreement"]
        bounds = interval(row["low"], row["high"])
        lines.append(f"{row['a']} and {row['b']} agree on {percent(row['value'])} of the pairs ({bounds}).")
    return lines


def points(gap: Mapping[str, Any]) -> str:
    """Return a difference of shares in percentage points, with its interval."""
    return change({key: None if gap[key] is None else 100 * gap[key] for key in ("value", "low", "high")})


def groups_of(rankings: Row, figures: Row) -> dict[str, Row]:
    """Return a reward's figures by group, or by annotator where the rankings were not grouped."""
    groups: dict[str, Row] = figures.get("by_group") or figures["by_annotator"]
    return groups


def grids(rankings: Row) -> list[Grid]:
    """Return the tables: rewards x measures, sections, groups and annotators x rewards, and agreement."""
    models = by_accuracy(rankings)
    named = [("by_group", rankings["group_by"]), ("by_annotator", "annotator")]
    tables = [group_grid(models, key, title) for key, title in named]
    agreement = [agreement_grid(rankings, models)] if len(models) > 2 else []
    tables = [section_grid(models), *tables]
    return [measure_grid(rankings, models), *(grid for grid in tables if len(grid.rows) > 1), *agreement]


def measure_grid(rankings: Row, models: Mapping[str, Row]) -> Grid:
    """Return rewards x measures."""
    heads = ("accuracy", "points from the best", "log loss", "Brier", "ECE")
    lengths = ("longer preferred", "shorter preferred")
    rows = [
        (
            name,
            share(row, "accuracy"),
            points(row["difference"]) if "difference" in row else NONE,
            decimal(row["loss"], 3),
            decimal(row["brier"], 3),
            decimal(row["ece"], 3),
            percent(row["accuracy_longer"]),
            percent(row["accuracy_shorter"]),
            worst_text(rankings, row),
        )
        for name, row in models.items()
    ]
    counts = f"{plural(rankings['rankings'], 'ranking')}, {plural(rankings['pairs'], 'pair')}"
    note = f"{counts}; intervals are over prompts, differences are paired"
    if rankings["left_out"]:
        note += f"; {rankings['left_out']:,} left out: longer than a context"
    note += ". Accuracy where people preferred the longer answer, and where the shorter, shows the bias of length."
    note += " ECE: expected calibration error."
    return Grid("Held-out rankings", ("", *heads, *lengths, f"worst {rankings['group_by']}"), rows, note)


def worst_text(rankings: Row, figures: Row) -> str:
    """Return the name and accuracy of the group that a reward predicts worst."""
    if figures["worst"] is None:
        return NONE
    return f"{figures['worst']} {share(groups_of(rankings, figures)[figures['worst']], 'accuracy')}"


def section_grid(models: Mapping[str, Row]) -> Grid:
    """Return sections x rewards, in the order of the test; no rows where there are no sections."""
    best = next(iter(models.values())).get("by_section") or {}
    rows = [
        (name, *(share(row["by_section"][name], "accuracy") for row in models.values()), str(best[name]["pairs"]))
        for name in best
    ]
    note = "Subsets weigh as in RewardBench, otherwise alike; the score is the mean of the sections."
    return Grid("Accuracy by section", ("", *models, "pairs"), rows, note)


def group_grid(models: Mapping[str, Row], key: str, title: str) -> Grid:
    """Return groups x rewards, those first that the best reward predicts worst."""
    best = next(iter(models.values())).get(key) or {}
    names = sorted(best, key=lambda name: best[name]["accuracy"])
    rows = [
        (name or "none", *(share(row[key][name], "accuracy") for row in models.values()), str(best[name]["pairs"]))
        for name in names[:MAX_GROUPS]
    ]
    note = "The lowest of several is low by chance too: mind the intervals."
    if len(names) > MAX_GROUPS:
        note = f"The lowest {MAX_GROUPS} of {len(names):,}; all are in compare.json. {note}"
    return Grid(f"Accuracy by {title}", ("", *models, "pairs"), rows, note)


def agreement_grid(rankings: Row, models: Mapping[str, Row]) -> Grid:
    """Return rewards x rewards: the share of pairs that both order alike."""
    shares = {frozenset((row["a"], row["b"])): percent(row["value"]) for row in rankings["agreement"]}
    rows = [(a, *(shares.get(frozenset((a, b)), NONE) for b in models)) for a in models]
    return Grid("Agreement", ("", *models), rows, "share of these pairs that both order alike")


def charts(rankings: Row) -> list[Markup]:
    """Return the chart of calibration: predicted against actual share of right pairs."""
    groups = [
        (name, row["calibration"], colour) for colour, (name, row) in enumerate(by_accuracy(rankings).items(), start=1)
    ]
    chart = calibration_chart("Predicted against actual", groups)
    return [chart] if chart is not None else []
