"""What to ask people next: which prompts with their answers, or which two models, while labels are few.

    random          what comes; the rule that the others have to beat
    disagreement    where the reward models of an ensemble differ most about which answer is better
    tie             where their mean prediction is closest to a tie
    diverse         prompts that are far from each other and from what was asked before
    spread          of what they disagree about most, prompts that are far from each other

    p_m(i over j) = sigma(r_m(i) - r_m(j))        model m of the ensemble, answers i and j of an item

Rules choose places of a pool, the first to be asked first; labels they do not see. benchmarks/queries.py measures what
they save. For ratings of models `next_battles` chooses who should fight.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from amenable.feedback.ratings import Battle, strengths, win_table

Rule = Literal["random", "disagreement", "tie", "diverse", "spread"]
RULES: tuple[Rule, ...] = get_args(Rule)
SCORED: tuple[Rule, ...] = ("disagreement", "tie", "spread")
"""rules that need scores"""
WIDER = 4
"""`spread` chooses among so many times the budget"""


@dataclass(frozen=True)
class Pool:
    """N items that could be asked, each a prompt with up to K answers. What a rule does not need may be absent."""

    size: int
    scores: Tensor | None = None
    """[M, N, K] of M reward models; nan where an item has fewer answers"""
    embeddings: Tensor | None = None
    """[N, D]: near where prompts are alike"""
    keys: Sequence[Hashable] | None = None
    """N names: items of one name have the same prompt, which is asked again only when all others were asked as often"""


def choose(rule: Rule, pool: Pool, budget: int, generator: torch.Generator, asked: Sequence[int] = ()) -> list[int]:
    """Places of the pool to ask about, `budget` of them or all that are left; never one of those asked before."""
    taken = set(asked)
    left = [place for place in torch.randperm(pool.size, generator=generator).tolist() if place not in taken]
    if rule == "random":
        return in_turn(left, pool.keys, asked)[:budget]
    if rule == "diverse":
        return farthest_first(required(pool.embeddings, rule, "embeddings"), budget, left, asked)
    scores = required(pool.scores, rule, "scores")
    values = closeness(scores) if rule == "tie" else disagreement(scores)
    ordered = in_turn(largest(values, left), pool.keys, asked)
    if rule != "spread":
        return ordered[:budget]
    return farthest_first(required(pool.embeddings, rule, "embeddings"), budget, ordered[: WIDER * budget], asked)


def required(values: Tensor | None, rule: Rule, what: str) -> Tensor:
    if values is None:
        raise ValueError(f"the rule '{rule}' needs {what}")
    return values


def preferences(scores: Tensor) -> Tensor:
    """p_m(i over j) of all pairs i < j of an item's answers: scores [M, N, K] -> [M, N, K (K - 1) / 2].

    nan where one of the two is absent.
    """
    first, second = torch.triu_indices(scores.shape[-1], scores.shape[-1], 1)
    return torch.sigmoid(scores[..., first] - scores[..., second])


def disagreement(scores: Tensor) -> Tensor:
    """How much the models differ about each item [N]: the variance of p over the models, averaged over the pairs.

    With pairs, the rule of Christiano et al. (2017, section 2.2.4), who found it worse than chance in some tasks.
    scores [M, N, K]; M at least 2.
    """
    if scores.shape[0] < 2:
        raise ValueError("one model cannot disagree with itself: an ensemble has two or more")
    p = preferences(scores.double())
    return over_pairs((p - p.mean(dim=0)).square().mean(dim=0))


def closeness(scores: Tensor) -> Tensor:
    """How close to a tie each item is predicted to be [N]: the mean over its pairs of min(p, 1 - p), p the mean over
    the models. It is the share of pairs whose order the ensemble would get wrong if its own predictions were true.

    Uncertainty sampling (Lewis and Gale, 1994). scores [M, N, K]; one model is enough. Real ties are close, too.
    """
    p = preferences(scores.double()).mean(dim=0)
    return over_pairs(torch.minimum(p, 1 - p))


def over_pairs(values: Tensor) -> Tensor:
    """Mean over the pairs that are there, [N, pairs] -> [N]; 0 for an item without any."""
    return values.nanmean(dim=-1).nan_to_num(0.0)


def largest(values: Tensor, order: Sequence[int]) -> list[int]:
    """Places by their value in values [N], the greatest first; equal ones stay in the order given."""
    known = values.tolist()
    return sorted(order, key=lambda place: -known[place])


def in_turn(order: Sequence[int], keys: Sequence[Hashable] | None, asked: Sequence[int] = ()) -> list[int]:
    """An order of places in which no prompt comes again before every other one there came as often, what was asked
    before included; apart from that as given. keys: the prompt of each place of the pool, or None for no change.
    """
    if keys is None:
        return list(order)
    times: dict[Hashable, int] = {}
    for place in asked:
        times[keys[place]] = times.get(keys[place], 0) + 1
    turns = []
    for place in order:
        turns.append(times.get(keys[place], 0))
        times[keys[place]] = turns[-1] + 1
    return [place for _, place in sorted(zip(turns, order), key=lambda pair: pair[0])]


def farthest_first(embeddings: Tensor, budget: int, order: Sequence[int], asked: Sequence[int] = ()) -> list[int]:
    """Places of `order` each of which is as far as possible from those before it and those asked; the first of `order`
    where nothing was asked.

    The greedy cover of Gonzalez (1985), as a rule for labelling the core-set of Sener and Savarese (2018). embeddings
    [N, D]. Equally far ones are taken in the order given.
    """
    points = embeddings[list(order)].double()
    away = torch.full((len(points),), math.inf, dtype=torch.float64)
    for before in embeddings[list(asked)].double().split(256) if asked else ():
        away = torch.minimum(away, squared_distances(points, before).amin(dim=1))
    chosen: list[int] = []
    for _ in range(min(budget, len(points))):
        best = int(away.argmax())
        chosen.append(order[best])
        away = torch.minimum(away, squared_distances(points, points[best : best + 1])[:, 0])
        away[best] = -1.0  # nearer than anything: never again
    return chosen


def squared_distances(points: Tensor, others: Tensor) -> Tensor:
    """[N, D] and [M, D] -> [N, M]; 0 where they are equal but for rounding."""
    squares, theirs = points.square().sum(dim=1)[:, None], others.square().sum(dim=1)
    found = squares + theirs - 2 * points @ others.t()
    return found.where(found > 1e-12 * (squares + theirs), 0.0)


def word_vectors(texts: Sequence[str], width: int = 512) -> Tensor:
    """What texts are about, for `diverse` where no model is at hand: their words, counted in `width` places by a hash
    (Weinberger et al., 2009), rare words weighing more. Rows [N, width] of length 1; zeros for a text without words.
    """
    counts = torch.zeros(len(texts), width, dtype=torch.float64)
    for row, text in zip(counts, texts):
        for word in text.lower().split():
            row[zlib.crc32(word.encode("utf-8", "surrogatepass")) % width] += 1
    seen = (counts > 0).sum(dim=0)
    return torch.nn.functional.normalize(counts * torch.log((1 + len(texts)) / (1 + seen)), dim=1)


def next_battles(
    battles: Sequence[Battle],
    players: Sequence[str],
    budget: int,
    generator: torch.Generator,
    prior: float = 1.0,
) -> list[tuple[str, str]]:
    """Who should fight next so that ratings become sure: `budget` pairs, after the battles there were.

    First groups that never met are joined, until everybody has met everybody, if only through others. Then each pair
    is the one whose difference s_a - s_b has the widest interval (Chiang et al., 2024, section 5, ask by how much an
    interval would shrink). A chosen pair counts as fought, with what is expected of it. Chance decides between equals.

    prior: as in `bradley_terry`, above 0; a strong one keeps few battles from looking decisive. A battle whose end is
    certain tells less than a wide interval promises: among players a thousand points apart, chance may do better.
    """
    if prior <= 0:
        raise ValueError("ratings of few battles need a prior above 0")
    if len(set(players)) < 2:
        raise ValueError("nobody to fight: two players or more")
    wins = win_table(battles, players)
    games = wins + wins.t()
    s = strengths(wins, players, prior)
    chosen = []
    for _ in range(budget):
        a, b = bridge(games, generator) or widest(variances(s, games, prior), generator)
        games[a, b] += 1
        games[b, a] += 1
        chosen.append((players[a], players[b]))
    return chosen


def bridge(games: Tensor, generator: torch.Generator) -> tuple[int, int] | None:
    """Two players of groups that never met, the smallest group first; None where everybody is joined. games [P, P]."""
    groups = groups_of(games)
    if len(groups) == 1:
        return None
    shuffled = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
    one, other = sorted(shuffled, key=len)[:2]
    return drawn(one, generator), drawn(other, generator)


def drawn(players: Sequence[int], generator: torch.Generator) -> int:
    return players[int(torch.randint(len(players), (), generator=generator))]


def groups_of(games: Tensor) -> list[list[int]]:
    """Players who met, if only through others, one list a group. games [P, P], above 0 where two met."""
    reached = ((games > 0) | torch.eye(len(games), dtype=torch.bool)).double()
    for _ in range(len(games).bit_length()):
        reached = (reached @ reached > 0).double()  # twice as many steps each time
    return [row.nonzero().flatten().tolist() for row in reached.unique(dim=0)]


def widest(spread: Tensor, generator: torch.Generator) -> tuple[int, int]:
    """The pair of the greatest variance in spread [P, P]."""
    first, second = torch.triu_indices(len(spread), len(spread), 1)
    values = spread[first, second]
    pair = drawn((values >= values.max() - 1e-9).nonzero().flatten().tolist(), generator)
    return int(first[pair]), int(second[pair])


def variances(s: Tensor, games: Tensor, prior: float) -> Tensor:
    """Variance of every difference s_a - s_b [P, P], in nats squared: of the inverse of the negative Hessian of the
    likelihood that `ratings.bradley_terry` climbs. s [P], games [P, P].
    """
    expected, alone = torch.sigmoid(s[:, None] - s), torch.sigmoid(s)
    spread = games * expected * (1 - expected)
    covariance = torch.linalg.inv(torch.diag(spread.sum(1) + prior * alone * (1 - alone)) - spread)
    own = covariance.diagonal()
    return own[:, None] + own - 2 * covariance
