"""Tables, matrices and bars of the report, as plain values that report.jinja lays out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from amenable.claims.stage_folders import Stage, number
from amenable.recipes.reports import charts, formatting
from amenable.recipes.reports.formatting import decimal, percent
from amenable.recipes.reports.merge_evaluations import in_display_order
from amenable.recipes.reports.report_data import Figures, by_decoding, headline_judges, preference_of

MEASURES: dict[str, tuple[str, str, Callable[[float | None], str]]] = {
    "gold": ("Gold", "up", decimal),
    "truthful": ("Truthful", "up", percent),
    "hallucination": ("Hallucinates", "down", percent),
    "closed_hallucination": ("Adds to the passage", "down", percent),
    "over_refusal": ("Over-refuses", "down", percent),
    "rude": ("Rude", "down", percent),
    "harmful": ("Helps with harm", "down", percent),
    "follows": ("Follows instructions", "up", percent),
    "ended": ("Ends its answer", "up", percent),
    "length": ("Length, words", "", lambda value: decimal(value, 1)),
    "bpb": ("Bits per byte of raw text", "down", lambda value: decimal(value, 3)),
    "kl": ("KL to SFT, nats", "", decimal),
    "reward": ("Reward", "up", decimal),
    "entropy": ("Entropy, nats an answer", "", lambda value: decimal(value, 1)),
    "temperature": ("Temperature", "", decimal),
}
"""key: label, direction that is better, format"""

SUITES = {
    "truthful": ("Truthfulness", ("truthful", "hallucination", "over_refusal", "gold")),
    "closed": ("Answers from a passage", ("closed_hallucination", "hallucination", "truthful", "gold")),
    "respect": ("Asked to be respectful", ("rude", "harmful", "gold")),
    "familiar": ("Known phrasings, known matters", ("gold", "truthful", "follows")),
    "phrasings": ("New phrasings, known matters", ("gold", "truthful", "follows")),
    "entities": ("Known phrasings, new matters", ("gold", "truthful", "follows")),
}
"""suite: title, measures shown"""

SPLITS = ("train", "validation", "heldout")
"""comparisons a reward model learned from, new ones of the same annotators, ones of other annotators"""


def model_table(figures: Figures, decoding: str) -> dict[str, Any]:
    """Return measures x models for one decoding; the best of a row is marked where there is one."""
    names = list(figures["models"])
    columns = [by_decoding(figures["models"][name], decoding) for name in names]
    rows = [row for key in MEASURES if (row := measure_row(key, columns)) is not None]
    return {"decoding": decoding, "names": names, "rows": rows}


def measure_row(key: str, columns: Sequence[Figures]) -> dict[str, Any] | None:
    """Return the row of one measure, a cell a model; None where no model was measured."""
    label, better, to_text = MEASURES[key]
    measured = [figures[key] for figures in columns if figures[key] is not None]
    if not measured:
        return None
    best = to_text(max(measured) if better == "up" else min(measured)) if better else None
    cells = []
    for figures in columns:
        text = to_text(figures[key])
        note = formatting.half_width(figures.get("gold_low"), figures.get("gold_high")) if key == "gold" else ""
        cells.append({"text": text, "best": figures[key] is not None and text == best, "note": note})
    return {"label": label, "better": better, "cells": unmark_ties(cells)}


def unmark_ties(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cells of a row; where all are best, none is marked."""
    return [{**cell, "best": False} for cell in cells] if all(cell["best"] for cell in cells) else cells


def preference_matrix(figures: Figures, decoding: str) -> dict[str, Any] | None:
    """Return the win rates of the row's model against the column's, tinted by the distance from one half."""
    names, judges = list(figures["models"]), headline_judges(figures)
    if judges is None:
        return None
    rows = [(a, [matrix_cell(preference_of(figures, a, b, decoding, judges)) for b in names]) for a in names]
    count = next((row["n"] for row in figures["preference"] if row["decoding"] == decoding), None)
    return {"decoding": decoding, "names": names, "rows": rows, "n": count}


def matrix_cell(row: Figures | None) -> dict[str, Any] | None:
    """Return the cell of one win rate."""
    if row is None:
        return None
    return {
        "wins": percent(row["wins"]),
        "span": formatting.interval(row["low"], row["high"]),
        "clear": row["low"] > 0.5 or row["high"] < 0.5,
        "side": "good" if row["wins"] >= 0.5 else "bad",
        "tint": round(min(1.0, abs(row["wins"] - 0.5) / 0.4) * 70),
    }


def kind_table(figures: Figures, decoding: str) -> dict[str, Any] | None:
    """Return mean gold by kind of prompt and model, tinted by the distance from zero. None without gold."""
    columns = [by_decoding(model, decoding)["gold_by_kind"] or {} for model in figures["models"].values()]
    kinds = sorted({kind for column in columns for kind in column})
    values = [value for column in columns for value in column.values() if value is not None]
    if not values:
        return None
    most = max(abs(value) for value in values) or 1.0
    rows = [
        (kind.replace("_", " ") or "other", [tinted(column.get(kind), most) for column in columns]) for kind in kinds
    ]
    return {"decoding": decoding, "names": list(figures["models"]), "rows": rows}


def tinted(value: float | None, most: float) -> dict[str, Any] | None:
    """Return a cell of a heat table, its tint growing with the distance from zero up to `most`."""
    if value is None:
        return None
    return {"text": decimal(value), "side": "good" if value >= 0 else "bad", "tint": round(70 * abs(value) / most)}


def suite_table(figures: Figures) -> dict[str, Any] | None:
    """Return every suite, sampled, in one table: its own measures first, then gold. None where nothing was measured."""
    names = list(in_display_order({name: None for models in figures["suites"].values() for name in models}))
    absent = dict.fromkeys(MEASURES)
    parts = []
    for suite, models in figures["suites"].items():
        title, keys = SUITES.get(suite, (suite, ("gold", "truthful", "follows")))
        columns = [models.get(name, absent) for name in names]
        rows = [row for key in keys if (row := measure_row(key, columns)) is not None]
        if rows:
            parts.append({"title": title, "rows": rows})
    return {"names": names, "parts": parts} if parts else None


def task_table(figures: Figures) -> dict[str, Any] | None:
    """Return the accuracy of every task by model, with the half-width of its interval."""
    tasks = figures["tasks"]
    names = list(in_display_order({name: None for models in tasks.values() for name in models}))
    rows = []
    for task, models in tasks.items():
        accuracies = {name: number(models.get(name), "accuracy") for name in names}
        best = max((value for value in accuracies.values() if value is not None), default=None)
        cells = [
            {
                "text": percent(value),
                "best": value is not None and value == best,
                "note": formatting.half_width(
                    number(models.get(name), "low"), number(models.get(name), "high"), 100, 0
                ),
            }
            for name, value in accuracies.items()
        ]
        rows.append({"label": task.replace("_", " "), "better": "up", "cells": unmark_ties(cells)})
    return {"names": names, "rows": rows} if rows else None


def share_bar(
    name: str, value: float | None, colour: int, low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    """Return a horizontal bar of a share with its interval, in percent of the width."""
    whisker = [] if low is None or high is None else [round(100 * low, 1), round(100 * high, 1)]
    width = round(100 * (value or 0.0), 1)
    text, note = percent(value), formatting.interval(low, high)
    return {"name": name, "text": text, "width": width, "colour": colour, "whisker": whisker, "note": note}


def reward_bars(figures: Figures, stage: Stage | None) -> list[dict[str, Any]]:
    """Return panels of bars: training annotators, held-out annotators, and each annotator."""
    facts, panels = figures["reward_model"], []
    titles = ("Annotators it learned from, other prompts", "Annotators it never met")
    if facts["agreement_train"] is None and facts["agreement_heldout"] is None:
        titles = ("Validation comparisons", "Held-out comparisons")
    for split, title in zip(("train", "heldout"), titles):
        key = f"{split}_annotators"
        if facts[f"accuracy_{key}"] is None:
            continue
        accuracy, low, high, pairs = (
            facts[name] for name in (f"accuracy_{key}", f"accuracy_{key}_low", f"accuracy_{key}_high", f"pairs_{key}")
        )
        bars = [
            share_bar("reward model", accuracy, 2, low, high),
            share_bar("one annotator with another", facts[f"agreement_{split}"], 1),
            share_bar("the longer answer wins", facts[f"longer_wins_{key}"], 0),
        ]
        panels.append({"name": title, "note": "" if pairs is None else f"{pairs:,.0f} pairs", "bars": bars})
    for split, title in (("validation", "Each annotator it learned from"), ("heldout", "Each annotator it never met")):
        annotators = sorted((split_figures(stage, split).get("by_annotator") or {}).items())
        bars = [share_bar(name, number(figures, "accuracy"), 2) for name, figures in annotators if name]
        panels += [{"name": title, "note": "", "bars": bars}] if bars else []
    return panels


def split_figures(stage: Stage | None, split: str) -> Figures:
    """Return a finished reward model's figures on one split of the comparisons; empty where it has none."""
    return ((stage.finished or {}).get(split) or {}) if stage is not None else {}


def reward_models(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """Return a row a reward model: accuracy and loss on each split of the comparisons."""
    return [
        {
            "name": stage.name,
            "accuracies": [percent(number(stage.finished, f"{split}.accuracy")) for split in SPLITS],
            "losses": [decimal(number(stage.finished, f"{split}.loss"), 3) for split in SPLITS],
        }
        for stage in stages
        if stage.command == "reward" and stage.finished is not None
    ]


def margin_bars(stage: Stage | None) -> list[dict[str, Any]]:
    """Return accuracy with held-out annotators by the gap of the two scores: the bins of the calibration.

    The model's probability is the logistic function of the score gap, so a bin's gap is the log odds of its mean.
    """
    figures = split_figures(stage, "heldout") or split_figures(stage, "validation")
    return [
        share_bar(f"gap {decimal(math.log(p / (1 - p)))}", group["actual"], 2)
        for group in figures.get("calibration") or []
        if 0 < (p := group["predicted"]) < 1
    ]


def calibration(stage: Stage | None) -> Any:
    """Return the calibration chart of both sets of annotators, or None."""
    groups: Sequence[tuple[str, list[dict[str, float]], int]] = [
        (name, split_figures(stage, split).get("calibration") or [], colour)
        for name, split, colour in (("learned from", "validation", 1), ("never met", "heldout", 2))
    ]
    return charts.calibration_chart("Calibration: predicted against actual", groups)
