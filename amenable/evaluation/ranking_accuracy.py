"""Agreement of scores with rankings: accuracy and loss on pairs, by annotator, by length, and calibration."""

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
    """Return the `pair_metrics` of scores on the rankings' pairs; intervals are over rankings. The order of scores
    counts, not their difference: the rankings' margins are left out."""
    gaps, lengths, owners, names = list[float](), list[tuple[int, int]](), list[int](), list[str]()
    for number, (ranking, score) in enumerate(zip(rankings, scores)):
        for better, worse in pairs_of(ranking.ranks):
            gaps.append(float(score[better] - score[worse]))
            lengths.append((ranking.lengths[better], ranking.lengths[worse]))
            owners.append(number)
            names.append(ranking.annotator)
    pairs = torch.tensor(gaps, dtype=torch.float64), torch.tensor(lengths).view(-1, 2), torch.tensor(owners)
    return pair_metrics(*pairs, names, generator)


def pair_metrics(
    gaps: Tensor, lengths: Tensor, prompts: Tensor, annotators: Sequence[str], generator: torch.Generator
) -> dict[str, Any]:
    """Return accuracy, loss, length bias and calibration on N pairs; equal scores count one half; intervals are over
    prompts.

    gaps: score of the better completion less that of the worse, [N]. lengths: characters of both, [N, 2]. prompts:
    number of each pair's prompt, [N]. annotators: name of each pair's annotator.

    accuracy, low, high; loss (mean of -log sigma(gap)), loss_low, loss_high; brier (mean of (1 - sigma(gap))^2; Brier,
    1950); ece (expected calibration error over the bins of `calibration`; Naeini et al., 2015); pairs. Of length:
    longer_wins (accuracy of always preferring the longer completion), accuracy_length_matched (accuracy where lengths
    are within 10 %), accuracy_longer and accuracy_shorter (where the longer, or the shorter, was preferred; None
    without such pairs). by_annotator, and calibration: for bins of the score gap the mean predicted probability
    sigma(gap), the share of correct pairs, and the count.
    """
    if not len(gaps):
        return {
            **{"accuracy": 0.5, "low": 0.0, "high": 1.0, "loss": math.log(2), "loss_low": None, "loss_high": None},
            **{"pairs": 0, "longer_wins": 0.5, "by_annotator": {}},
        }
    hits, longer = correct(gaps), correct(lengths[:, 0] - lengths[:, 1])
    mean, low, high = clustered_share(hits, prompts)
    loss, loss_low, loss_high = bootstrap_mean(-F.logsigmoid(gaps), generator, clusters=prompts)
    matched = (lengths[:, 0] - lengths[:, 1]).abs() <= 0.1 * lengths.max(1).values
    bins = calibration(gaps)
    return {
        "accuracy": mean,
        "low": low,
        "high": high,
        "loss": loss,
        "loss_low": loss_low if math.isfinite(loss_low) else None,
        "loss_high": loss_high if math.isfinite(loss_high) else None,
        "brier": float(torch.sigmoid(-gaps).square().mean()),
        "ece": sum(part["count"] * abs(part["predicted"] - part["actual"]) for part in bins) / len(gaps),
        "pairs": len(gaps),
        "longer_wins": float(longer.mean()),
        "accuracy_length_matched": mean_where(hits, matched),
        "accuracy_longer": mean_where(hits, longer == 1),
        "accuracy_shorter": mean_where(hits, longer == 0),
        "by_annotator": accuracy_by_group(hits, prompts, annotators),
        "calibration": bins,
    }


def correct(gaps: Tensor) -> Tensor:
    """Return for each gap 1 if the better completion's score is higher (gap above 0), one half if both are equal, else
    0."""
    return (gaps > 0).double() + (gaps == 0).double() / 2


def mean_where(values: Tensor, mask: Tensor) -> float | None:
    """Return the mean of the values [N] where the mask [N] is True; None where it is nowhere."""
    return float(values[mask].mean()) if mask.any() else None


def accuracy_by_group(hits: Tensor, prompts: Tensor, groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {group: {accuracy, low, high, pairs}} of pairs that are right or wrong, hits [N], each of a prompt [N] and
    of a group, such as its annotator; intervals are over prompts."""
    members = defaultdict[str, list[int]](list)
    for pair, group in enumerate(groups):
        members[group].append(pair)
    shares = {name: clustered_share(hits[own], prompts[own]) for name, own in sorted(members.items())}
    return {
        name: {"accuracy": mean, "low": low, "high": high, "pairs": len(members[name])}
        for name, (mean, low, high) in shares.items()
    }


def calibration(gaps: Tensor, bins: int = 8) -> list[dict[str, float]]:
    """Return predicted and actual accuracy of pairs [N] sorted by the size of their gap, in bins of equal count.

    Most gaps of a reward model are small: bins of equal width would leave those of large gaps nearly empty.
    """
    parts = gaps[gaps.abs().argsort()].chunk(min(bins, len(gaps)))
    return [
        {
            "predicted": float(torch.sigmoid(part.abs()).mean()),
            "actual": float(correct(part).mean()),
            "count": len(part),
        }
        for part in parts
    ]
