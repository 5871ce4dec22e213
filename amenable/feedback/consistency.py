"""Contradictions in one annotator's labels: of two answers to a prompt, each was preferred to the other.

    a > b   and   b > a,    directly, or through other answers:  b > c, c > a

Preferences come from all rankings and comparisons of a prompt. Ties contradict nothing. Of pairs shown twice, the share
preferred alike is the annotator's agreement with themselves (intra-annotator agreement, test-retest).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amenable.data.rankings import pairs_of

Row = dict[str, Any]
"""a ranking: prompt (messages), completions, ranking (1 the best), annotator"""
Preference = tuple[str, str]
"""texts of the better answer and the worse one"""


@dataclass(frozen=True)
class Contradiction:
    """Two answers to a prompt, each of which an annotator preferred to the other; `prompt` is its last message."""

    annotator: str
    prompt: str
    answers: tuple[str, str]


def split_contradictory(rows: Sequence[Row]) -> tuple[list[Row], list[Contradiction]]:
    """Return the rankings that contradict no other of the same annotator, and the contradictions, each pair once."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[str(row["annotator"]), json.dumps(row["prompt"], sort_keys=True)].append(row)
    cycles = {key: cyclic(group) for key, group in groups.items()}
    consistent = [
        row
        for row in rows
        if not cycles[str(row["annotator"]), json.dumps(row["prompt"], sort_keys=True)] & order_of(row)
    ]
    contradictions = [
        Contradiction(name, groups[name, prompt][0]["prompt"][-1]["content"], pair)
        for (name, prompt), preferences in cycles.items()
        for pair in sorted({(min(pair), max(pair)) for pair in preferences})
    ]
    return consistent, contradictions


def order_of(row: Row) -> set[Preference]:
    """Return the preferences of a ranking."""
    texts = row["completions"]
    return {(texts[better], texts[worse]) for better, worse in pairs_of(row["ranking"])}


def cyclic(rows: Sequence[Row]) -> set[Preference]:
    """Return the preferences among rankings of one prompt that lie on a cycle."""
    preferences = {pair for row in rows for pair in order_of(row)}
    worse_than: dict[str, set[str]] = defaultdict(set)
    for better, worse in preferences:
        worse_than[better].add(worse)

    def reachable(start: str) -> set[str]:
        reached, open_texts = set[str](), [start]
        while open_texts:
            new = worse_than[open_texts.pop()] - reached
            reached |= new
            open_texts += new
        return reached

    below = {text: reachable(text) for text in {text for pair in preferences for text in pair}}
    return {(better, worse) for better, worse in preferences if better in below[worse]}
