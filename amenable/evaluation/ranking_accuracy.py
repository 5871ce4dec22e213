"""Agreement of scores with rankings: accuracy and loss on pairs, by annotator, at equal length, and calibration."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.data.rankings import pairs_of
from amenable.functional.statistics import bootstrap_mean, clustered_share
from amenable.models.heads import ScalarModel
from amenable.seeds import seeded_generator
from amenable.train import forward
from amenable.train.log import Log
from amenable.train.rankings import TokenizedRanking
from amenable.train.runtime import Runtime


def measure_accuracies(
    model: ScalarModel,
    sets: Mapping[str, Sequence[TokenizedRanking]],
    runtime: Runtime,
    max_tokens: int,
    seed: int,
    log: Log,
) -> dict[str, dict[str, Any]]:
    """Return `ranking_metrics` of a reward model's scores on each set that is not empty, and log a line for each.

    max_tokens: tokens of a pass. seed: of the bootstrap.
    """
    accuracies = {}
    for name, rankings in sets.items():
        if rankings:
            bar = log.bar(name)
            scores = forward.element_rewards(model, rankings, lambda each: each.rows, runtime, max_tokens, bar)
            accuracies[name] = ranking_metrics(rankings, scores, seeded_generator(seed, "bootstrap"))
            log.info(f"{name}: {describe(accuracies[name])}")
    return accuracies


def describe(accuracy: dict[str, Any]) -> str:
    """Return the main figures of `ranking_metrics` as a line."""
    return (
        f"accuracy {accuracy['accuracy']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}] "
        f"and loss {accuracy['loss']:.3f} on {accuracy['pairs']} pairs; "
        f"'the longer answer wins' {accuracy['longer_wins']:.3f}"
    )


def ranking_metrics(
    rankings: Sequence[TokenizedRanking], scores: Sequence[Tensor], generator: torch.Generator
) -> dict[str, Any]:
    """Return accuracy and loss of scores on the rankings' pairs: equal scores count one half; intervals are over
    prompts. The order of scores counts, not their difference: the rankings' margins are left out.

    accuracy, low, high, loss (mean of -log sigma(gap)), loss_low, loss_high, pairs, longer_wins (accuracy of always
    preferring the longer completion), accuracy_length_matched (accuracy where lengths are within 10 %), by_annotator,
    and calibration: for bins of the score gap the mean predicted probability sigma(gap), the share of correct pairs,
    and the count.
    """
    hits, longer, gaps, prompts, names, matched = [], [], [], [], [], []
    for number, (ranking, score) in enumerate(zip(rankings, scores)):
        for better, worse in pairs_of(ranking.ranks):
            first, second = ranking.lengths[better], ranking.lengths[worse]
            gap = float(score[better] - score[worse])
            hits.append(correct(gap))
            longer.append(correct(first - second))
            matched.append(abs(first - second) <= 0.1 * max(first, second))
            gaps.append(gap)
            prompts.append(number)
            names.append(ranking.annotator)
    if not hits:
        return {
            **{"accuracy": 0.5, "low": 0.0, "high": 1.0, "loss": math.log(2), "loss_low": None, "loss_high": None},
            **{"pairs": 0, "longer_wins": 0.5, "by_annotator": {}},
        }
    owners = torch.tensor(prompts)
    mean, low, high = clustered_share(torch.tensor(hits), owners)
    losses = -F.logsigmoid(torch.tensor(gaps, dtype=torch.float64))
    loss, loss_low, loss_high = bootstrap_mean(losses, generator, clusters=owners)
    close = [hit for hit, near in zip(hits, matched) if near]
    return {
        "accuracy": mean,
        "low": low,
        "high": high,
        "loss": loss,
        "loss_low": loss_low if math.isfinite(loss_low) else None,
        "loss_high": loss_high if math.isfinite(loss_high) else None,
        "pairs": len(hits),
        "longer_wins": sum(longer) / len(longer),
        "accuracy_length_matched": sum(close) / len(close) if close else None,
        "by_annotator": accuracy_by_annotator(hits, names),
        "calibration": calibration(gaps),
    }


def correct(gap: float) -> float:
    """Return 1 if the better completion's score is higher (gap above 0), one half if both are equal, else 0."""
    return 1.0 if gap > 0 else 0.5 if gap == 0 else 0.0


def accuracy_by_annotator(hits: Sequence[float], annotators: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {name: {accuracy, pairs}} of the pairs of each annotator; hits and annotators have an entry a pair."""
    by_name: dict[str, list[float]] = defaultdict(list)
    for hit, name in zip(hits, annotators):
        by_name[name].append(hit)
    return {name: {"accuracy": sum(own) / len(own), "pairs": len(own)} for name, own in sorted(by_name.items())}


def calibration(gaps: list[float], bins: int = 8) -> list[dict[str, float]]:
    """Return predicted and actual accuracy of pairs sorted by the size of their gap, in bins of equal count.

    Most gaps of a reward model are small: bins of equal width would leave those of large gaps nearly empty.
    """
    sizes = torch.tensor(gaps)
    order = sizes.abs().argsort()
    out = []
    for part in order.chunk(min(bins, len(gaps))):
        gap = sizes[part]
        actual = sum(correct(float(value)) for value in gap) / len(part)
        out.append({"predicted": float(torch.sigmoid(gap.abs()).mean()), "actual": actual, "count": len(part)})
    return out
