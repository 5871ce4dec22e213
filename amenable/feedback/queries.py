"""Active learning: the prompts with answers, or the pair of models, to label next.

    random                  the pool in random order: the baseline
    disagreement            where the reward models of an ensemble differ most about which answer is better
    information_gain        where the answer is expected to tell most about which of them is right
    uncertainty             where their mean prediction is closest to a tie
    coreset                 prompts that are far from each other and from those labelled before
    disagreement_coreset    of what they disagree about most, prompts that are far from each other

    p_m(i over j) = sigma(r_m(i) - r_m(j))        model m of the ensemble, answers i and j of an item

Rules choose indices of a pool, the first to be labelled first; they see no labels. benchmarks/queries.py measures how
many labels they save. For ratings of models `next_battles` chooses the pairs to compare.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from amenable.feedback.ratings import Comparison, groups_of, strengths, win_table

Rule = Literal["random", "disagreement", "information_gain", "uncertainty", "coreset", "disagreement_coreset"]
RULES: tuple[Rule, ...] = get_args(Rule)
SCORED: tuple[Rule, ...] = ("disagreement", "information_gain", "uncertainty", "disagreement_coreset")
"""rules that need scores"""
CANDIDATE_FACTOR = 4
"""`disagreement_coreset` chooses among so many times the budget"""


@dataclass(frozen=True)
class Pool:
    """N items to label, each a prompt with up to K answers. Fields that the rule does not use may be None."""

    size: int
    scores: Tensor | None = None
    """[M, N, K] of M reward models; nan where an item has fewer answers"""
    embeddings: Tensor | None = None
    """[N, D], of the prompts"""
    keys: Sequence[Hashable] | None = None
    """prompts of the N items, by name: one is chosen again only after all others were chosen as often"""


def choose(rule: Rule, pool: Pool, budget: int, generator: torch.Generator, labelled: Sequence[int] = ()) -> list[int]:
    """Return the indices in the pool to label next, at most `budget`; never those labelled before."""
    done = set(labelled)
    left = [index for index in torch.randperm(pool.size, generator=generator).tolist() if index not in done]
    if rule == "random":
        return round_robin(left, pool.keys, labelled)[:budget]
    if rule == "coreset":
        return farthest_first(required(pool.embeddings, rule, "embeddings"), budget, left, labelled)
    scores = required(pool.scores, rule, "scores")
    value = {"uncertainty": uncertainty, "information_gain": information_gain}.get(rule, disagreement)
    values = value(scores)
    ordered = round_robin(largest(values, left), pool.keys, labelled)
    if rule != "disagreement_coreset":
        return ordered[:budget]
    candidates = ordered[: CANDIDATE_FACTOR * budget]
    return farthest_first(required(pool.embeddings, rule, "embeddings"), budget, candidates, labelled)


def required(values: Tensor | None, rule: Rule, name: str) -> Tensor:
    """Return the values, which the rule needs. Raises ValueError for None."""
    if values is None:
        raise ValueError(f"the rule '{rule}' needs {name}")
    return values


def preferences(scores: Tensor) -> Tensor:
    """Return p_m(i over j) of all pairs i < j of an item's answers: scores [M, N, K] -> [M, N, K (K - 1) / 2].

    nan where one of the two is absent.
    """
    first, second = torch.triu_indices(scores.shape[-1], scores.shape[-1], 1)
    return torch.sigmoid(scores[..., first] - scores[..., second])


def disagreement(scores: Tensor) -> Tensor:
    """Return the disagreement about each item [N]: the variance of p over the models, averaged over the pairs.

    With pairs, the rule of Christiano et al. (2017, section 2.2.4), who found it worse than chance in some tasks.
    scores [M, N, K]; M at least 2.
    """
    p = members_preferences(scores)
    return over_pairs((p - p.mean(dim=0)).square().mean(dim=0))


def information_gain(scores: Tensor) -> Tensor:
    """Return the information [N], in nats, that an answer is expected to give about which model is right, averaged over
    the pairs: the entropy of the mean prediction less the mean entropy of the predictions.

        I = H(mean_m p_m) - mean_m H(p_m)       H(p) = -p log p - (1 - p) log(1 - p)

    BALD (Houlsby et al., 2011), with the ensemble as the sample of the posterior; an item that each model holds for a
    coin's toss gives nothing. scores [M, N, K]; M at least 2.
    """
    p = members_preferences(scores)
    return over_pairs(bernoulli_entropy(p.mean(dim=0)) - bernoulli_entropy(p).mean(dim=0))


def bernoulli_entropy(p: Tensor) -> Tensor:
    """Return the entropy, in nats, of events of probability p, any shape."""
    return torch.special.entr(p) + torch.special.entr(1 - p)


def members_preferences(scores: Tensor) -> Tensor:
    """Return `preferences` of an ensemble's scores [M, N, K]. Raises ValueError for a single model."""
    if scores.shape[0] < 2:
        raise ValueError("one model cannot disagree with itself: an ensemble has two or more")
    return preferences(scores.double())


def uncertainty(scores: Tensor) -> Tensor:
    """Return the uncertainty about each item [N]: the mean over its pairs of min(p, 1 - p), p the mean over the models.

    It is the share of pairs whose order the ensemble would get wrong if its own predictions were true.

    Uncertainty sampling (Lewis and Gale, 1994). scores [M, N, K]; one model is enough. True ties are uncertain, too.
    """
    p = preferences(scores.double()).mean(dim=0)
    return over_pairs(torch.minimum(p, 1 - p))


def over_pairs(values: Tensor) -> Tensor:
    """Return the mean over the pairs that are not nan, [N, pairs] -> [N]; 0 for an item without any."""
    return values.nanmean(dim=-1).nan_to_num(0.0)


def largest(values: Tensor, order: Sequence[int]) -> list[int]:
    """Return indices sorted by values [N], the greatest first; equal values stay in the order given."""
    by_index = values.tolist()
    return sorted(order, key=lambda index: -by_index[index])


def round_robin(order: Sequence[int], keys: Sequence[Hashable] | None, labelled: Sequence[int] = ()) -> list[int]:
    """Return indices in an order that repeats a prompt only after all others came as often, labelled ones included.

    Indices of one round stay in the order given. keys: the prompt of each index, or None for no change.
    """
    if keys is None:
        return list(order)
    counts = Counter(keys[index] for index in labelled)
    rounds = []
    for index in order:
        rounds.append(counts[keys[index]])
        counts[keys[index]] += 1
    return [index for _, index in sorted(zip(rounds, order), key=lambda pair: pair[0])]


def farthest_first(embeddings: Tensor, budget: int, order: Sequence[int], labelled: Sequence[int] = ()) -> list[int]:
    """Return indices of `order`, each as far as possible from those before it and those labelled.

    The greedy k-center cover of Gonzalez (1985), as the core-set of Sener and Savarese (2018). embeddings [N, D].
    Equally far indices, all of them where nothing was labelled, are taken in the order given.
    """
    points = embeddings[list(order)].double()
    away = torch.full((len(points),), math.inf, dtype=torch.float64)
    for before in embeddings[list(labelled)].double().split(256) if labelled else ():
        away = torch.minimum(away, squared_distances(points, before).amin(dim=1))
    chosen: list[int] = []
    for _ in range(min(budget, len(points))):
        best = int(away.argmax())
        chosen.append(order[best])
        away = torch.minimum(away, squared_distances(points, points[best : best + 1])[:, 0])
        away[best] = -1.0  # nearer than anything: never again
    return chosen


def squared_distances(points: Tensor, others: Tensor) -> Tensor:
    """Return squared distances, [N, D] and [M, D] -> [N, M]; 0 for points that are equal but for rounding."""
    squares, theirs = points.square().sum(dim=1)[:, None], others.square().sum(dim=1)
    distances = squares + theirs - 2 * points @ others.t()
    return distances.where(distances > 1e-12 * (squares + theirs), 0.0)


def word_vectors(texts: Sequence[str], width: int = 512) -> Tensor:
    """Return tf-idf embeddings of texts, for `coreset` without a model: rows [N, width] of length 1 (0 without words).

    Words are hashed to `width` dimensions (Weinberger et al., 2009).
    """
    counts = torch.zeros(len(texts), width, dtype=torch.float64)
    for row, text in zip(counts, texts):
        for word in text.lower().split():
            row[zlib.crc32(word.encode("utf-8", "surrogatepass")) % width] += 1
    documents = (counts > 0).sum(dim=0)
    return torch.nn.functional.normalize(counts * torch.log((1 + len(texts)) / (1 + documents)), dim=1)


def next_battles(
    comparisons: Sequence[Comparison],
    models: Sequence[str],
    budget: int,
    generator: torch.Generator,
    prior: float = 1.0,
) -> list[tuple[str, str]]:
    """Return the `budget` pairs of models to compare next, so that the intervals of their ratings shrink.

    First groups that never met are connected, until all models have met, directly or through others. Then each pair is
    the one whose difference s_a - s_b has the widest interval (Chiang et al., 2024, section 5, take the largest
    expected decrease). A chosen pair counts as compared, with its expected score. Equal pairs are drawn at random.

    prior: as in `bradley_terry`, above 0; a strong one keeps few comparisons from looking decisive. A comparison whose
    outcome is certain tells less than a wide interval promises: among models a thousand points apart, random pairs may
    do better.
    """
    if prior <= 0:
        raise ValueError("ratings of few comparisons need a prior above 0")
    if len(set(models)) < 2:
        raise ValueError("a comparison needs two models or more")
    wins = win_table(comparisons, models)
    games = wins + wins.t()
    s = strengths(wins, models, prior)
    chosen = []
    for _ in range(budget):
        a, b = connect_groups(games, generator) or most_uncertain_pair(variances(s, games, prior), generator)
        games[a, b] += 1
        games[b, a] += 1
        chosen.append((models[a], models[b]))
    return chosen


def connect_groups(games: Tensor, generator: torch.Generator) -> tuple[int, int] | None:
    """Return two models of groups that never met, of the smallest groups; None for one group. games [P, P]."""
    groups = groups_of(range(len(games)), games.nonzero().tolist())
    if len(groups) == 1:
        return None
    shuffled = [groups[i] for i in torch.randperm(len(groups), generator=generator).tolist()]
    first, second = sorted(shuffled, key=len)[:2]
    return drawn(first, generator), drawn(second, generator)


def drawn(indices: Sequence[int], generator: torch.Generator) -> int:
    """Return one of the indices, drawn at random."""
    return indices[int(torch.randint(len(indices), (), generator=generator))]


def most_uncertain_pair(variances: Tensor, generator: torch.Generator) -> tuple[int, int]:
    """Return the pair of the greatest variance in `variances` [P, P]."""
    first, second = torch.triu_indices(len(variances), len(variances), 1)
    values = variances[first, second]
    pair = drawn((values >= values.max() - 1e-9).nonzero().flatten().tolist(), generator)
    return int(first[pair]), int(second[pair])


def variances(s: Tensor, games: Tensor, prior: float) -> Tensor:
    """Return the variance of every difference s_a - s_b [P, P], in nats squared, for s [P] and games [P, P].

    The covariance is the inverse of the negative Hessian of the likelihood that `ratings.bradley_terry` maximizes.
    """
    expected, alone = torch.sigmoid(s[:, None] - s), torch.sigmoid(s)
    spread = games * expected * (1 - expected)
    covariance = torch.linalg.inv(torch.diag(spread.sum(1) + prior * alone * (1 - alone)) - spread)
    own = covariance.diagonal()
    return own[:, None] + own - 2 * covariance
