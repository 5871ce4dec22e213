"""Ratings of players from battles: Elo, one battle after another, and Bradley-Terry, all of them at once.

Both are on Elo's scale: a player 400 above another is expected to score 10 out of 11. A tie is half a win for each.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from amenable.errors import InputError

SCALE = 400 / math.log(10)
"""Elo points in one nat of Bradley-Terry strength: 173.72"""


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
    battles: Sequence[Battle], prior: float = 0.0, anchor: str | None = None, level: float = 1000.0
) -> dict[str, float]:
    """Ratings that make the battles likeliest, P(a beats b) = sigma(s_a - s_b), whatever their order.

    The anchor is put at `level`, or the mean of all players without one. prior: as if each player had also tied so many
    battles with one of strength 0, which pulls ratings together. Without it the likelihood has a maximum only where
    every group of players has both beaten and lost to the others (Ford, 1957); InputError where it has none.
    """
    players = sorted({player for a, b, _ in battles for player in (a, b)})
    wins = win_table(battles, players)
    return anchored(strengths(wins, players, prior), players, anchor, level)


def bootstrap_ratings(
    battles: Sequence[Battle],
    generator: torch.Generator,
    n: int = 200,
    prior: float = 0.1,
    anchor: str | None = None,
    level: float = 1000.0,
) -> dict[str, Rating]:
    """`bradley_terry` with percentile intervals over n resamples of the battles.

    A resample can miss the battles that hold the players together, hence the prior, which must be above 0.
    """
    if prior <= 0:
        raise ValueError("resampled battles need a prior above 0")
    players = sorted({player for a, b, _ in battles for player in (a, b)})
    tally = Counter(battles)
    kinds, counts = list(tally), torch.tensor(list(tally.values()), dtype=torch.float64)
    samples: dict[str, list[float]] = {player: [] for player in players}
    for _ in range(n):
        drawn = torch.multinomial(counts, len(battles), replacement=True, generator=generator)
        times = torch.bincount(drawn, minlength=len(kinds)).tolist()
        wins = win_table(kinds, players, times)
        for player, rating in anchored(strengths(wins, players, prior), players, anchor, level).items():
            samples[player].append(rating)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    intervals = {
        player: torch.quantile(torch.tensor(values, dtype=torch.float64), ends).tolist()
        for player, values in samples.items()
    }
    ratings = bradley_terry(battles, prior, anchor, level)
    return {player: Rating(ratings[player], *intervals[player]) for player in players}


def win_table(battles: Sequence[Battle], players: Sequence[str], times: Sequence[float] | None = None) -> Tensor:
    """wins [P, P]: how often row beat column, a tie one half each; each battle counts `times`, or once."""
    place = {player: i for i, player in enumerate(players)}
    wins = [[0.0] * len(players) for _ in players]
    for number, (a, b, score) in enumerate(battles):
        if a == b or not 0 <= score <= 1:
            raise InputError(
                f"a battle of '{a}' and '{b}' with score {score}", how="two players, and 0 to 1 for the first"
            )
        count = 1.0 if times is None else times[number]
        wins[place[a]][place[b]] += count * score
        wins[place[b]][place[a]] += count * (1 - score)
    return torch.tensor(wins, dtype=torch.float64)


def strengths(wins: Tensor, players: Sequence[str], prior: float) -> Tensor:
    """Maximum-likelihood strengths [P] in nats, mean 0, by Newton's method with halved steps.

    gradient_i = sum_j (w_ij - n_ij sigma(s_i - s_j)) + prior (1/2 - sigma(s_i)),   n_ij = w_ij + w_ji
    """
    if prior <= 0:
        require_connected(wins, players)
    games = wins + wins.t()
    s = torch.zeros(len(players), dtype=torch.float64)

    def likelihood(s: Tensor) -> Tensor:
        pairs = (wins * torch.nn.functional.logsigmoid(s[:, None] - s)).sum()
        return pairs + prior * (torch.nn.functional.logsigmoid(s) + torch.nn.functional.logsigmoid(-s)).sum() / 2

    for _ in range(200):
        expected, alone = torch.sigmoid(s[:, None] - s), torch.sigmoid(s)
        gradient = (wins - games * expected).sum(1) + prior * (0.5 - alone)
        if gradient.abs().max() < 1e-10 * max(1.0, float(games.sum())):
            break
        spread = games * expected * (1 - expected)
        curvature = torch.diag(spread.sum(1) + prior * alone * (1 - alone)) - spread
        # without a prior a shift of all strengths changes nothing: the ones forbid it
        step = torch.linalg.solve(curvature + (torch.ones_like(curvature) if prior <= 0 else 0.0), gradient)
        before = likelihood(s)
        while likelihood(s + step) < before - 1e-12 * before.abs():
            step = step / 2
        s = s + step
    return s - s.mean()


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
