"""Tables, matrices and bars of the report, as plain values that report.jinja lays out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amenable.recipes import charts, words
from amenable.recipes.figures import Figures, judges_of, preferred
from amenable.recipes.folders import Stage, number

MEASURES = (
    ("gold", "Gold", "up", words.plain),
    ("truthful", "Truthful", "up", words.percent),
    ("hallucination", "Hallucinates", "down", words.percent),
    ("over_refusal", "Over-refuses", "down", words.percent),
    ("rude", "Rude", "down", words.percent),
    ("harmful", "Helps with harm", "down", words.percent),
    ("follows", "Follows instructions", "up", words.percent),
    ("ended", "Ends its answer", "up", words.percent),
    ("length", "Length, words", "", lambda value: words.plain(value, 1)),
    ("bpb", "Bits per byte of raw text", "down", lambda value: words.plain(value, 3)),
    ("kl", "KL to SFT, nats", "", words.plain),
    ("reward", "Reward", "up", words.plain),
)
"""key, label, which way is better, how it is written"""


def model_table(figures: Figures, decoding: str) -> dict[str, Any]:
    """Measures x models for one decoding; the best of a row is marked where there is one."""
    names = list(figures["models"])
    found = [figures["models"][name] if decoding == "sampled" else figures["models"][name]["greedy"] for name in names]
    rows = []
    for key, label, better, written in MEASURES:
        values = [one[key] for one in found]
        known = [value for value in values if value is not None]
        if not known:
            continue
        best = written(max(known) if better == "up" else min(known)) if better else None
        cells = [
            {"text": written(value), "best": value is not None and written(value) == best, "note": ""}
            for value in values
        ]
        if all(cell["best"] for cell in cells):
            cells = [{**cell, "best": False} for cell in cells]
        if key == "gold":
            cells = [{**cell, "note": gold_interval(one)} for cell, one in zip(cells, found)]
        rows.append({"label": label, "better": better, "cells": cells})
    return {"decoding": decoding, "names": names, "rows": rows}


def gold_interval(one: Figures) -> str:
    """The half-width of gold's interval."""
    low, high = one["gold_low"], one["gold_high"]
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


def kind_bars(figures: Figures) -> list[dict[str, Any]]:
    """Gold by kind of prompt: for each decoding, for each kind, a bar a model on one common scale."""
    made = []
    for decoding in words.DECODINGS:
        by_model = {
            name: (one if decoding == "sampled" else one["greedy"])["gold_by_kind"] or {}
            for name, one in figures["models"].items()
        }
        kinds = sorted({kind for found in by_model.values() for kind in found})
        values = [value for found in by_model.values() for value in found.values() if value is not None]
        if not values:
            continue
        low, high = min(0.0, *values), max(0.0, *values)
        panels = []
        for kind in kinds:
            models = enumerate(by_model.items())
            bars = [bar(words.name_of(name), told.get(kind), low, high, place % 7) for place, (name, told) in models]
            panels.append((kind.replace("_", " "), bars))
        made.append({"decoding": decoding, "panels": panels})
    return made


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


def calibration(stage: Stage | None) -> Any:
    """The calibration chart of both sets of annotators, or None."""
    finished = (stage.finished or {}) if stage is not None else {}
    groups: Sequence[tuple[str, list[dict[str, float]], int]] = [
        (name, (finished.get(key) or {}).get("calibration") or [], colour)
        for name, key, colour in (("learned from", "validation", 1), ("never met", "heldout", 2))
    ]
    return charts.calibration_chart("Calibration: predicted against actual", groups)
