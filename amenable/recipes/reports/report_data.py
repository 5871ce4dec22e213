"""The figures of a demo as one dictionary: report.json, and all that the page and the terminal show.

What was not measured is None (null in the file), so that a reader never takes a gap for a zero.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from amenable.claims.stage_folders import Stage, missing, number, unfinished
from amenable.recipes.reports.merge_evaluations import merged

SCHEMA = 1
MEASURES = (
    "gold",
    "gold_low",
    "gold_high",
    "truthful",
    "hallucination",
    "closed_hallucination",
    "over_refusal",
    "rude",
    "harmful",
    "follows",
    "length",
    "ended",
    "bpb",
    "kl",
    "reward",
    "entropy",
    "temperature",
)
"""what is told of every model, for each decoding"""

Figures = dict[str, Any]


def figures_of(
    stages: list[Stage],
    claims: Sequence[Figures] = (),
    over: Sequence[Figures] = (),
    across: Sequence[Figures] = (),
) -> Figures:
    """Everything report.json holds.

    What takes the world's truth is worked out elsewhere and handed over: the claims, gold along the way of PPO (`over`)
    and preference between models of different evaluations (`across`). `seeds` and `unjudged` are the report's own.
    """
    by_name = {stage.name: stage for stage in stages}
    evaluation = merged(stages)
    known = [stage.seconds for stage in stages if stage.seconds is not None]
    return {
        "schema": SCHEMA,
        "seconds": round(sum(known), 1) if known else None,
        "missing": missing(stages),
        "unfinished": unfinished(stages),
        "seeds": [],
        "unjudged": None,
        "seed": same(stage.config.get("seed") for stage in stages),
        "versions": versions(stages),
        "parameters": first(parameters(by_name[name].folder) for name in ("sft", "pretrain") if name in by_name),
        "stages": [
            {"name": stage.name, "command": stage.command, "seconds": stage.seconds, "run": str(stage.folder)}
            for stage in stages
        ],
        "claims": list(claims),
        "models": measures_of(evaluation["models"]),
        "suites": {suite: measures_of(found) for suite, found in evaluation["suites"].items()},
        "tasks": evaluation["tasks"],
        "reward_model": reward_model(by_name.get("reward"), by_name.get("annotate")),
        "preference": [*evaluation["preference"], *across],
        "over_optimisation": list(over),
        "best_of": evaluation["best_of"],
    }


def measures_of(models: dict[str, Figures]) -> Figures:
    return {name: measures(found) for name, found in models.items()}


def measures(found: Figures) -> Figures:
    """One model's figures, sampled on top and greedy below."""
    greedy = found.get("greedy") or {}
    return {**decoded(found), "greedy": decoded(greedy)}


def decoded(found: Figures) -> Figures:
    """One model's figures under one decoding."""
    kinds = found.get("gold_by_kind") or {}
    by_kind = {kind: number(kinds, kind) for kind in kinds}
    return {**{key: number(found, key) for key in MEASURES}, "gold_by_kind": by_kind or None}


def reward_model(reward: Stage | None, annotate: Stage | None) -> Figures:
    """How often the reward model sides with annotators it learned from and with others, beside their agreement."""
    judged = reward.finished if reward is not None else None
    asked = annotate.finished if annotate is not None else None
    pairs = {name: number(judged, f"{name}.pairs") for name in ("validation", "heldout")}
    known = [count for count in pairs.values() if count is not None]
    figures: Figures = {"agreement": number(asked, "agreement.all"), "pairs": sum(known) if known else None}
    figures |= {f"agreement_{name}": number(asked, f"agreement.{name}") for name in ("train", "heldout")}
    for name, part in (("train_annotators", "validation"), ("heldout_annotators", "heldout")):
        figures[f"accuracy_{name}"] = number(judged, f"{part}.accuracy")
        figures[f"accuracy_{name}_low"] = number(judged, f"{part}.low")
        figures[f"accuracy_{name}_high"] = number(judged, f"{part}.high")
        figures[f"longer_wins_{name}"] = number(judged, f"{part}.longer_wins")
        figures[f"pairs_{name}"] = pairs[part]
    return figures


def preferred(figures: Figures, a: str, b: str, decoding: str, judges: str) -> Figures | None:
    """How often `a` is preferred to `b`, whichever way round it was measured: wins, low, high, n."""
    for row in figures["preference"]:
        if (row["decoding"], row["judges"]) != (decoding, judges):
            continue
        if (row["a"], row["b"]) == (a, b):
            return dict(row)
        if (row["a"], row["b"]) == (b, a):
            turned = {"wins": 1 - row["wins"], "low": 1 - row["high"], "high": 1 - row["low"]}
            return {**row, "a": a, "b": b, **turned}
    return None


def judges_of(figures: Figures) -> str | None:
    """Who is shown as the judge: annotators held out of all training where there are any."""
    present = {row["judges"] for row in figures["preference"]}
    return first(name for name in ("heldout", "reward", "training") if name in present)


def pair_of(figures: Figures) -> tuple[str, str] | None:
    """The two models of the headline: (aligned, before it). None where there are not two."""
    names = list(figures["models"])
    if len(names) < 2:
        return None
    after = first(name for name in ("ppo", "dpo", names[-1]) if name in names)
    before = first(name for name in ("sft", "base", *names) if name in names and name != after)
    return str(after), str(before)


def versions(stages: list[Stage]) -> Figures:
    """Version of everything at work; where stages differ, all of them."""
    told = [stage.lineage.get("versions") or {} for stage in stages]
    names = list(dict.fromkeys(name for one in told for name in one))
    return {name: ", ".join(sorted({str(one[name]) for one in told if name in one})) for name in names}


def parameters(folder: Path) -> int | None:
    """How many numbers model.safetensors holds, read from its header."""
    path = folder / "model.safetensors"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        try:
            header = json.loads(file.read(min(length, path.stat().st_size)))
        except ValueError:
            return None
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            size = 1
            for side in tensor["shape"]:
                size *= side
            total += size
    return total


def same(values: Iterable[Any]) -> Any:
    """The one value that all of them are, leaving out None; None where they differ."""
    told = {value for value in values if value is not None}
    return told.pop() if len(told) == 1 else None


def first(values: Iterable[Any]) -> Any:
    """The first that is not None."""
    return next((value for value in values if value is not None), None)
