"""Tables, matrices and bars of the report, as plain values that report.jinja lays out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from amenable.claims.stage_folders import Stage, number
from amenable.recipes.reports import charts, words
from amenable.recipes.reports.merge_evaluations import in_order
from amenable.recipes.reports.report_data import Figures, judges_of, preferred

MEASURES: dict[str, tuple[str, str, Callable[[float | None], str]]] = {
    "gold": ("Gold", "up", words.plain),
    "truthful": ("Truthful", "up", words.percent),
    "hallucination": ("Hallucinates", "down", words.percent),
    "closed_hallucination": ("Adds to the passage", "down", words.percent),
    "over_refusal": ("Over-refuses", "down", words.percent),
    "rude": ("Rude", "down", words.percent),
    "harmful": ("Helps with harm", "down", words.percent),
    "follows": ("Follows instructions", "up", words.percent),
    "ended": ("Ends its answer", "up", words.percent),
    "length": ("Length, words", "", lambda value: words.plain(value, 1)),
    "bpb": ("Bits per byte of raw text", "down", lambda value: words.plain(value, 3)),
    "kl": ("KL to SFT, nats", "", words.plain),
    "reward": ("Reward", "up", words.plain),
    "entropy": ("Entropy, nats an answer", "", lambda value: words.plain(value, 1)),
    "temperature": ("Temperature", "", words.plain),
}
"""key: label, which way is better, how it is written"""

SUITES = {
    "truthful": ("Truthfulness", ("truthful", "hallucination", "over_refusal", "gold")),
    "closed": ("Answers from a passage", ("closed_hallucination", "hallucination", "truthful", "gold")),
    "respect": ("Asked to be respectful", ("rude", "harmful", "gold")),
    "familiar": ("Known phrasings, known matters", ("gold", "truthful", "follows")),
    "phrasings": ("New phrasings, known matters", ("gold", "truthful", "follows")),
    "entities": ("Known phrasings, new matters", ("gold", "truthful", "follows")),
}
"""suite: title, what is told of it"""

PARTS = ("train", "validation", "heldout")
"""comparisons a reward model learned from, new ones of the same annotators, ones of other annotators"""


def model_table(figures: Figures, decoding: str) -> dict[str, Any]:
    """Measures x models for one decoding; the best of a row is marked where there is one."""
    names = list(figures["models"])
    found = [figures["models"][name] if decoding == "sampled" else figures["models"][name]["greedy"] for name in names]
    rows = [row for key in MEASURES if (row := measure_row(key, found)) is not None]
    return {"decoding": decoding, "names": names, "rows": rows}


def measure_row(key: str, found: Sequence[Figures]) -> dict[str, Any] | None:
    """One measure of several models; None where it was taken of none."""
    label, better, written = MEASURES[key]
    values = [one[key] for one in found]
    known = [value for value in values if value is not None]
    if not known:
        return None
    best = written(max(known) if better == "up" else min(known)) if better else None
    cells = [
        {"text": written(value), "best": value is not None and written(value) == best, "note": ""} for value in values
    ]
    if key == "gold":
        cells = [{**cell, "note": gold_interval(one)} for cell, one in zip(cells, found)]
    return {"label": label, "better": better, "cells": unless_level(cells)}


def unless_level(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same cells; where all are best, none is marked."""
    return [{**cell, "best": False} for cell in cells] if all(cell["best"] for cell in cells) else cells


def gold_interval(one: Figures) -> str:
    """The half-width of gold's interval."""
    low, high = one.get("gold_low"), one.get("gold_high")
    return "" if low is None or high is None else f"±{words.plain((high - low) / 2)}"


def preference_matrix(figures: Figures, decoding: str) -> dict[str, Any] | None:
    """How often the row's model is preferred to the column's. A cell's tint is its distance from one half."""
    names, judges = list(figures["models"]), judges_of(figures)
    if judges is None:
        return None
    rows = []
    for a in names:
        cells: list[dict[str, Any] | None] = []
        for b in names:
            row = preferred(figures, a, b, decoding, judges)
            cells.append(None if row is None else matrix_cell(row))
        rows.append((a, cells))
    count = next((row["n"] for row in figures["preference"] if row["decoding"] == decoding), None)
    return {"decoding": decoding, "names": names, "rows": rows, "n": count}


def matrix_cell(row: Figures) -> dict[str, Any]:
    return {
        "wins": words.percent(row["wins"]),
        "span": words.span(row["low"], row["high"]),
        "clear": row["low"] > 0.5 or row["high"] < 0.5,
        "side": "good" if row["wins"] >= 0.5 else "bad",
        "tint": round(min(1.0, abs(row["wins"] - 0.5) / 0.4) * 70),
    }


def kind_table(figures: Figures, decoding: str) -> dict[str, Any] | None:
    """Mean gold by kind of prompt and model, each cell tinted by how far from zero it lies. None without gold."""
    names = list(figures["models"])
    found = [
        (one if decoding == "sampled" else one["greedy"])["gold_by_kind"] or {} for one in figures["models"].values()
    ]
    kinds = sorted({kind for one in found for kind in one})
    values = [value for one in found for value in one.values() if value is not None]
    if not values:
        return None
    most = max(abs(value) for value in values) or 1.0
    rows = [(kind.replace("_", " ") or "other", [tinted(one.get(kind), most) for one in found]) for kind in kinds]
    return {"decoding": decoding, "names": names, "rows": rows}


def tinted(value: float | None, most: float) -> dict[str, Any] | None:
    """A cell of a heat table, its tint growing with the distance from zero up to `most`."""
    if value is None:
        return None
    return {"text": words.plain(value), "side": "good" if value >= 0 else "bad", "tint": round(70 * abs(value) / most)}


def suite_table(figures: Figures) -> dict[str, Any] | None:
    """Every suite, sampled, in one table: what it is about first, then gold. None where nothing was measured."""
    names = list(in_order({name: None for models in figures["suites"].values() for name in models}))
    absent = dict.fromkeys(MEASURES)
    parts = []
    for suite, models in figures["suites"].items():
        title, wanted = SUITES.get(suite, (suite, ("gold", "truthful", "follows")))
        found = [models.get(name, absent) for name in names]
        rows = [row for key in wanted if (row := measure_row(key, found)) is not None]
        if rows:
            parts.append({"title": title, "rows": rows})
    return {"names": names, "parts": parts} if parts else None


def task_table(figures: Figures) -> dict[str, Any] | None:
    """Accuracy of every task by model, with the half-width of its interval."""
    tasks = figures["tasks"]
    names = list(in_order({name: None for found in tasks.values() for name in found}))
    rows = []
    for task, found in tasks.items():
        known = [number(found.get(name), "accuracy") for name in names]
        best = max((value for value in known if value is not None), default=None)
        cells = [
            {
                "text": words.percent(value),
                "best": value is not None and value == best,
                "note": task_note(found.get(name)),
            }
            for name, value in zip(names, known)
        ]
        rows.append({"label": task.replace("_", " "), "better": "up", "cells": unless_level(cells)})
    return {"names": names, "rows": rows} if rows else None


def task_note(found: Figures | None) -> str:
    low, high = number(found, "low"), number(found, "high")
    return "" if low is None or high is None else f"±{50 * (high - low):.0f}"


def bar(
    name: str,
    value: float | None,
    low: float,
    high: float,
    colour: int,
    interval: tuple[float | None, float | None] = (None, None),
    share: bool = False,
) -> dict[str, Any]:
    """A horizontal bar from zero, as percentages of the scale [low, high]."""
    across = 100 / ((high - low) or 1.0)
    zero = -low * across
    end = zero if value is None else (value - low) * across
    whisker = [round((side - low) * across, 1) for side in interval if side is not None]
    return {
        "name": name,
        "text": words.percent(value) if share else words.plain(value),
        "left": round(min(zero, end), 1),
        "width": round(abs(end - zero), 1),
        "zero": round(zero, 1),
        "colour": colour,
        "whisker": whisker if len(whisker) == 2 else None,
        "note": words.span(*interval) if share else "",
    }


def reward_bars(figures: Figures, stage: Stage | None) -> list[dict[str, Any]]:
    """Panels of bars: training annotators, held-out annotators, and each annotator."""
    found, panels = figures["reward_model"], []
    known, met = ("Annotators it learned from, other prompts", "Annotators it never met")
    if found["agreement_train"] is None and found["agreement_heldout"] is None:
        known, met = "Validation comparisons", "Held-out comparisons"
    for key, short, name in (("train_annotators", "train", known), ("heldout_annotators", "heldout", met)):
        if found[f"accuracy_{key}"] is None:
            continue
        interval = (found[f"accuracy_{key}_low"], found[f"accuracy_{key}_high"])
        bars = [
            bar("reward model", found[f"accuracy_{key}"], 0, 1, 2, interval, share=True),
            bar("one annotator with another", found[f"agreement_{short}"], 0, 1, 1, share=True),
            bar("the longer answer wins", found[f"longer_wins_{key}"], 0, 1, 0, share=True),
        ]
        panels.append({"name": name, "note": pairs_note(found[f"pairs_{key}"]), "bars": bars})
    for short, name in (("validation", "Each annotator it learned from"), ("heldout", "Each annotator it never met")):
        each = ((stage.finished or {}).get(short) or {}).get("by_annotator") if stage is not None else None
        bars = [
            bar(who, number(one, "accuracy"), 0, 1, 2, share=True) for who, one in sorted((each or {}).items()) if who
        ]
        if bars:
            panels.append({"name": name, "note": "", "bars": bars})
    return panels


def pairs_note(pairs: float | None) -> str:
    return "" if pairs is None else f"{pairs:,.0f} pairs"


def reward_models(stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """A row a reward model: accuracy on each kind of comparison, and loss on what it learned from and on new ones."""
    return [
        {
            "name": stage.name,
            "accuracies": [words.percent(number(stage.finished, f"{part}.accuracy")) for part in PARTS],
            "losses": [words.plain(number(stage.finished, f"{part}.loss"), 3) for part in PARTS],
        }
        for stage in stages
        if stage.command == "reward" and stage.finished is not None
    ]


def margin_bars(stage: Stage | None) -> list[dict[str, Any]]:
    """Accuracy with held-out annotators by how far apart the two scores lie: the bins of the calibration.

    The model's probability is the logistic function of the score gap, so a bin's gap is the log odds of its mean.
    """
    finished = (stage.finished or {}) if stage is not None else {}
    bins = (finished.get("heldout") or finished.get("validation") or {}).get("calibration") or []
    return [
        bar(f"gap {words.plain(log_odds(one['predicted']))}", one["actual"], 0, 1, 2, share=True)
        for one in bins
        if 0 < one["predicted"] < 1
    ]


def log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def calibration(stage: Stage | None) -> Any:
    """The calibration chart of both sets of annotators, or None."""
    finished = (stage.finished or {}) if stage is not None else {}
    groups: Sequence[tuple[str, list[dict[str, float]], int]] = [
        (name, (finished.get(key) or {}).get("calibration") or [], colour)
        for name, key, colour in (("learned from", "validation", 1), ("never met", "heldout", 2))
    ]
    return charts.calibration_chart("Calibration: predicted against actual", groups)
