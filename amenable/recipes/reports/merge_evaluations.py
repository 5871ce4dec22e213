"""The evaluations of a demo as one: whichever folder a model was measured in, it stands beside all the others.

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

DISPLAY = (
    "base",
    "prompted",
    "large",
    "large-prompted",
    "public",
    "sft-1",
    "sft",
    "sft-16",
    "sharpened",
    "best16",
    "dpo",
    "ppo",
    "ppo-kl",
    "ppo-ptx",
)
"""the models in the order they are shown: roughly that of how they came to be; any other follows"""

Evaluation = dict[str, Any]


def merged(stages: Sequence[Stage]) -> Evaluation:
    """models, suites, tasks, best_of and preference of every evaluation of a demo, models in the order of DISPLAY.

    A model that two folders tell of is taken from the first.
    """
    found = [read_json(stage.folder / "evaluation.json") or {} for stage in stages if stage.command == "evaluate"]
    return {
        "models": in_order(together([one.get("models") or {} for one in found])),
        "suites": by_name([one.get("suites") or {} for one in found]),
        "tasks": without_answers(by_name([one.get("tasks") or {} for one in found])),
        "best_of": in_order(together([one.get("best_of") or {} for one in found])),
        "preference": [row for one in found for row in one.get("preference") or []],
    }


def preference_across(evidence: Evidence, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Rows of preference for the models that were measured in different folders, judged by the held-out annotators.

    Nothing where no world knows the truth: then only those who were asked in one evaluation can be compared.
    """
    known = {(frozenset((row["a"], row["b"])), row["decoding"]) for row in evaluation["preference"]}
    made = []
    for a, b in combinations(evaluation["models"], 2):
        for decoding in DECODINGS:
            if (frozenset((a, b)), decoding) not in known:
                votes = evidence.votes(a, b, decoding)
                if votes is not None:
                    made.append({"a": a, "b": b, "decoding": decoding, "judges": "heldout", **mean_win_rate(votes)})
    return made


def by_name(found: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """{suite or task: {model: figures}} of several folders as one."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: in_order(together([one.get(name) or {} for one in found])) for name in names}


def without_answers(tasks: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures of tasks alone: which of the questions a model was right about, evaluation.json tells."""
    return {
        task: {model: {key: one for key, one in figures.items() if key != "right"} for model, figures in found.items()}
        for task, found in tasks.items()
    }


def together(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several mappings as one; what two of them hold is the first one's."""
    made: dict[str, Any] = {}
    for one in found:
        made |= {name: value for name, value in one.items() if name not in made}
    return made


def in_order(models: dict[str, Any]) -> dict[str, Any]:
    """The same models in the order of DISPLAY, the others after them as they came."""
    known = [name for name in DISPLAY if name in models]
    return {name: models[name] for name in [*known, *(name for name in models if name not in known)]}
