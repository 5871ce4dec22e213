"""How labelling goes, from the events of a store: how fast, how far people agree, where they lean, what to talk about.

Everything about orders is measured on pairs of answers of one task: the first better (-1), tied (0), the second better
(1). Intervals take a task as one, because its pairs are not independent.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import torch

from amenable.feedback import agreement
from amenable.feedback.store import Event, Store
from amenable.functional.statistics import clustered_share, wilson

Score = Callable[[Sequence[dict[str, str]], Sequence[str], Sequence[bool]], Sequence[float]]
"""(prompt, completions, ended) -> a score for each completion, of a reward model"""
HASTY = 3.0
"""so many robust deviations of log seconds below the median is too fast to have read"""
SHOWN = 20
"""how many outliers and disagreements are listed"""


@dataclass(frozen=True)
class Ranked:
    """One standing ranking of a task that was shown."""

    task: str
    annotator: str
    purpose: str
    ranks: tuple[float, ...]
    known: tuple[float, ...] | None
    event: Event


def figures(store: Store, seed: int = 0, score: Score | None = None) -> dict[str, Any]:
    """Everything that an owner's page shows, as JSON: nothing in it is nan, and what is undefined is None."""
    generator = torch.Generator().manual_seed(seed)
    events = store.standing("ranking", "demonstration", "conversation", "skip")
    labels = [event for event in events if event.kind != "skip" and "assignment" in event.payload]
    skips = [event for event in events if event.kind == "skip"]
    ranked = rankings_of(store, labels)
    trained = [one for one in ranked if one.purpose in ("label", "overlap")]
    return {
        "people": [person(name, labels, skips, ranked) for name in names(events)],
        "hours": by_hour(labels),
        "kinds": dict(Counter(event.kind for event in labels)),
        "agreement": between_people(trained, generator),
        "reward_model": None if score is None else with_scores(trained, score),
        "positions": positions(ranked),
        "hasty": hasty(ranked),
        "disagreements": disagreements(trained),
        "flags": dict(
            Counter(flag for one in ranked for flags in one.event.payload.get("flags", []) for flag in flags)
        ),
        "skips": dict(Counter(event.payload["reason"] for event in skips)),
        "suggestions": dict(Counter(fate["kept"] for event in labels for fate in event.payload.get("suggestions", []))),
    }


def rankings_of(store: Store, labels: Sequence[Event]) -> list[Ranked]:
    shown = {event.id: event.payload for event in store.events("shown")}
    found = []
    for event in labels:
        if event.kind == "ranking" and event.payload["assignment"] in shown:
            payload, task = event.payload, shown[event.payload["assignment"]]
            known = None if task["known"] is None else tuple(task["known"])
            name = payload["annotator"]
            found.append(Ranked(task["task"], name, task["purpose"], tuple(payload["ranking"]), known, event))
    return found


def names(events: Sequence[Event]) -> list[str]:
    return sorted({event.payload["annotator"] for event in events if event.payload.get("assignment")})


def person(name: str, labels: Sequence[Event], skips: Sequence[Event], ranked: Sequence[Ranked]) -> dict[str, Any]:
    """What one person did: labels, time, labels an hour of it, and how many pairs of known order were right."""
    own = [event for event in labels if event.payload["annotator"] == name]
    seconds = [float(event.payload.get("seconds", 0.0)) for event in own]
    worked = sum(seconds) / 3600
    tests = [
        [(one.ranks[i] < one.ranks[j]) + (one.ranks[i] == one.ranks[j]) / 2 for i, j in ordered(one.known)]
        for one in ranked
        if one.annotator == name and one.known is not None
    ]
    return {
        "name": name,
        "labels": len(own),
        "skips": sum(event.payload["annotator"] == name for event in skips),
        "hours": worked,
        "per_hour": len(own) / worked if worked > 0 else None,
        "median_seconds": statistics.median(seconds) if seconds else None,
        "known": clustered(tests),
    }


def ordered(ranks: Sequence[float]) -> list[tuple[int, int]]:
    """(better, worse) places of all pairs that are not tied."""
    pairs = combinations(range(len(ranks)), 2)
    return [(i, j) if ranks[i] < ranks[j] else (j, i) for i, j in pairs if ranks[i] != ranks[j]]


def share(wins: float, n: int) -> dict[str, Any]:
    """A share with Wilson's interval; None where there is nothing to share."""
    if n == 0:
        return {"share": None, "low": None, "high": None, "n": 0}
    low, high = wilson(wins, n)
    return {"share": wins / n, "low": low, "high": high, "n": n}


def by_hour(labels: Sequence[Event]) -> list[dict[str, Any]]:
    """Labels in each hour of the clock in which there were any; `start` in seconds since 1970."""
    counts = Counter(int((event.time or 0.0) // 3600) for event in labels)
    return [{"start": hour * 3600, "labels": counts[hour]} for hour in sorted(counts)[-48:]]


Items = list[dict[str, tuple[float, ...]]]
"""of each task that several people ranked: ranks by person"""


def together(ranked: Sequence[Ranked]) -> Items:
    items: dict[str, dict[str, tuple[float, ...]]] = defaultdict(dict)
    for one in ranked:
        items[one.task][one.annotator] = one.ranks
    return [item for item in items.values() if len(item) > 1]


def between_people(ranked: Sequence[Ranked], generator: torch.Generator) -> dict[str, Any]:
    """Pairwise agreement, Fleiss' kappa, Krippendorff's alpha, and Cohen's kappa of every two people."""
    items = together(ranked)
    alike = agreement.agreement([list(item.values()) for item in items])
    pairs = sorted({pair for item in items for pair in combinations(sorted(item), 2)})
    return {
        "tasks": len(items),
        "pairwise": {"share": alike.share, "low": alike.low, "high": alike.high, "n": alike.pairs},
        "fleiss": with_interval(fleiss, items, generator),
        "krippendorff": with_interval(alpha, items, generator),
        "cohen": [
            {"people": list(pair), **with_interval(partial(cohen, people=pair), items, generator)} for pair in pairs
        ],
    }


def with_interval(
    statistic: Callable[[Sequence[dict[str, tuple[float, ...]]]], float | None],
    items: Items,
    generator: torch.Generator,
) -> dict[str, Any]:
    ends = agreement.resampled(statistic, items, generator)
    return {"value": statistic(items), "low": ends and ends[0], "high": ends and ends[1]}


def relations(ranks: Sequence[float]) -> list[int]:
    """-1, 0 or 1 for every pair of answers: the first better, tied, the second better."""
    return [(a > b) - (a < b) for a, b in combinations(ranks, 2)]


def alpha(items: Sequence[dict[str, tuple[float, ...]]]) -> float | None:
    units = [unit for item in items for unit in zip(*(relations(ranks) for ranks in item.values()))]
    return agreement.krippendorff_alpha(units, lambda a, b: (a - b) ** 2)


def fleiss(items: Sequence[dict[str, tuple[float, ...]]]) -> float | None:
    """Of the tasks that had the commonest number of people: Fleiss' kappa wants the same number throughout."""
    if not items:
        return None
    (raters, _) = Counter(len(item) for item in items).most_common(1)[0]
    units = [
        unit for item in items if len(item) == raters for unit in zip(*(relations(ranks) for ranks in item.values()))
    ]
    return agreement.fleiss_kappa([[unit.count(label) for label in (-1, 0, 1)] for unit in units])


def cohen(items: Sequence[dict[str, tuple[float, ...]]], people: tuple[str, str]) -> float | None:
    first, second = people
    both = [item for item in items if first in item and second in item]
    ours, theirs = ([label for item in both for label in relations(item[name])] for name in (first, second))
    return agreement.cohen_kappa(ours, theirs) if ours else None


def with_scores(ranked: Sequence[Ranked], score: Score) -> dict[str, Any]:
    """How far a reward model orders pairs as people do, together and by person."""
    by_person: dict[str, list[list[bool]]] = defaultdict(list)
    for one in ranked:
        payload = one.event.payload
        ended = payload["meta"].get("ended") or [True] * len(one.ranks)
        scores = score(payload["prompt"], payload["completions"], ended)
        by_person[one.annotator].append(agreement.agreeing_pairs(one.ranks, [-float(value) for value in scores]))
    every = [task for tasks in by_person.values() for task in tasks]
    people = [{"name": name, **clustered(tasks)} for name, tasks in sorted(by_person.items())]
    return {"all": clustered(every), "people": people}


def clustered(tasks: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The mean of numbers from 0 to 1 that come several a task, with its interval; None where there are none."""
    values = [float(value) for task in tasks for value in task]
    if not values:
        return {"share": None, "low": None, "high": None, "n": 0}
    owners = [place for place, task in enumerate(tasks) for _ in task]
    mean, low, high = clustered_share(torch.tensor(values), torch.tensor(owners))
    return {"share": mean, "low": low, "high": high, "n": len(values)}


def positions(ranked: Sequence[Ranked]) -> list[dict[str, Any]]:
    """How often the answer shown at each place was the best, by the number of answers; ties share it."""
    found = []
    for k in sorted({len(one.ranks) for one in ranked}):
        wins, n = [0.0] * k, 0
        for one in ranked:
            best = [place for place, i in enumerate(one.event.payload["shown_order"]) if one.ranks[i] == min(one.ranks)]
            if len(one.ranks) == k and len(best) < k:
                n += 1
                for place in best:
                    wins[place] += 1 / len(best)
        if n:
            found.append({"answers": k, "expected": 1 / k, "places": [share(win, n) for win in wins]})
    return found


def hasty(ranked: Sequence[Ranked]) -> list[dict[str, Any]]:
    """Rankings far faster than is usual for that many answers, the fastest first."""
    found = []
    for k in {len(one.ranks) for one in ranked}:
        own = [one for one in ranked if len(one.ranks) == k]
        logs = [math.log(max(0.1, float(one.event.payload["seconds"]))) for one in own]
        middle = statistics.median(logs)
        # 1.4826 makes it a standard deviation where logs are normal; where all are equally fast nobody is an outlier
        spread = max(0.2, 1.4826 * statistics.median(abs(value - middle) for value in logs))
        for one, value in zip(own, logs):
            if value < middle - HASTY * spread:
                about = {"id": one.event.id, "annotator": one.annotator, "answers": k, "usual": math.exp(middle)}
                found.append({**about, "seconds": one.event.payload["seconds"]})
    return sorted(found, key=lambda one: one["seconds"])[:SHOWN]


def disagreements(ranked: Sequence[Ranked]) -> list[dict[str, Any]]:
    """Tasks that people ordered differently, the largest share of contrary pairs first."""
    tasks: dict[str, list[Ranked]] = defaultdict(list)
    for one in ranked:
        tasks[one.task].append(one)
    found = []
    for several in tasks.values():
        alike = [
            same
            for first, second in combinations(several, 2)
            for same in agreement.agreeing_pairs(first.ranks, second.ranks)
        ]
        if alike and not all(alike):
            payload = several[0].event.payload
            said = [
                {"annotator": one.annotator, "ranks": list(one.ranks), "notes": one.event.payload.get("notes", "")}
                for one in sorted(several, key=lambda one: one.annotator)
            ]
            about = {"prompt": payload["prompt"], "completions": payload["completions"], "said": said}
            found.append({"contrary": 1 - sum(alike) / len(alike), "pairs": len(alike), **about})
    return sorted(found, key=lambda one: -one["contrary"])[:SHOWN]
