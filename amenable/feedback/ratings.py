"""Ratings of players from battles: Elo, one battle after another, and Bradley-Terry, all of them at once.

Both are on Elo's scale: a player 400 above another is expected to score 10 out of 11. A tie is half a win for each.

Where judges like long answers, `length_controlled` tells what is owed to length from the rest (the idea of
length-controlled AlpacaEval, Dubois et al., 2024):

    P(a beats b) = sigma(s_a - s_b + w tanh((length_a - length_b) / spread))        ratings are of s alone

Intervals are those of the profile likelihood with the prior's ties. They have a width after a single battle and where
one player always wins, unlike a bootstrap, all of whose resamples are the same there.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from amenable.errors import InputError
from amenable.feedback.likelihood import Likelihood, maximize, profile_interval

SCALE = 400 / math.log(10)
"""Elo points in one nat of Bradley-Terry strength: 173.72"""
WORTH = SCALE * math.tanh(1)
"""Elo points of a longer answer for each unit of w: at one usual difference"""


class Battle(NamedTuple):
    """One comparison of two players; `score` is what `a` got: 1 won, 0 lost, one half tied."""

    a: str
    b: str
    score: float


class Rating(NamedTuple):
    """A rating and its 95 % interval."""

    rating: float
    low: float
    high: float


def expected_score(rating: float, other: float) -> float:
    """1 / (1 + 10^((other - rating) / 400)): what a player of this rating scores against the other on average."""
    return 1 / (1 + 10 ** ((other - rating) / 400))


def elo(battles: Iterable[Battle], k: float = 4.0, initial: float = 1000.0) -> dict[str, float]:
    """Ratings after the battles, in their order: R_a += k (score - expected score). Another order, other ratings."""
    ratings: dict[str, float] = {}
    for a, b, score in battles:
        gain = k * (score - expected_score(ratings.setdefault(a, initial), ratings.setdefault(b, initial)))
        ratings[a] += gain
        ratings[b] -= gain
    return ratings


def bradley_terry(
    battles: Sequence[Battle],
    prior: float = 0.0,
    anchor: str | None = None,
    level: float = 1000.0,
    weights: Sequence[float] | None = None,
) -> dict[str, float]:
    """Ratings that make the battles likeliest, P(a beats b) = sigma(s_a - s_b), whatever their order.

    The anchor is put at `level`, or the mean of all players without one. prior: as if each player had also tied so many
    battles with one of strength 0, which pulls ratings together. Without it the likelihood has a maximum only where
    every group of players has both beaten and lost to the others (Ford, 1957); InputError where it has none. weights:
    how often each battle counts.
    """
    players = players_of(battles)
    return anchored(strengths(win_table(battles, players, weights), players, prior), players, anchor, level)


def rate(
    battles: Sequence[Battle],
    prior: float = 1.0,
    anchor: str | None = None,
    level: float = 1000.0,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Rating]:
    """`bradley_terry` with intervals; battles count by `group_weights`. ValueError for a prior that is not above 0."""
    if prior <= 0:
        raise ValueError("intervals need a prior above 0")
    players = players_of(battles)
    likelihood = likelihood_of_wins(win_table(battles, players, group_weights(battles, groups)), players, prior)
    return with_intervals(likelihood, maximize(likelihood, zeros(len(players))), players, anchor, level)


def length_controlled(
    battles: Sequence[Battle],
    gaps: Sequence[float],
    prior: float = 1.0,
    anchor: str | None = None,
    level: float = 1000.0,
    weights: Sequence[float] | None = None,
) -> tuple[dict[str, float], float]:
    """Ratings as if all answers were of one length, and what length is worth.

    gaps: for each battle how much longer the answer of `a` was, in any unit. The worth is in Elo points, of an answer
    that is longer by the root mean square of the gaps, `spread` above. prior: as in `bradley_terry`, and the same for
    w, which keeps it finite where the longer answer always wins; above 0.
    """
    players = players_of(battles)
    likelihood = likelihood_of_scores(*design(battles, gaps, players), prior, weights)
    solved = maximize(likelihood, zeros(len(players) + 1))
    return anchored(solved[:-1], players, anchor, level), WORTH * float(solved[-1])


def rate_length_controlled(
    battles: Sequence[Battle],
    gaps: Sequence[float],
    prior: float = 1.0,
    anchor: str | None = None,
    level: float = 1000.0,
    groups: Sequence[Hashable] | None = None,
) -> tuple[dict[str, Rating], Rating]:
    """`length_controlled` with intervals, of the ratings and of what length is worth; battles count as in `rate`."""
    players = players_of(battles)
    likelihood = likelihood_of_scores(*design(battles, gaps, players), prior, group_weights(battles, groups))
    solved = maximize(likelihood, zeros(len(players) + 1))
    last = torch.eye(len(solved), dtype=torch.float64)[-1]
    worth = Rating(*(WORTH * value for value in (float(solved[-1]), *profile_interval(likelihood, solved, last))))
    return with_intervals(likelihood, solved, players, anchor, level), worth


def group_weights(battles: Sequence[Battle], groups: Sequence[Hashable] | None) -> list[float]:
    """How many independent battles each of N battles is worth, at most 1; groups: the name of each battle's ranking.

    The pairs of one ranking of K answers are not independent. Where the answers are equals, the variance of an answer's
    number of wins is (K + 1) / 3 times that of as many battles apart (Friedman, 1937), so that all of them together are
    worth 3 / (K + 1) of their number. A group that names a pair several times has said it once.
    """
    if groups is None:
        return [1.0] * len(battles)
    sizes = Counter(groups)
    players: defaultdict[Hashable, set[str]] = defaultdict(set)
    for (a, b, _), group in zip(battles, groups, strict=True):
        players[group].update((a, b))
    worth = {group: 1.5 * len(met) * (len(met) - 1) / (len(met) + 1) for group, met in players.items()}
    return [min(1.0, worth[group] / sizes[group]) for group in groups]


def players_of(battles: Sequence[Battle]) -> list[str]:
    """Everybody who fought, by name."""
    return sorted({player for a, b, _ in battles for player in (a, b)})


def strengths(wins: Tensor, players: Sequence[str], prior: float) -> Tensor:
    """Likeliest strengths [P] in nats of a table of wins [P, P], mean 0."""
    s = maximize(likelihood_of_wins(wins, players, prior), zeros(len(players)))
    return s - s.mean()


def with_intervals(
    likelihood: Likelihood, solved: Tensor, players: Sequence[str], anchor: str | None, level: float
) -> dict[str, Rating]:
    """Ratings of the strengths that `solved` begins with, each with its interval against the anchor or the mean."""
    rated = {}
    for player, rating in anchored(solved[: len(players)], players, anchor, level).items():
        contrast = zeros(len(solved))
        contrast[: len(players)] -= 1 / len(players) if anchor is None else 0.0
        contrast[players.index(player)] += 1
        if anchor is not None:
            contrast[players.index(anchor)] -= 1
        ends = profile_interval(likelihood, solved, contrast) if contrast.any() else (0.0, 0.0)
        rated[player] = Rating(rating, *(level + SCALE * end for end in ends))
    return rated


def zeros(size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.float64)


def design(battles: Sequence[Battle], gaps: Sequence[float], players: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Rows [N, P + 1] of the regression (1 for a, -1 for b, then the length term) and scores [N]."""
    if len(gaps) != len(battles) or not all(math.isfinite(gap) for gap in gaps):
        raise InputError(f"{len(gaps)} differences of length for {len(battles)} battles", how="one number each")
    for battle in battles:
        require_battle(battle)
    place = {player: i for i, player in enumerate(players)}
    lengths = torch.tensor(gaps, dtype=torch.float64)
    spread = float(lengths.square().mean().sqrt()) or 1.0
    rows = torch.zeros(len(battles), len(players) + 1, dtype=torch.float64)
    numbers = torch.arange(len(battles))
    rows[numbers, torch.tensor([place[a] for a, _, _ in battles])] = 1.0
    rows[numbers, torch.tensor([place[b] for _, b, _ in battles])] = -1.0
    rows[:, -1] = torch.tanh(lengths / spread)
    return rows, torch.tensor([score for _, _, score in battles], dtype=torch.float64)


def likelihood_of_scores(
    rows: Tensor, scores: Tensor, prior: float, weights: Sequence[float] | None = None
) -> Likelihood:
    """Of scores [N] in a logistic regression on rows [N, P + 1], each counted by its weight.

    Every coefficient also has `prior` ties with nothing, so that there is a maximum; ValueError for a prior of 0.
    """
    if prior <= 0:
        raise ValueError("a regression on lengths needs a prior above 0")
    times = torch.ones_like(scores) if weights is None else torch.tensor(weights, dtype=torch.float64)

    def value(s: Tensor) -> Tensor:
        ahead, behind = F.logsigmoid(rows @ s), F.logsigmoid(-(rows @ s))
        return (times * (scores * ahead + (1 - scores) * behind)).sum() + drawn_to_zero(s, prior)

    def slopes(s: Tensor) -> tuple[Tensor, Tensor]:
        expected, alone = torch.sigmoid(rows @ s), torch.sigmoid(s)
        gradient = rows.t() @ (times * (scores - expected)) + prior * (0.5 - alone)
        spread = times * expected * (1 - expected)
        return gradient, rows.t() @ (spread[:, None] * rows) + torch.diag(prior * alone * (1 - alone))

    return Likelihood(value, slopes, float(times.sum()))


def win_table(battles: Sequence[Battle], players: Sequence[str], weights: Sequence[float] | None = None) -> Tensor:
    """wins [P, P]: how often row beat column, a tie one half each; each battle counts by its weight, or once."""
    place = {player: i for i, player in enumerate(players)}
    wins = [[0.0] * len(players) for _ in players]
    for number, battle in enumerate(battles):
        require_battle(battle)
        a, b, score = battle
        count = 1.0 if weights is None else weights[number]
        wins[place[a]][place[b]] += count * score
        wins[place[b]][place[a]] += count * (1 - score)
    return torch.tensor(wins, dtype=torch.float64)


def require_battle(battle: Battle) -> None:
    """InputError where somebody fights alone, or the score is none."""
    a, b, score = battle
    if a == b or not 0 <= score <= 1:
        raise InputError(f"a battle of '{a}' and '{b}' with score {score}", how="two players, and 0 to 1 for the first")


def likelihood_of_wins(wins: Tensor, players: Sequence[str], prior: float) -> Likelihood:
    """Of a table of wins [P, P] by strengths s [P] in nats.

    gradient_i = sum_j (w_ij - n_ij sigma(s_i - s_j)) + prior (1/2 - sigma(s_i)),   n_ij = w_ij + w_ji
    """
    if prior <= 0:
        require_connected(wins, players)
    games = wins + wins.t()
    # without a prior a shift of all strengths changes nothing: the ones forbid it
    still = torch.ones_like(wins) if prior <= 0 else torch.zeros_like(wins)

    def value(s: Tensor) -> Tensor:
        return (wins * F.logsigmoid(s[:, None] - s)).sum() + drawn_to_zero(s, prior)

    def slopes(s: Tensor) -> tuple[Tensor, Tensor]:
        expected, alone = torch.sigmoid(s[:, None] - s), torch.sigmoid(s)
        gradient = (wins - games * expected).sum(1) + prior * (0.5 - alone)
        spread = games * expected * (1 - expected)
        return gradient, torch.diag(spread.sum(1) + prior * alone * (1 - alone)) - spread + still

    return Likelihood(value, slopes, float(games.sum()))


def drawn_to_zero(s: Tensor, prior: float) -> Tensor:
    """Log-likelihood of `prior` ties of each strength with 0."""
    return prior * (F.logsigmoid(s) + F.logsigmoid(-s)).sum() / 2


def require_connected(wins: Tensor, players: Sequence[str]) -> None:
    """Every player must have beaten every other, if only through a chain of players; InputError otherwise."""
    reached = (wins > 0) | torch.eye(len(players), dtype=torch.bool)
    for _ in players:
        reached = (reached.double() @ reached.double()) > 0
    if not bool(reached.all()):
        i, j = (int(place) for place in (~reached).nonzero()[0])
        raise InputError(
            f"'{players[i]}' has not beaten '{players[j]}', not even through others: their ratings have no limit",
            how="collect more battles, or give a prior above 0",
        )


def anchored(s: Tensor, players: Sequence[str], anchor: str | None, level: float) -> dict[str, float]:
    """Strengths [P] as ratings, the anchor (or the mean) at `level`."""
    if anchor is not None and anchor not in players:
        raise InputError(f"no battle of the anchor '{anchor}'", how=f"the players are {', '.join(players)}")
    zero = float(s.mean()) if anchor is None else float(s[players.index(anchor)])
    return {player: level + SCALE * (float(value) - zero) for player, value in zip(players, s)}
