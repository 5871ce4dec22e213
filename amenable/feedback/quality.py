"""Quality of labelling, from the events of a store: speed, agreement, position bias, and what to discuss.

Orders are compared by pairs of answers (agreement.py). Intervals count each task once: its pairs are not independent.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from amenable.feedback import agreement
from amenable.feedback.agreement import agreements, pair_labels
from amenable.feedback.store import Event, Store
from amenable.functional.statistics import wilson

Score = Callable[[Sequence[dict[str, str]], Sequence[str], Sequence[bool]], Sequence[float] | None]
"""(prompt, completions, ended) -> a score for each completion, of a reward; None where it has none"""
FAST_DEVIATIONS = 3.0
"""robust deviations of log seconds below the median, from which a ranking is too fast to have been read"""
SHOWN = 20
"""outliers and disagreements listed, at most"""


@dataclass(frozen=True)
class Ranked:
    """One active ranking of a task from the labelling page."""

    task: str
    annotator: str
    purpose: str
    ranks: tuple[float, ...]
    known: tuple[float, ...] | None
    """ranks of a gold item, otherwise None"""
    event: Event


def figures(store: Store, seed: int = 0, score: Score | None = None) -> dict[str, Any]:
    """Return the figures of the admin page, as JSON: no nan, and None where a figure is undefined."""
    generator = torch.Generator().manual_seed(seed)
    events = store.active("ranking", "demonstration", "conversation", "skip")
    labels = [event for event in events if event.kind != "skip" and "assignment" in event.payload]
    skips = [event for event in events if event.kind == "skip"]
    ranked = rankings_of(store, labels)
    for_training = [row for row in ranked if row.purpose in ("label", "overlap")]
    return {
        "people": [annotator_figures(name, labels, skips, ranked) for name in annotators_of(events)],
        "hours": by_hour(labels),
        "kinds": dict(Counter(event.kind for event in labels)),
        "agreement": inter_annotator(for_training, generator),
        "reward_model": None if score is None else reward_model_agreement(for_training, score),
        "positions": positions(ranked),
        "hasty": too_fast(ranked),
        "disagreements": disagreements(for_training),
        "flags": dict(
            Counter(flag for row in ranked for flags in row.event.payload.get("flags", []) for flag in flags)
        ),
        "skips": dict(Counter(event.payload["reason"] for event in skips)),
        "suggestions": dict(Counter(fate["kept"] for event in labels for fate in event.payload.get("suggestions", []))),
    }


def rankings_of(store: Store, labels: Sequence[Event]) -> list[Ranked]:
    """Return the rankings among the labels, each with its task."""
    shown = {event.id: event.payload for event in store.events("shown")}
    ranked = []
    for event in labels:
        if event.kind == "ranking" and event.payload["assignment"] in shown:
            payload, task = event.payload, shown[event.payload["assignment"]]
            known = None if task["known"] is None else tuple(task["known"])
            name = payload["annotator"]
            ranked.append(Ranked(task["task"], name, task["purpose"], tuple(payload["ranking"]), known, event))
    return ranked


def annotators_of(events: Sequence[Event]) -> list[str]:
    """Return the names of all annotators with a task from the labelling page."""
    return sorted({event.payload["annotator"] for event in events if event.payload.get("assignment")})


def annotator_figures(
    name: str, labels: Sequence[Event], skips: Sequence[Event], ranked: Sequence[Ranked]
) -> dict[str, Any]:
    """Return one annotator's labels, time, labels an hour, and accuracy on the pairs of gold items."""
    own = [event for event in labels if event.payload["annotator"] == name]
    seconds = [float(event.payload.get("seconds", 0.0)) for event in own]
    worked = sum(seconds) / 3600
    gold = []
    for row in ranked:
        if row.annotator == name and row.known is not None:
            known, given = pair_labels([row.known, row.ranks]).T
            gold.append((1 + known * given)[known != 0] / 2)
    return {
        "name": name,
        "labels": len(own),
        "skips": sum(event.payload["annotator"] == name for event in skips),
        "hours": worked,
        "per_hour": len(own) / worked if worked > 0 else None,
        "median_seconds": statistics.median(seconds) if seconds else None,
        "known": asdict(agreement.share_of(gold)),
    }


def by_hour(labels: Sequence[Event]) -> list[dict[str, Any]]:
    """Return the number of labels in each hour that has any, the last 48; `start` in seconds since 1970."""
    counts = Counter(int((event.time or 0.0) // 3600) for event in labels)
    return [{"start": hour * 3600, "labels": counts[hour]} for hour in sorted(counts)[-48:]]


def group_by_task(ranked: Sequence[Ranked]) -> list[dict[str, Ranked]]:
    """Return the rankings of every task that several annotators ranked, by annotator."""
    tasks: dict[str, dict[str, Ranked]] = defaultdict(dict)
    for row in ranked:
        tasks[row.task][row.annotator] = row
    return [task for task in tasks.values() if len(task) > 1]


def inter_annotator(ranked: Sequence[Ranked], generator: torch.Generator) -> dict[str, Any]:
    """Return pairwise agreement, Fleiss' kappa, Krippendorff's alpha, and Cohen's kappa of every two annotators."""
    by_task = [{name: row.ranks for name, row in task.items()} for task in group_by_task(ranked)]
    names = sorted({name for ranks in by_task for name in ranks})
    tasks = [pair_labels([ranks.get(name) for name in names]) for ranks in by_task]
    cohen = []
    for a, b in sorted({pair for ranks in by_task for pair in combinations(sorted(ranks), 2)}):
        both = [labels[:, [names.index(a), names.index(b)]] for labels in tasks]
        cohen.append({"people": [a, b], **with_interval(agreement.cohen_kappa, both, generator)})
    alpha = partial(agreement.krippendorff_alpha, distance=lambda a, b: (a - b) ** 2)
    return {
        "tasks": len(tasks),
        "pairwise": asdict(agreement.pairwise_agreement(tasks)),
        "fleiss": with_interval(agreement.fleiss_kappa, tasks, generator),
        "krippendorff": with_interval(alpha, tasks, generator),
        "cohen": cohen,
    }


def with_interval(
    statistic: Callable[..., Tensor], tasks: Sequence[Tensor], generator: torch.Generator
) -> dict[str, Any]:
    """Return a statistic of the labels of all tasks, with its bootstrap interval; None where undefined."""
    value = float(statistic(torch.cat(tuple(tasks)))) if tasks else math.nan
    low, high = agreement.bootstrap_interval(statistic, tasks, generator) or (None, None)
    return {"value": value if math.isfinite(value) else None, "low": low, "high": high}


def reward_model_agreement(ranked: Sequence[Ranked], score: Score) -> dict[str, Any]:
    """Return the share of pairs that a reward orders as annotators do, of all and by annotator; rankings that it does
    not score are left out."""
    by_annotator: dict[str, list[Tensor]] = defaultdict(list)
    for row in ranked:
        payload = row.event.payload
        ended = payload["meta"].get("ended") or [True] * len(row.ranks)
        scores = score(payload["prompt"], payload["completions"], ended)
        if scores is None:
            continue
        labels = pair_labels([row.ranks, [-float(value) for value in scores]])
        by_annotator[row.annotator].append(agreements(labels))
    people = [{"name": name, **asdict(agreement.share_of(tasks))} for name, tasks in sorted(by_annotator.items())]
    every = [task for tasks in by_annotator.values() for task in tasks]
    return {"all": asdict(agreement.share_of(every)), "people": people}


def positions(ranked: Sequence[Ranked]) -> list[dict[str, Any]]:
    """Return the share of rankings whose best answer was shown at each position, by number of answers; ties split."""
    rows = []
    for k in sorted({len(row.ranks) for row in ranked}):
        wins, n = [0.0] * k, 0
        for ranks, order in ((row.ranks, row.event.payload["shown_order"]) for row in ranked):
            best = [position for position, i in enumerate(order) if ranks[i] == min(ranks)]
            if len(ranks) == k and len(best) < k:
                n += 1
                for position in best:
                    wins[position] += 1 / len(best)
        if n:
            shares = [dict(zip(("low", "high"), wilson(win, n)), share=win / n, n=n) for win in wins]
            rows.append({"answers": k, "expected": 1 / k, "places": shares})
    return rows


def too_fast(ranked: Sequence[Ranked]) -> list[dict[str, Any]]:
    """Return rankings far faster than the median of rankings of as many answers, the fastest first."""
    rows = []
    for k in {len(row.ranks) for row in ranked}:
        own = [row for row in ranked if len(row.ranks) == k]
        logs = [math.log(max(0.1, float(row.event.payload["seconds"]))) for row in own]
        middle = statistics.median(logs)
        # 1.4826 makes it a standard deviation where logs are normal; where all are equally fast there is no outlier
        spread = max(0.2, 1.4826 * statistics.median(abs(value - middle) for value in logs))
        for row, value in zip(own, logs):
            if value < middle - FAST_DEVIATIONS * spread:
                about = {"id": row.event.id, "annotator": row.annotator, "answers": k, "usual": math.exp(middle)}
                rows.append({**about, "seconds": row.event.payload["seconds"]})
    return sorted(rows, key=lambda row: row["seconds"])[:SHOWN]


def disagreements(ranked: Sequence[Ranked]) -> list[dict[str, Any]]:
    """Return tasks that annotators ordered differently, the largest share of contrary pairs first."""
    rows = []
    for task in group_by_task(ranked):
        by_annotator = [row for _, row in sorted(task.items())]
        alike = agreements(pair_labels([row.ranks for row in by_annotator]))
        if not alike.all():
            payload = by_annotator[0].event.payload
            orders = [
                {"annotator": row.annotator, "ranks": list(row.ranks), "notes": row.event.payload.get("notes", "")}
                for row in by_annotator
            ]
            about = {"prompt": payload["prompt"], "completions": payload["completions"], "said": orders}
            rows.append({"contrary": 1 - float(alike.mean()), "pairs": len(alike), **about})
    return sorted(rows, key=lambda row: -row["contrary"])[:SHOWN]
