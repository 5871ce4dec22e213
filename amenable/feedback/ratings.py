"""Ratings of players from battles: Elo, one battle after another, and Bradley-Terry, all of them at once.

Both are on Elo's scale: a player 400 above another is expected to score 10 out of 11. A tie is half a win for each.

Where judges like long answers, `length_controlled` tells what is owed to length from the rest (the idea of
length-controlled AlpacaEval, Dubois et al., 2024):

    P(a beats b) = sigma(s_a - s_b + w tanh((length_a - length_b) / spread))        ratings are of s alone
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
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
    players = players_of(battles)
    wins = win_table(battles, players)
    return anchored(strengths(wins, players, prior), players, anchor, level)


def bootstrap_ratings(
    battles: Sequence[Battle],
    generator: torch.Generator,
    n: int = 200,
    prior: float = 0.1,
    anchor: str | None = None,
    level: float = 1000.0,
    groups: Sequence[Hashable] | None = None,
) -> dict[str, Rating]:
    """`bradley_terry` with percentile intervals over n resamples of the battles.

    groups: a name for each battle; those of one name, such as the pairs of one ranking, are drawn together. A resample
    can miss the battles that hold the players together, hence the prior, which must be above 0.
    """
    if prior <= 0:
        raise ValueError("resampled battles need a prior above 0")
    players = players_of(battles)
    kinds = list(dict.fromkeys(battles))
    number = {battle: i for i, battle in enumerate(kinds)}
    of = torch.tensor([number[battle] for battle in battles])
    samples = []
    for times in resamples(range(len(battles)) if groups is None else groups, n, generator):
        counts = torch.zeros(len(kinds), dtype=torch.float64).index_add(0, of, times).tolist()
        wins = win_table(kinds, players, counts)
        samples.append(anchored(strengths(wins, players, prior), players, anchor, level))
    return with_intervals(bradley_terry(battles, prior, anchor, level), samples)


def length_controlled(
    battles: Sequence[Battle],
    gaps: Sequence[float],
    prior: float = 0.1,
    anchor: str | None = None,
    level: float = 1000.0,
) -> tuple[dict[str, float], float]:
    """Ratings as if all answers were of one length, and what length is worth.

    gaps: for each battle how much longer the answer of `a` was, in any unit. The worth is in Elo points, of an answer
    that is longer by the root mean square of the gaps, `spread` above. prior: as in `bradley_terry`, and the same for
    w, which keeps it finite where the longer answer always wins; above 0.
    """
    players = players_of(battles)
    solved = solve(*design(battles, gaps, players), prior)
    return anchored(solved[:-1], players, anchor, level), worth_of(solved)


def bootstrap_length_controlled(
    battles: Sequence[Battle],
    gaps: Sequence[float],
    generator: torch.Generator,
    n: int = 200,
    prior: float = 0.1,
    anchor: str | None = None,
    level: float = 1000.0,
    groups: Sequence[Hashable] | None = None,
) -> tuple[dict[str, Rating], Rating]:
    """`length_controlled` with percentile intervals, of the ratings and of what length is worth; groups as there."""
    players = players_of(battles)
    rows, scores = design(battles, gaps, players)
    samples, worths = [], []
    for times in resamples(range(len(battles)) if groups is None else groups, n, generator):
        solved = solve(rows, scores, prior, times)
        samples.append(anchored(solved[:-1], players, anchor, level))
        worths.append({"": worth_of(solved)})
    ratings, worth = length_controlled(battles, gaps, prior, anchor, level)
    return with_intervals(ratings, samples), with_intervals({"": worth}, worths)[""]


def players_of(battles: Sequence[Battle]) -> list[str]:
    """Everybody who fought, by name."""
    return sorted({player for a, b, _ in battles for player in (a, b)})


def resamples(groups: Sequence[Hashable], n: int, generator: torch.Generator) -> Iterator[Tensor]:
    """n times: how often each battle [N] comes in a resample, whole groups at a time."""
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    of = torch.tensor([numbers[group] for group in groups])
    for _ in range(n):
        drawn = torch.randint(len(numbers), (len(numbers),), generator=generator)
        yield torch.bincount(drawn, minlength=len(numbers))[of].double()


def with_intervals(ratings: dict[str, float], samples: Sequence[dict[str, float]]) -> dict[str, Rating]:
    """Ratings with the middle 95 % of what resamples gave."""
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    found = {}
    for player, rating in ratings.items():
        values = torch.tensor([sample[player] for sample in samples], dtype=torch.float64)
        found[player] = Rating(rating, *torch.quantile(values, ends).tolist())
    return found


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


def solve(rows: Tensor, scores: Tensor, prior: float, times: Tensor | None = None) -> Tensor:
    """Weights [P + 1] that make scores [N] likeliest in a logistic regression on rows [N, P + 1].

    times: how often each row counts [N]. Every weight also has `prior` ties with nothing, so that there is a maximum.
    """
    if prior <= 0:
        raise ValueError("a regression on lengths needs a prior above 0")
    times = torch.ones_like(scores) if times is None else times

    def likelihood(weights: Tensor) -> Tensor:
        ahead, behind = F.logsigmoid(rows @ weights), F.logsigmoid(-(rows @ weights))
        return (times * (scores * ahead + (1 - scores) * behind)).sum() + drawn_to_zero(weights, prior)

    def slopes(weights: Tensor) -> tuple[Tensor, Tensor]:
        expected, alone = torch.sigmoid(rows @ weights), torch.sigmoid(weights)
        gradient = rows.t() @ (times * (scores - expected)) + prior * (0.5 - alone)
        spread = times * expected * (1 - expected)
        return gradient, rows.t() @ (spread[:, None] * rows) + torch.diag(prior * alone * (1 - alone))

    return climb(torch.zeros(rows.shape[1], dtype=torch.float64), likelihood, slopes, float(times.sum()))


def worth_of(weights: Tensor) -> float:
    """What a longer answer gains, in Elo points, of the weights [P + 1]: at tanh 1, one usual difference."""
    return SCALE * float(weights[-1]) * math.tanh(1)


def win_table(battles: Sequence[Battle], players: Sequence[str], times: Sequence[float] | None = None) -> Tensor:
    """wins [P, P]: how often row beat column, a tie one half each; each battle counts `times`, or once."""
    place = {player: i for i, player in enumerate(players)}
    wins = [[0.0] * len(players) for _ in players]
    for number, battle in enumerate(battles):
        require_battle(battle)
        a, b, score = battle
        count = 1.0 if times is None else times[number]
        wins[place[a]][place[b]] += count * score
        wins[place[b]][place[a]] += count * (1 - score)
    return torch.tensor(wins, dtype=torch.float64)


def require_battle(battle: Battle) -> None:
    """InputError where somebody fights alone, or the score is none."""
    a, b, score = battle
    if a == b or not 0 <= score <= 1:
        raise InputError(f"a battle of '{a}' and '{b}' with score {score}", how="two players, and 0 to 1 for the first")


def strengths(wins: Tensor, players: Sequence[str], prior: float) -> Tensor:
    """Maximum-likelihood strengths [P] in nats, mean 0.

    gradient_i = sum_j (w_ij - n_ij sigma(s_i - s_j)) + prior (1/2 - sigma(s_i)),   n_ij = w_ij + w_ji
    """
    if prior <= 0:
        require_connected(wins, players)
    games = wins + wins.t()
    # without a prior a shift of all strengths changes nothing: the ones forbid it
    still = torch.ones_like(wins) if prior <= 0 else torch.zeros_like(wins)

    def likelihood(s: Tensor) -> Tensor:
        return (wins * F.logsigmoid(s[:, None] - s)).sum() + drawn_to_zero(s, prior)

    def slopes(s: Tensor) -> tuple[Tensor, Tensor]:
        expected, alone = torch.sigmoid(s[:, None] - s), torch.sigmoid(s)
        gradient = (wins - games * expected).sum(1) + prior * (0.5 - alone)
        spread = games * expected * (1 - expected)
        return gradient, torch.diag(spread.sum(1) + prior * alone * (1 - alone)) - spread + still

    s = climb(torch.zeros(len(players), dtype=torch.float64), likelihood, slopes, float(games.sum()))
    return s - s.mean()


def drawn_to_zero(s: Tensor, prior: float) -> Tensor:
    """Log-likelihood of `prior` ties of each strength with 0."""
    return prior * (F.logsigmoid(s) + F.logsigmoid(-s)).sum() / 2


def climb(
    s: Tensor,
    likelihood: Callable[[Tensor], Tensor],
    slopes: Callable[[Tensor], tuple[Tensor, Tensor]],
    scale: float,
) -> Tensor:
    """Where a concave likelihood is greatest, from s on, by Newton's method with halved steps.

    slopes: gradient and negative Hessian. scale: the number of battles; a gradient of 1e-10 of it is none.
    """
    for _ in range(200):
        gradient, curvature = slopes(s)
        if gradient.abs().max() < 1e-10 * max(1.0, scale):
            break
        step = torch.linalg.solve(curvature, gradient)
        before = likelihood(s)
        while likelihood(s + step) < before - 1e-12 * before.abs():
            step = step / 2
        s = s + step
    return s


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
