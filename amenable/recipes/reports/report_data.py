"""The figures of a demo as one dictionary: report.json, and all that the page and the terminal show.

What was not measured is None (null in the file), so that a reader never takes a gap for a zero.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from amenable.claims.stage_folders import Stage, missing, number, unfinished
from amenable.evaluation.preference import DECODINGS
from amenable.recipes.reports.merge_evaluations import merge

SCHEMA = 1
MEASURES = (
    *("gold", "gold_low", "gold_high", "truthful", "hallucination", "closed_hallucination", "over_refusal", "rude"),
    *("harmful", "follows", "length", "ended", "bpb", "kl", "reward", "entropy", "temperature"),
)
"""figures of every model under each decoding"""

Figures = dict[str, Any]


def collect(
    stages: list[Stage],
    claims: Sequence[Figures] = (),
    over: Sequence[Figures] = (),
    across: Sequence[Figures] = (),
) -> Figures:
    """Return everything that report.json holds.

    Results that take the world's truth are computed elsewhere and handed over: the claims, gold along the way of PPO
    (`over`) and preference between models of different evaluations (`across`). The report fills `seeds` and `unjudged`.
    """
    by_name = {stage.name: stage for stage in stages}
    evaluation = merge(stages)
    sizes = (parameter_count(by_name[name].folder) for name in ("sft", "pretrain") if name in by_name)
    return {
        "schema": SCHEMA,
        "seconds": wall_seconds(stages),
        "missing": missing(stages),
        "unfinished": unfinished(stages),
        "seeds": [],
        "unjudged": None,
        "seed": common_value(stage.config.get("seed") for stage in stages),
        "versions": versions(stages),
        "parameters": next((size for size in sizes if size is not None), None),
        "stages": [
            {"name": stage.name, "command": stage.command, "seconds": stage.seconds, "run": str(stage.folder)}
            for stage in stages
        ],
        "claims": list(claims),
        "models": model_figures(evaluation["models"]),
        "suites": {suite: model_figures(models) for suite, models in evaluation["suites"].items()},
        "tasks": evaluation["tasks"],
        "reward_model": reward_model(by_name.get("reward"), by_name.get("annotate")),
        "preference": [*evaluation["preference"], *across],
        "over_optimisation": list(over),
        "best_of": evaluation["best_of"],
    }


def wall_seconds(stages: Sequence[Stage]) -> float | None:
    """Return the seconds in which any stage ran: those of stages that ran side by side count once.

    Stages that wrote no timings.jsonl count with their own seconds; None where no stage has finished.
    """
    if not any(stage.finished for stage in stages):
        return None
    total, latest = sum(stage.seconds or 0.0 for stage in stages if not stage.sessions), 0.0
    for began, ended in sorted(session for stage in stages for session in stage.sessions):
        total += max(0.0, ended - max(began, latest))
        latest = max(latest, ended)
    return round(total, 1)


def model_figures(models: dict[str, Figures]) -> Figures:
    """Return the figures of each model: sampled on top, greedy below."""
    return {
        name: {**decoding_figures(figures), "greedy": decoding_figures(figures.get("greedy") or {})}
        for name, figures in models.items()
    }


def decoding_figures(figures: Figures) -> Figures:
    """Return one model's figures under one decoding."""
    kinds = figures.get("gold_by_kind") or {}
    gold_by_kind = {kind: number(kinds, kind) for kind in kinds}
    return {**{key: number(figures, key) for key in MEASURES}, "gold_by_kind": gold_by_kind or None}


def by_decoding(figures: Figures, decoding: str) -> Figures:
    """Return a model's figures under `decoding`: sampled ones lie on top, greedy ones below."""
    return figures if decoding == "sampled" else figures["greedy"]


def reward_model(reward: Stage | None, annotate: Stage | None) -> Figures:
    """Return the reward model's accuracy with annotators it learned from and with others, and annotators' agreement."""
    finished = reward.finished if reward is not None else None
    labels = annotate.finished if annotate is not None else None
    pairs = {name: number(finished, f"{name}.pairs") for name in ("validation", "heldout")}
    counts = [count for count in pairs.values() if count is not None]
    figures: Figures = {"agreement": number(labels, "agreement.all"), "pairs": sum(counts) if counts else None}
    figures |= {f"agreement_{name}": number(labels, f"agreement.{name}") for name in ("train", "heldout")}
    for name, split in (("train_annotators", "validation"), ("heldout_annotators", "heldout")):
        figures[f"accuracy_{name}"] = number(finished, f"{split}.accuracy")
        figures[f"accuracy_{name}_low"] = number(finished, f"{split}.low")
        figures[f"accuracy_{name}_high"] = number(finished, f"{split}.high")
        figures[f"longer_wins_{name}"] = number(finished, f"{split}.longer_wins")
        figures[f"pairs_{name}"] = pairs[split]
    return figures


def preference_of(figures: Figures, a: str, b: str, decoding: str, judges: str) -> Figures | None:
    """Return the win rate of `a` against `b`, whichever way round it was measured: wins, low, high, n."""
    for row in figures["preference"]:
        if (row["decoding"], row["judges"]) != (decoding, judges):
            continue
        if (row["a"], row["b"]) == (a, b):
            return dict(row)
        if (row["a"], row["b"]) == (b, a):
            turned = {"wins": 1 - row["wins"], "low": 1 - row["high"], "high": 1 - row["low"]}
            return {**row, "a": a, "b": b, **turned}
    return None


def headline_judges(figures: Figures) -> str | None:
    """Return the judges of the headline: annotators held out of all training where there are any."""
    present = {row["judges"] for row in figures["preference"]}
    return next((name for name in ("heldout", "judge", "reward", "training") if name in present), None)


def headline_pair(figures: Figures) -> tuple[str, str] | None:
    """Return the two models of the headline, (aligned, before it); None where there are not two."""
    names = list(figures["models"])
    if len(names) < 2:
        return None
    after = next(name for name in ("ppo", "dpo", names[-1]) if name in names)
    before = next(name for name in ("sft", "base", *names) if name in names and name != after)
    return after, before


def headline_preferences(figures: Figures) -> dict[str, Figures]:
    """Return by decoding the win rate of the aligned model against the one before it; those not measured left out."""
    pair, judges = headline_pair(figures), headline_judges(figures)
    if pair is None or judges is None:
        return {}
    rows = {decoding: preference_of(figures, *pair, decoding, judges) for decoding in DECODINGS}
    return {decoding: row for decoding, row in rows.items() if row is not None}


def versions(stages: list[Stage]) -> Figures:
    """Return the version of each library; where stages differ, all of them."""
    versions = [stage.lineage.get("versions") or {} for stage in stages]
    names = dict.fromkeys(name for version in versions for name in version)
    return {name: ", ".join(sorted({str(version[name]) for version in versions if name in version})) for name in names}


def parameter_count(folder: Path) -> int | None:
    """Return the number of parameters in a folder's weights, read from the headers of their files."""
    counts = [parameters_in(path) for path in folder.glob("model*.safetensors")]
    return None if not counts or None in counts else sum(count or 0 for count in counts)


def parameters_in(path: Path) -> int | None:
    """Return the number of parameters in a safetensors file; None for a torn one."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        try:
            header = json.loads(file.read(min(length, path.stat().st_size)))
        except ValueError:
            return None
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")


def common_value(values: Iterable[Any]) -> Any:
    """Return the value that all agree on, leaving out None; None where they differ."""
    distinct = {value for value in values if value is not None}
    return distinct.pop() if len(distinct) == 1 else None
