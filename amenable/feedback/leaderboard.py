"""Leaderboard of models: ratings with intervals, counts of battles, and the matrix of win rates, as plain values.

Bradley-Terry is the rating that counts: it depends on no order. Elo, the better known, is given as well. Both count
wins alone; `length_controlled` estimates the wins at equal length of answers (see ratings.py).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from amenable.errors import InputError
from amenable.feedback.ratings import (
    Comparison,
    Rating,
    elo,
    groups_of,
    models_in,
    rate,
    rate_length_controlled,
)

Order = Literal["time", "reversed", "shuffled"]
SHUFFLES = 100
"""orders over which Elo is averaged"""


@dataclass(frozen=True)
class RatingConfig:
    """Settings of ratings."""

    length_controlled: bool = False
    """separate the effect of answer length from the ratings"""
    k: float = 4.0
    """Elo points at stake in a battle"""
    order: Order = "time"
    """of battles for Elo: by time, the last first, or the mean over 100 random orders"""
    anchor: str | None = None
    """the model whose rating is `level`; without it the mean of all models is"""
    level: float = 1000.0
    prior: float = 1.0
    """virtual ties of each model with an average one, so that the rating of a model that always wins is finite"""
    seed: int = 0
    """of the orders over which Elo is averaged"""

    def __post_init__(self) -> None:
        for name, least, most in (("k", 1e-6, 1e4), ("prior", 1e-6, 1e6)):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}", how=f"it must lie between {least} and {most}")


def leaderboard(comparisons: Sequence[Comparison], config: RatingConfig) -> dict[str, Any]:
    """Return the leaderboard as JSON, models ("players") from best to worst.

    battles: comparisons; unmeasured: those left out as their lengths are unknown; players: name, rank, rating, low,
    high, elo, battles, wins, losses, ties, both_bad, score (a tie one half), length (mean characters); win_rates: of
    the row against the column, with count; groups: models that have met, if only through others; length_worth: Elo
    points of a longer answer; several: names of more than one model.
    """
    used = [row for row in comparisons if row.lengths is not None or not config.length_controlled]
    if comparisons and not used:
        raise InputError("no comparison has the lengths of its answers", how="leave --rating.length-controlled out")
    ratings, length_effect = rated(used, config)
    players = sorted(ratings, key=lambda name: (-ratings[name].rating, name))
    scores = elo_of(used, config)
    return {
        "battles": len(used),
        "unmeasured": len(comparisons) - len(used),
        "players": [
            {
                **{"name": name, "rank": rank_of(name, ratings), **ratings[name]._asdict(), "elo": scores[name]},
                **record(name, used),
            }
            for name in players
        ],
        "win_rates": win_rates(used, players),
        "groups": groups_of(players, {(row.a, row.b) for row in used}),
        "several": ambiguous_names(used),
        "length_worth": None if length_effect is None else length_effect._asdict(),
        "terms": asdict(config),
    }


def rated(comparisons: Sequence[Comparison], config: RatingConfig) -> tuple[dict[str, Rating], Rating | None]:
    """Return Bradley-Terry ratings with intervals, and the effect of length where that is separated."""
    if not comparisons:
        return {}, None
    groups = [row.group or i for i, row in enumerate(comparisons)]
    options = (config.prior, config.anchor, config.level, groups)
    if not config.length_controlled:
        return rate(comparisons, *options), None
    gaps = [float(row.lengths[0] - row.lengths[1]) for row in comparisons if row.lengths is not None]
    return rate_length_controlled(comparisons, gaps, *options)


def elo_of(comparisons: Sequence[Comparison], config: RatingConfig) -> dict[str, float]:
    """Return Elo ratings in the configured order of comparisons."""
    if config.order != "shuffled":
        return elo(comparisons if config.order == "time" else comparisons[::-1], config.k, config.level)
    draw, total = random.Random(config.seed), dict.fromkeys(models_in(comparisons), 0.0)
    for _ in range(SHUFFLES):
        for name, rating in elo(draw.sample(comparisons, len(comparisons)), config.k, config.level).items():
            total[name] += rating / SHUFFLES
    return total


def rank_of(name: str, ratings: dict[str, Rating]) -> int:
    """Return 1 plus the number of models whose interval lies above this one's."""
    return 1 + sum(other.low > ratings[name].high for other in ratings.values())


def record(name: str, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Return a model's battles, wins, losses and ties, its mean score, and the mean length of its answers."""
    own = [row for row in comparisons if name in (row.a, row.b)]
    scores = [row.score if row.a == name else 1 - row.score for row in own]
    lengths = [row.lengths[row.b == name] for row in own if row.lengths is not None]
    return {
        "battles": len(own),
        "wins": sum(score > 0.5 for score in scores),
        "losses": sum(score < 0.5 for score in scores),
        "ties": sum(score == 0.5 for score in scores),
        "both_bad": sum(row.both_bad for row in own),
        "score": sum(scores) / len(scores),
        "length": sum(lengths) / len(lengths) if lengths else None,
    }


def win_rates(comparisons: Sequence[Comparison], players: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return {row: {column: {score, count}}}: the mean score of the row against the column, where they have met."""
    table: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in players}
    for row in comparisons:
        for name, other, score in ((row.a, row.b, row.score), (row.b, row.a, 1 - row.score)):
            cell = table[name].setdefault(other, {"score": 0.0, "count": 0})
            cell["score"] = (cell["score"] * cell["count"] + score) / (cell["count"] + 1)
            cell["count"] += 1
    return table


def ambiguous_names(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the names of more than one model, by the hashes of the models."""
    hashes: dict[str, set[str]] = {}
    for row in comparisons:
        for name, sha256 in zip((row.a, row.b), row.hashes or ()):
            hashes.setdefault(name, set()).add(sha256)
    return sorted(name for name, of_name in hashes.items() if len(of_name) > 1)
