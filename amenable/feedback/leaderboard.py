"""Who is best by what was said of them: ratings with intervals, battles, and the matrix of win rates, as plain values.

Bradley-Terry is the rating that counts: it depends on no order. Elo is told beside it, since everybody knows it. Both
know only who won; `length_controlled` asks who would have won, had both written as much (see ratings.py).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from amenable.errors import InputError
from amenable.feedback.ratings import (
    Battle,
    Rating,
    elo,
    players_of,
    rate,
    rate_length_controlled,
)
from amenable.feedback.votes import Bout

Order = Literal["time", "reversed", "shuffled"]
SHUFFLES = 100
"""orders over which Elo is averaged"""


@dataclass(frozen=True)
class Terms:
    """How ratings are made."""

    length_controlled: bool = False
    """tell what is owed to length from the rest"""
    k: float = 4.0
    """Elo points at stake in a battle"""
    order: Order = "time"
    """of Elo's battles: as they were kept, the last first, or the mean over 100 orders"""
    anchor: str | None = None
    """the model that is put at `level`; without it their mean is"""
    level: float = 1000.0
    prior: float = 1.0
    """as if each model had also tied so many battles with an average one: ratings stay finite where one always wins"""
    seed: int = 0
    """of the orders over which Elo is averaged"""

    def __post_init__(self) -> None:
        for name, least, most in (("k", 1e-6, 1e4), ("prior", 1e-6, 1e6)):
            if not least <= getattr(self, name) <= most:
                raise InputError(f"{name} is {getattr(self, name)}", how=f"it must lie between {least} and {most}")


def leaderboard(bouts: Sequence[Bout], terms: Terms) -> dict[str, Any]:
    """Everything that is told of the models, best first, as JSON.

    battles; unmeasured (left out for want of lengths); players: name, rank, rating, low, high, elo, battles, wins,
    losses, ties, both_bad, score (a tie one half), length (mean characters); win_rates: of the row against the column,
    with count; groups: models that have met, if only through others; length_worth: Elo points of a longer answer;
    several: names under which more than one model fought.
    """
    used = [bout for bout in bouts if bout.lengths is not None] if terms.length_controlled else list(bouts)
    if bouts and not used:
        raise InputError("no comparison says how long the answers were", how="leave --terms.length-controlled out")
    ratings, worth = rated(used, terms)
    players = sorted(ratings, key=lambda name: (-ratings[name].rating, name))
    scores = elo_of([bout.battle for bout in used], terms)
    return {
        "battles": len(used),
        "unmeasured": len(bouts) - len(used),
        "players": [
            {
                **{"name": name, "rank": rank_of(name, ratings), **ratings[name]._asdict(), "elo": scores[name]},
                **record(name, used),
            }
            for name in players
        ],
        "win_rates": win_rates(used, players),
        "groups": groups_of(players, {(bout.a, bout.b) for bout in used}),
        "several": several(used),
        "length_worth": None if worth is None else worth._asdict(),
        "terms": asdict(terms),
    }


def rated(bouts: Sequence[Bout], terms: Terms) -> tuple[dict[str, Rating], Rating | None]:
    """Ratings with intervals, and what length is worth where that is told apart."""
    if not bouts:
        return {}, None
    battles = [bout.battle for bout in bouts]
    options = (terms.prior, terms.anchor, terms.level, [bout.group or i for i, bout in enumerate(bouts)])
    if not terms.length_controlled:
        return rate(battles, *options), None
    gaps = [float(bout.lengths[0] - bout.lengths[1]) for bout in bouts if bout.lengths is not None]
    return rate_length_controlled(battles, gaps, *options)


def elo_of(battles: Sequence[Battle], terms: Terms) -> dict[str, float]:
    """Elo ratings in the order that the terms name."""
    if terms.order != "shuffled":
        return elo(battles if terms.order == "time" else battles[::-1], terms.k, terms.level)
    draw, total = random.Random(terms.seed), dict.fromkeys(players_of(battles), 0.0)
    for _ in range(SHUFFLES):
        for name, rating in elo(draw.sample(battles, len(battles)), terms.k, terms.level).items():
            total[name] += rating / SHUFFLES
    return total


def rank_of(name: str, ratings: dict[str, Rating]) -> int:
    """One more than how many are surely better: their interval lies above this one's."""
    return 1 + sum(other.low > ratings[name].high for other in ratings.values())


def record(name: str, bouts: Sequence[Bout]) -> dict[str, Any]:
    """A model's battles, wins, losses and ties, and how much it writes."""
    own = [bout for bout in bouts if name in (bout.a, bout.b)]
    got = [bout.score if bout.a == name else 1 - bout.score for bout in own]
    lengths = [bout.lengths[bout.b == name] for bout in own if bout.lengths is not None]
    return {
        "battles": len(own),
        "wins": sum(score > 0.5 for score in got),
        "losses": sum(score < 0.5 for score in got),
        "ties": sum(score == 0.5 for score in got),
        "both_bad": sum(bout.both_bad for bout in own),
        "score": sum(got) / len(got),
        "length": sum(lengths) / len(lengths) if lengths else None,
    }


def win_rates(bouts: Sequence[Bout], players: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """{row: {column: {score, count}}}: what the row got against the column on average, where they have met."""
    table: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in players}
    for bout in bouts:
        for one, other, score in ((bout.a, bout.b, bout.score), (bout.b, bout.a, 1 - bout.score)):
            cell = table[one].setdefault(other, {"score": 0.0, "count": 0})
            cell["score"] = (cell["score"] * cell["count"] + score) / (cell["count"] + 1)
            cell["count"] += 1
    return table


def groups_of(names: Sequence[str], met: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Names in groups of which each has met the others, if only through others: ratings compare within one."""
    group = {name: name for name in names}
    for a, b in met:
        old, new = group[a], group[b]
        group = {name: new if theirs == old else theirs for name, theirs in group.items()}
    return [[name for name in names if group[name] == one] for one in dict.fromkeys(group.values())]


def several(bouts: Sequence[Bout]) -> list[str]:
    """Names under which more than one model fought, by the hashes of the models."""
    hashes: dict[str, set[str]] = {}
    for bout in bouts:
        for name, found in zip((bout.a, bout.b), bout.hashes or ()):
            hashes.setdefault(name, set()).add(found)
    return sorted(name for name, found in hashes.items() if len(found) > 1)
