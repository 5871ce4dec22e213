"""Two language models asked the same: which is preferred, how much better it answers, how far it is from the other.

Everything is said of `b` against `a`: its share of preferences, its gold less that of a, its KL from it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch

from amenable.claims.stage_folders import number, read_json
from amenable.data.files import read_json_lines
from amenable.functional.statistics import mean_interval
from amenable.recipes.reports.merge_evaluations import DECODINGS
from amenable.recipes.reports.report_data import preferred
from amenable.recipes.reports.tables import MEASURES
from amenable.stages import evaluate

Row = dict[str, Any]

SHOWN = 4
"""examples of each sort"""


def contest(config: evaluate.Config) -> Row:
    """What the models `a` and `b` of an evaluation answer, and which is preferred."""
    folder = evaluate.run(config)
    evaluation, rows = read_json(folder / "evaluation.json") or {}, read_json_lines(folder / "samples.jsonl")
    judges = "heldout" if config.world is not None else "reward" if config.reward_model is not None else None
    found: Row = {"prompts": len(rows), "judges": judges, "world": str(config.world) if config.world else None}
    for decoding in DECODINGS:
        found[decoding] = outcome(evaluation, rows, decoding, judges)
    return {**found, "examples": examples(rows, config.seed)}


def outcome(evaluation: Row, rows: Sequence[Row], decoding: str, judges: str | None) -> Row:
    """Everything that one decoding tells."""
    models = {name: told if decoding == "sampled" else told["greedy"] for name, told in evaluation["models"].items()}
    said = [tuple(row["answers"][name][decoding] for name in ("a", "b")) for row in rows]
    return {
        "preference": preferred(evaluation, "b", "a", decoding, judges) if judges else None,
        "gold": gain(said, "gold"),
        "reward": gain(said, "reward"),
        "kl": number(models["b"], "kl"),
        "same": sum(one["text"] == other["text"] for one, other in said) / len(said),
        "measures": measures(models["a"], models["b"]),
    }


def gain(said: Sequence[tuple[Row, Row]], key: str) -> Row | None:
    """How much higher b's answers score than a's to the same prompts, with the interval of the paired difference.

    low and high are None where the differences tell nothing of it: of one prompt, or where they are all the same.
    """
    pairs = [(number(one, key), number(other, key)) for one, other in said]
    gaps = [high - low for low, high in pairs if low is not None and high is not None]
    if not gaps:
        return None
    mean, low, high = mean_interval(torch.tensor(gaps))
    is_told = math.isfinite(low) and low < high
    return {"value": mean, "low": low if is_told else None, "high": high if is_told else None}


def measures(a: Row, b: Row, left_out: Sequence[str] = ("kl", "temperature")) -> list[Row]:
    """What was measured of either model, in the report's order."""
    rows = [{"name": key, "a": number(a, key), "b": number(b, key)} for key in MEASURES if key not in left_out]
    return [row for row in rows if (row["a"], row["b"]) != (None, None)]


def examples(rows: Sequence[Row], seed: int) -> list[Row]:
    """Greedy answers: where b gains most, where it loses most, and some that are drawn by the seed."""
    found = [example(row) for row in rows]
    known = sorted((one for one in found if one["gain"]), key=lambda one: one["gain"])
    lost, won = [one for one in known if one["gain"] < 0], [one for one in reversed(known) if one["gain"] > 0]
    drawn = random.Random(f"examples/{seed}").sample(found, len(found))
    groups = {"won": won[:SHOWN], "lost": lost[:SHOWN]}
    shown = [one["id"] for group in groups.values() for one in group]
    groups["drawn"] = [one for one in drawn if one["id"] not in shown][:SHOWN]
    return [{"group": name, "rows": group} for name, group in groups.items() if group]


def example(row: Row) -> Row:
    """One prompt with both greedy answers; `gain` is what b's is worth less what a's is."""
    one, other = (told(row["answers"][name]["greedy"]) for name in ("a", "b"))
    gain = None if one["worth"] is None or other["worth"] is None else other["worth"] - one["worth"]
    return {"id": row["id"], "kind": row.get("kind"), "prompt": row["prompt"], "gain": gain, "a": one, "b": other}


def told(answer: Row) -> Row:
    """An answer's text, and what it is worth: its gold, or its reward where no truth is known."""
    gold, reward = number(answer, "gold"), number(answer, "reward")
    return {"text": answer["text"], "ended": answer["ended"], "worth": reward if gold is None else gold}
