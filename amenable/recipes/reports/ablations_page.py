"""Report of `amenable classify-ablations`: a table of classifiers on the same examples, with paired tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from amenable.functional.statistics import bootstrap, mcnemar, pearson
from amenable.recipes.reports.formatting import NONE, change, decimal, signed
from amenable.recipes.reports.publish import publish
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.terminal import Grid
from amenable.seeds import seeded_generator

Row = dict[str, Any]
FIGURES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "f1_macro": "mean F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
}
"""key in the metrics -> head of its column"""


def read_metrics(folder: Path) -> Row:
    """Return the held-out figures of a run of `amenable classify`."""
    finished = json.loads((folder / "finished.json").read_text("utf-8"))
    return {**finished["validation"], "seconds": finished["seconds"]}


def write(folder: Path, metrics: Mapping[str, Row], rows: Mapping[str, Sequence[Row]], command: str) -> Path:
    """Write ablations.json and ablations.html, print the table, and return the folder.

    metrics: figures by the name of a classifier; the first is the one that others differ from. rows: its predictions.
    """
    first, *others = metrics
    differences = {name: paired(rows[first], rows[name]) for name in others}
    grid = table(metrics, differences)
    figures = {"command": command, "classifiers": dict(metrics), "differences": differences}
    figures["headline"] = headline(first, differences)
    matrices = [{"name": name, **row} for name, row in metrics.items() if "confusion" in row]
    values: Row = {"headline": figures["headline"], "grid": grid, "matrices": matrices, "command": command}
    page = render("ablations.jinja", "report.css", **values)
    return publish(folder, "ablations", figures, page, grid)


def paired(first: Sequence[Row], second: Sequence[Row]) -> Row:
    """Return by how much a second classifier is better on the examples of a first: accuracy or Pearson's correlation,
    with a bootstrap interval over examples; of accuracy also the p-value of McNemar's test."""
    theirs = {key_of(row): row for row in second}
    pairs = [(row, theirs[key_of(row)]) for row in first if key_of(row) in theirs]
    generator = seeded_generator(0, "ablations")
    if isinstance(pairs[0][0]["predicted"], float):
        labels, a, b = (
            torch.tensor([float(value) for value in column])
            for column in zip(*((x["label"], x["predicted"], y["predicted"]) for x, y in pairs))
        )
        value, low, high = bootstrap(
            lambda i: pearson(b[i], labels[i]) - pearson(a[i], labels[i]), len(pairs), generator
        )
        return {"metric": "pearson", "value": value, "low": low, "high": high, "n": len(pairs)}
    hits = torch.tensor([[x["predicted"] == x["label"], y["predicted"] == y["label"]] for x, y in pairs]).double()
    gains = hits[:, 1] - hits[:, 0]
    value, low, high = bootstrap(lambda i: float(gains[i].mean()), len(pairs), generator)
    p_value = mcnemar(int((gains < 0).sum()), int((gains > 0).sum()))
    return {"metric": "accuracy", "value": value, "low": low, "high": high, "n": len(pairs), "p": p_value}


def key_of(row: Row) -> tuple[str, ...]:
    """Return what tells an example from others."""
    return str(row["id"]), *row["texts"]


def table(metrics: Mapping[str, Row], differences: Mapping[str, Row]) -> Grid:
    """Return the table: a row a classifier, with its figures, the difference from the first, and p."""
    names = [name for name in FIGURES if any(name in row for row in metrics.values())]
    rows = []
    for name, row in metrics.items():
        cells = [cell(row.get(figure)) for figure in names]
        difference = differences.get(name)
        gap = change(difference) if difference else NONE
        p_value = f"{difference['p']:.2g}" if difference and "p" in difference else NONE
        rows.append((name, *cells, gap, p_value))
    first = next(iter(metrics.values()))
    references = "".join(f"; {name} {decimal(first[name])}" for name in ("majority", "chance") if name in first)
    note = f"{first['n']} held-out examples; 95 % intervals; differences are paired, p is McNemar's{references}"
    heads = ("classifier", *(FIGURES[name] for name in names), "difference", "p")
    return Grid("Ablations", heads, rows, note)


def cell(figure: Row | None) -> str:
    """Return a figure with its interval."""
    if figure is None or figure["low"] is None:
        return NONE if figure is None else decimal(figure["value"], 3)
    return f"{decimal(figure['value'], 3)} ({decimal(figure['low'], 3)} to {decimal(figure['high'], 3)})"


def headline(first: str, differences: Mapping[str, Row]) -> list[str]:
    """Return a sentence on each classifier whose interval of the difference leaves out 0, or on none."""
    lines = []
    for name, gap in differences.items():
        if gap["low"] > 0 or gap["high"] < 0:
            side = "better" if gap["value"] > 0 else "worse"
            lines.append(f"'{name}' is {side} than '{first}': {gap['metric']} {signed(gap['value'])}.")
    return lines or [f"No classifier can be told from '{first}' on these examples."]
