"""The evaluations of a demo merged into one: each model beside all others, whichever folder it was measured in.

`evaluate` measures a few models at a time; a demo has several such folders. All answer the same prompts with the same
random numbers, so that their models can be compared as if they had been measured together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from amenable.claims.evidence import Evidence
from amenable.claims.stage_folders import Stage, read_json
from amenable.evaluation.preference import DECODINGS, mean_win_rate

DISPLAY_ORDER = (
    *("base", "prompted", "large", "large-prompted", "public", "sft-1", "sft", "sft-16", "sharpened", "best16"),
    *("dpo", "ppo", "ppo-kl", "ppo-ptx"),
)
"""roughly the order in which the models are trained; any other follows"""

Evaluation = dict[str, Any]


def merge(stages: Sequence[Stage]) -> Evaluation:
    """Return models, suites, tasks, best_of and preference of every evaluation of a demo, models in DISPLAY_ORDER.

    A model that two folders measured is taken from the first.
    """
    evaluations = [read_json(stage.folder / "evaluation.json") or {} for stage in stages if stage.command == "evaluate"]
    parts = {
        key: [evaluation.get(key) or {} for evaluation in evaluations]
        for key in ("models", "suites", "tasks", "best_of")
    }
    return {
        "models": in_display_order(union(parts["models"])),
        "suites": union_by_name(parts["suites"]),
        "tasks": without_answers(union_by_name(parts["tasks"])),
        "best_of": in_display_order(union(parts["best_of"])),
        "preference": [row for evaluation in evaluations for row in evaluation.get("preference") or []],
    }


def preference_across(evidence: Evidence, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return rows of preference for models that were measured in different folders, judged by held-out annotators.

    Empty without a world that knows the truth: then only models of one evaluation can be compared.
    """
    known = {(frozenset((row["a"], row["b"])), row["decoding"]) for row in evaluation["preference"]}
    rows = []
    for a, b in combinations(evaluation["models"], 2):
        for decoding in DECODINGS:
            if (frozenset((a, b)), decoding) not in known:
                votes = evidence.votes(a, b, decoding)
                if votes is not None:
                    rows.append({"a": a, "b": b, "decoding": decoding, "judges": "heldout", **mean_win_rate(votes)})
    return rows


def union_by_name(parts: Sequence[dict[str, Evaluation]]) -> dict[str, Evaluation]:
    """Merge {suite or task: {model: figures}} of several folders."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: in_display_order(union([part.get(name) or {} for part in parts])) for name in names}


def without_answers(tasks: dict[str, Evaluation]) -> dict[str, Evaluation]:
    """Return the tasks without the list of correct questions, which evaluation.json holds."""
    return {
        task: {
            model: {key: value for key, value in figures.items() if key != "right"} for model, figures in models.items()
        }
        for task, models in tasks.items()
    }


def union(mappings: Sequence[Evaluation]) -> Evaluation:
    """Merge mappings; of a key in two of them the first one's value."""
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    return {name: next(mapping[name] for mapping in mappings if name in mapping) for name in names}


def in_display_order(models: Evaluation) -> Evaluation:
    """Return the models in DISPLAY_ORDER, the others after them as they came."""
    known = [name for name in DISPLAY_ORDER if name in models]
    return {name: models[name] for name in [*known, *(name for name in models if name not in known)]}
