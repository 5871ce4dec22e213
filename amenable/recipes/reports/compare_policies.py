"""Two language models on the same prompts: preference, the gain of gold and reward, and KL.

All figures are of `b` against `a`: its share of preferences, its gold less that of a, its KL from it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch

from amenable.claims.stage_folders import number, read_json
from amenable.data.files import read_json_lines
from amenable.evaluation.preference import DECODINGS
from amenable.functional.statistics import mean_interval
from amenable.recipes.reports.report_data import by_decoding, preference_of
from amenable.recipes.reports.tables import MEASURES
from amenable.stages import evaluate

Row = dict[str, Any]

SHOWN = 4
"""examples of each sort"""


def compare(config: evaluate.Config) -> Row:
    """Evaluate the models `a` and `b` and return preference, gains and examples."""
    folder = evaluate.run(config)
    evaluation, rows = read_json(folder / "evaluation.json") or {}, read_json_lines(folder / "samples.jsonl")
    judges = "heldout" if config.world is not None else "reward" if config.reward else None
    return {
        "prompts": len(rows),
        "judges": judges,
        "world": str(config.world) if config.world else None,
        **{decoding: outcome(evaluation, rows, decoding, judges) for decoding in DECODINGS},
        "examples": examples(rows, config.seed),
    }


def outcome(evaluation: Row, rows: Sequence[Row], decoding: str, judges: str | None) -> Row:
    """Return preference, gains, KL and measures under one decoding."""
    a, b = (by_decoding(evaluation["models"][name], decoding) for name in ("a", "b"))
    pairs = [(row["answers"]["a"][decoding], row["answers"]["b"][decoding]) for row in rows]
    return {
        "preference": preference_of(evaluation, "b", "a", decoding, judges) if judges else None,
        "gold": gain(pairs, "gold"),
        "reward": gain(pairs, "reward"),
        "kl": number(b, "kl"),
        "same": sum(first["text"] == second["text"] for first, second in pairs) / len(pairs),
        "measures": measures(a, b),
    }


def gain(pairs: Sequence[tuple[Row, Row]], key: str) -> Row | None:
    """Return the mean of b's score less a's over pairs of answers (a, b), with the paired interval."""
    scores = [(number(a, key), number(b, key)) for a, b in pairs]
    gaps = [high - low for low, high in scores if low is not None and high is not None]
    return mean_row(*mean_interval(torch.tensor(gaps))) if gaps else None


def mean_row(mean: float, low: float, high: float) -> Row:
    """Return a mean with its interval; None for bounds that are endless (one value) or equal (all the same)."""
    is_known = math.isfinite(low) and low < high
    return {"value": mean, "low": low if is_known else None, "high": high if is_known else None}


def measures(a: Row, b: Row, left_out: Sequence[str] = ("kl", "temperature")) -> list[Row]:
    """Return the figures that either model has, in the report's order."""
    rows = [{"name": key, "a": number(a, key), "b": number(b, key)} for key in MEASURES if key not in left_out]
    return [row for row in rows if (row["a"], row["b"]) != (None, None)]


def examples(rows: Sequence[Row], seed: int) -> list[Row]:
    """Return greedy answers: those where b gains most, those where it loses most, and some drawn by the seed."""
    pairs = [example(row) for row in rows]
    ranked = sorted((pair for pair in pairs if pair["gain"]), key=lambda pair: pair["gain"])
    groups = {
        "won": [pair for pair in reversed(ranked) if pair["gain"] > 0][:SHOWN],
        "lost": [pair for pair in ranked if pair["gain"] < 0][:SHOWN],
    }
    shown = [pair["id"] for group in groups.values() for pair in group]
    drawn = random.Random(f"examples/{seed}").sample(pairs, len(pairs))
    groups["drawn"] = [pair for pair in drawn if pair["id"] not in shown][:SHOWN]
    return [{"group": name, "rows": group} for name, group in groups.items() if group]


def example(row: Row) -> Row:
    """Return a prompt with both greedy answers, their worth (gold, or reward where no truth is known) and gain."""
    sides = {}
    for name in ("a", "b"):
        answer = row["answers"][name]["greedy"]
        gold, reward = number(answer, "gold"), number(answer, "reward")
        sides[name] = {"text": answer["text"], "ended": answer["ended"], "worth": reward if gold is None else gold}
    worths = [side["worth"] for side in sides.values()]
    gain = None if None in worths else worths[1] - worths[0]
    return {"id": row["id"], "kind": row.get("kind"), "prompt": row["prompt"], "gain": gain, **sides}
