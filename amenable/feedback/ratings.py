"""Ratings of models from comparisons: Elo, one comparison after another, and Bradley-Terry, all of them at once.

Both are on Elo's scale: a model 400 above another is expected to score 10 out of 11. A tie is half a win for each.

Where judges like long answers, `length_controlled` separates the effect of length (the idea of length-controlled
AlpacaEval, Dubois et al., 2024):

    P(a beats b) = sigma(s_a - s_b + w tanh((length_a - length_b) / spread))        ratings are of s alone

Intervals are those of the profile likelihood with the prior's ties. They have a width after a single comparison and
where one model always wins, unlike a bootstrap, all of whose resamples are the same there.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.errors import InputError
from amenable.feedback.likelihood import Likelihood, maximize, profile_interval

SCALE = 400 / math.log(10)
"""Elo points in one nat of Bradley-Terry strength: 173.72"""
LENGTH_SCALE = SCALE * math.tanh(1)
"""Elo points of a longer answer for each unit of w: at one usual difference"""

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Comparison:
    """Comparison of the answers of two models. `score` is that of `a`: 1 won, 0 lost, one half tied."""

    a: str
    b: str
    score: float
    lengths: tuple[int, int] | None = None
    """characters of the two answers; None where unknown"""
    both_bad: bool = False
    annotator: str = "?"
    group: str = ""
    """the vote or ranking that the comparison is from; without a name it is independent of all others"""
    hashes: tuple[str, str] | None = None
    """of the models' weights; None where unknown"""


class Rating(NamedTuple):
    """A rating and its 95 % interval."""

    rating: float
    low: float
    high: float


def expected_score(rating: float, other: float) -> float:
    """Return 1 / (1 + 10^((other - rating) / 400)), the mean score of a model of this rating against the other."""
    return 1 / (1 + 10 ** ((other - rating) / 400))


def elo(comparisons: Iterable[Comparison], k: float = 4.0, initial: float = 1000.0) -> dict[str, float]:
    """Return Elo ratings: R_a += k (score - expected score) at each comparison. They depend on the order."""
    ratings: dict[str, float] = {}
    for row in comparisons:
        expected = expected_score(ratings.setdefault(row.a, initial), ratings.setdefault(row.b, initial))
        ratings[row.a] += k * (row.score - expected)
        ratings[row.b] -= k * (row.score - expected)
    return ratings


def bradley_terry(
    comparisons: Sequence[Comparison],
    prior: float = 0.0,
    anchor: str | None = None,
    level: float = 1000.0,
    weights: Sequence[float] | None = None,
) -> dict[str, float]:
    """Return the maximum-likelihood ratings, P(a beats b) = sigma(s_a - s_b), which depend on no order.

    The anchor's rating is `level`, or without an anchor the mean of all models. prior: virtual ties of each model with
    one of strength 0, which pull ratings together. Without it the likelihood has a maximum only where every group of
    models has both beaten and lost to the others (Ford, 1957); InputError where it has none. weights: how often each
    comparison counts.
    """
    models = models_in(comparisons)
    return anchored(strengths(win_table(comparisons, models, weights), models, prior), models, anchor, level)


def rate(
    comparisons: Sequence[Comparison],
    prior: float = 1.0,
    anchor: str | None = None,
    level: float = 1000.0,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Rating]:
    """Return `bradley_terry` with intervals; comparisons count by `group_weights`. ValueError for a prior of 0."""
    if prior <= 0:
        raise ValueError("intervals need a prior above 0")
    models = models_in(comparisons)
    likelihood = likelihood_of_wins(win_table(comparisons, models, group_weights(comparisons, groups)), models, prior)
    return with_intervals(likelihood, maximize(likelihood, zeros(len(models))), models, anchor, level)


def length_controlled(
    comparisons: Sequence[Comparison],
    gaps: Sequence[float],
    prior: float = 1.0,
    anchor: str | None = None,
    level: float = 1000.0,
    weights: Sequence[float] | None = None,
) -> tuple[dict[str, float], float]:
    """Return the ratings at equal length of answers, and the effect of length.

    gaps: for each comparison the length of `a`'s answer less that of `b`'s, in any unit. The effect is in Elo points,
    of an answer longer by the root mean square of the gaps, `spread` above. prior: as in `bradley_terry`, and the same
    for w, which keeps it finite where the longer answer always wins; above 0.
    """
    models = models_in(comparisons)
    likelihood = likelihood_of_scores(*design_matrix(comparisons, gaps, models), prior, weights)
    solved = maximize(likelihood, zeros(len(models) + 1))
    return anchored(solved[:-1], models, anchor, level), LENGTH_SCALE * float(solved[-1])


def rate_length_controlled(
    comparisons: Sequence[Comparison],
    gaps: Sequence[float],
    prior: float = 1.0,
    anchor: str | None = None,
    level: float = 1000.0,
    groups: Sequence[Hashable] | None = None,
) -> tuple[dict[str, Rating], Rating]:
    """Return `length_controlled` with intervals, of ratings and length effect; comparisons count as in `rate`."""
    models = models_in(comparisons)
    likelihood = likelihood_of_scores(
        *design_matrix(comparisons, gaps, models), prior, group_weights(comparisons, groups)
    )
    solved = maximize(likelihood, zeros(len(models) + 1))
    return with_intervals(likelihood, solved, models, anchor, level), length_effect(likelihood, solved)


def length_effect(likelihood: Likelihood, solved: Tensor) -> Rating:
    """Return the effect of length in Elo points, with its interval; `solved` ends with w."""
    last = torch.eye(len(solved), dtype=torch.float64)[-1]
    return Rating(*(LENGTH_SCALE * w for w in (float(solved[-1]), *profile_interval(likelihood, solved, last))))


def group_weights(comparisons: Sequence[Comparison], groups: Sequence[Hashable] | None) -> list[float]:
    """Return the weight of each of N comparisons, at most 1; groups: the name of each comparison's ranking.

    The pairs of one ranking of K answers are not independent. Where the answers are equals, the variance of an answer's
    number of wins is (K + 1) / 3 times that of as many independent comparisons (Friedman, 1937), so that together they
    weigh 3 / (K + 1) of their number. A group that names a pair several times counts it once.
    """
    if groups is None:
        return [1.0] * len(comparisons)
    sizes = Counter(groups)
    models: defaultdict[Hashable, set[str]] = defaultdict(set)
    for row, group in zip(comparisons, groups, strict=True):
        models[group].update((row.a, row.b))
    effective = {group: 1.5 * len(met) * (len(met) - 1) / (len(met) + 1) for group, met in models.items()}
    return [min(1.0, effective[group] / sizes[group]) for group in groups]


def models_in(comparisons: Iterable[Comparison]) -> list[str]:
    """Return the names of all compared models, sorted."""
    return sorted({model for row in comparisons for model in (row.a, row.b)})


def groups_of(names: Sequence[Name], met: Iterable[Sequence[Name]]) -> list[list[Name]]:
    """Group models by `met`, pairs that were compared: within a group all have met, directly or through others."""
    group = {name: name for name in names}
    for a, b in met:
        old, new = group[a], group[b]
        group = {name: new if theirs == old else theirs for name, theirs in group.items()}
    return [[name for name in names if group[name] == first] for first in dict.fromkeys(group.values())]


def strengths(wins: Tensor, models: Sequence[str], prior: float) -> Tensor:
    """Return the maximum-likelihood strengths [P] in nats for a table of wins [P, P], mean 0."""
    s = maximize(likelihood_of_wins(wins, models, prior), zeros(len(models)))
    return s - s.mean()


def with_intervals(
    likelihood: Likelihood, solved: Tensor, models: Sequence[str], anchor: str | None, level: float
) -> dict[str, Rating]:
    """Return ratings of the strengths that `solved` begins with; intervals are against the anchor or the mean."""
    rated = {}
    for model, rating in anchored(solved[: len(models)], models, anchor, level).items():
        contrast = zeros(len(solved))
        contrast[: len(models)] -= 1 / len(models) if anchor is None else 0.0
        contrast[models.index(model)] += 1
        if anchor is not None:
            contrast[models.index(anchor)] -= 1
        ends = profile_interval(likelihood, solved, contrast) if contrast.any() else (0.0, 0.0)
        rated[model] = Rating(rating, *(level + SCALE * end for end in ends))
    return rated


def zeros(size: int) -> Tensor:
    """Return zeros [size] in double precision."""
    return torch.zeros(size, dtype=torch.float64)


def design_matrix(
    comparisons: Sequence[Comparison], gaps: Sequence[float], models: Sequence[str]
) -> tuple[Tensor, Tensor]:
    """Return rows [N, P + 1] of the regression (1 for a, -1 for b, then the length term) and scores [N]."""
    if len(gaps) != len(comparisons) or not all(math.isfinite(gap) for gap in gaps):
        counts = f"{len(gaps)} differences of length for {len(comparisons)} comparisons"
        raise InputError(counts, how="give a finite number for each")
    for row in comparisons:
        require_valid(row)
    index = {model: i for i, model in enumerate(models)}
    lengths = torch.tensor(gaps, dtype=torch.float64)
    spread = float(lengths.square().mean().sqrt()) or 1.0
    rows = torch.zeros(len(comparisons), len(models) + 1, dtype=torch.float64)
    numbers = torch.arange(len(comparisons))
    rows[numbers, torch.tensor([index[row.a] for row in comparisons])] = 1.0
    rows[numbers, torch.tensor([index[row.b] for row in comparisons])] = -1.0
    rows[:, -1] = torch.tanh(lengths / spread)
    return rows, torch.tensor([row.score for row in comparisons], dtype=torch.float64)


def likelihood_of_scores(
    rows: Tensor, scores: Tensor, prior: float, weights: Sequence[float] | None = None
) -> Likelihood:
    """Return the likelihood of scores [N] in a logistic regression on rows [N, P + 1], each counted by its weight.

    Every coefficient also has `prior` ties with 0, so that there is a maximum; ValueError for a prior of 0.
    """
    if prior <= 0:
        raise ValueError("a regression on lengths needs a prior above 0")
    times = torch.ones_like(scores) if weights is None else torch.tensor(weights, dtype=torch.float64)

    def value(s: Tensor) -> Tensor:
        ahead, behind = F.logsigmoid(rows @ s), F.logsigmoid(-(rows @ s))
        return (times * (scores * ahead + (1 - scores) * behind)).sum() + log_prior(s, prior)

    def slopes(s: Tensor) -> tuple[Tensor, Tensor]:
        expected, alone = torch.sigmoid(rows @ s), torch.sigmoid(s)
        gradient = rows.t() @ (times * (scores - expected)) + prior * (0.5 - alone)
        spread = times * expected * (1 - expected)
        return gradient, rows.t() @ (spread[:, None] * rows) + torch.diag(prior * alone * (1 - alone))

    return Likelihood(value, slopes, float(times.sum()))


def win_table(
    comparisons: Sequence[Comparison], models: Sequence[str], weights: Sequence[float] | None = None
) -> Tensor:
    """Return wins [P, P] of row over column, a tie one half each; each comparison counts by its weight, or once."""
    index = {model: i for i, model in enumerate(models)}
    wins = [[0.0] * len(models) for _ in models]
    for number, row in enumerate(comparisons):
        require_valid(row)
        a, b, count = index[row.a], index[row.b], 1.0 if weights is None else weights[number]
        wins[a][b] += count * row.score
        wins[b][a] += count * (1 - row.score)
    return torch.tensor(wins, dtype=torch.float64)


def require_valid(comparison: Comparison) -> None:
    """Raise InputError for a model compared with itself, or a score outside 0 to 1."""
    a, b, score = comparison.a, comparison.b, comparison.score
    if a == b or not 0 <= score <= 1:
        raise InputError(f"not a comparison: '{a}' and '{b}' with score {score}", how="give two models, and 0 to 1")


def likelihood_of_wins(wins: Tensor, models: Sequence[str], prior: float) -> Likelihood:
    """Return the likelihood of a table of wins [P, P] by strengths s [P] in nats.

    gradient_i = sum_j (w_ij - n_ij sigma(s_i - s_j)) + prior (1/2 - sigma(s_i)),   n_ij = w_ij + w_ji
    """
    if prior <= 0:
        require_connected(wins, models)
    games = wins + wins.t()
    # without a prior a shift of all strengths changes nothing: the ones forbid it
    still = torch.ones_like(wins) if prior <= 0 else torch.zeros_like(wins)

    def value(s: Tensor) -> Tensor:
        return (wins * F.logsigmoid(s[:, None] - s)).sum() + log_prior(s, prior)

    def slopes(s: Tensor) -> tuple[Tensor, Tensor]:
        expected, alone = torch.sigmoid(s[:, None] - s), torch.sigmoid(s)
        gradient = (wins - games * expected).sum(1) + prior * (0.5 - alone)
        spread = games * expected * (1 - expected)
        return gradient, torch.diag(spread.sum(1) + prior * alone * (1 - alone)) - spread + still

    return Likelihood(value, slopes, float(games.sum()))


def log_prior(s: Tensor, prior: float) -> Tensor:
    """Return the log-likelihood of `prior` ties of each strength with 0."""
    return prior * (F.logsigmoid(s) + F.logsigmoid(-s)).sum() / 2


def require_connected(wins: Tensor, models: Sequence[str]) -> None:
    """Raise InputError unless every model has beaten every other, directly or through a chain of models."""
    reached = (wins > 0) | torch.eye(len(models), dtype=torch.bool)
    for _ in models:
        reached = (reached.double() @ reached.double()) > 0
    if not bool(reached.all()):
        i, j = (int(index) for index in (~reached).nonzero()[0])
        raise InputError(
            f"'{models[i]}' has not beaten '{models[j]}', not even through others: their ratings have no limit",
            how="collect more votes, or give a prior above 0",
        )


def anchored(s: Tensor, models: Sequence[str], anchor: str | None, level: float) -> dict[str, float]:
    """Return strengths [P] as ratings, the anchor (or the mean) at `level`."""
    if anchor is not None and anchor not in models:
        raise InputError(f"no comparison of the anchor '{anchor}'", how=f"known are {', '.join(models)}")
    zero = float(s.mean()) if anchor is None else float(s[models.index(anchor)])
    return {model: level + SCALE * (float(value) - zero) for model, value in zip(models, s)}
