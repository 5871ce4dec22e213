"""State of the arena: open battles of two hidden models, the votes of the store, and the draw of the next pair."""

from __future__ import annotations

import random
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

from amenable.errors import InputError
from amenable.feedback.leaderboard import RatingConfig, leaderboard
from amenable.feedback.ratings import groups_of
from amenable.feedback.store import Event, Store
from amenable.feedback.votes import Choice, comparisons
from amenable.generation.sampling import Sampling
from amenable.serve.errors import APIError
from amenable.serve.openai.app_state import AppState

Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = ("left", "right")
MAX_OPEN = 20
"""unjudged battles of one person; the oldest are forgotten"""
IDLE_TIMEOUT = 6 * 3600.0
"""seconds after which an unjudged battle is forgotten"""


@dataclass
class Battle:
    """Two models and their turns: {user, left, right, ended: {left, right}, stopped}."""

    id: str
    person: str
    models: dict[Side, str]
    seed: int
    begun: float
    turns: list[dict[str, Any]] = field(default_factory=list)
    busy: bool = False
    """while answers are generated"""


@dataclass
class Arena:
    """The models, the open battles, and the votes of the store. origins: each model's folder and sha256, by name."""

    state: AppState
    store: Store
    origins: Mapping[str, Mapping[str, str]]
    sampling: Sampling
    rating: RatingConfig
    clock: Callable[[], float]
    draw: random.Random = field(default_factory=random.SystemRandom)
    battles: dict[str, Battle] = field(default_factory=dict)
    votes: dict[str, Event] = field(default_factory=dict)
    """by battle"""
    last_event_id: int = 0
    boards: dict[tuple[int, bool], dict[str, Any]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    counting: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, person: str) -> Battle:
        """Begin a battle of two models."""
        with self.lock:
            self.refresh()
            self.forget(person)
            pair = draw_pair(list(self.origins), self.battle_counts(), self.draw)
            self.draw.shuffle(pair)
            models: dict[Side, str] = {"left": pair[0], "right": pair[1]}
            battle = Battle(secrets.token_hex(12), person, models, secrets.randbits(62), self.clock())
            self.battles[battle.id] = battle
            return battle

    def refresh(self) -> None:
        """Read the votes stored since the last call, by any process."""
        for event in self.store.events("vote", after=self.last_event_id):
            self.votes[event.payload["battle"]] = event
            self.last_event_id = event.id

    def forget(self, person: str) -> None:
        """Forget idle battles, and a person's oldest ones beyond MAX_OPEN."""
        old = [battle.id for battle in self.battles.values() if battle.begun < self.clock() - IDLE_TIMEOUT]
        own = [battle.id for battle in self.battles.values() if battle.person == person]
        for identity in {*old, *own[: max(0, len(own) - MAX_OPEN + 1)]}:
            if not self.battles[identity].busy:
                del self.battles[identity]

    def battle_counts(self) -> Counter[tuple[str, str]]:
        """Count battles by pair of models: the judged ones, and the open ones that have a turn."""
        battles = [event.payload["models"] for event in self.votes.values()]
        battles += [battle.models for battle in self.battles.values() if battle.turns and battle.id not in self.votes]
        return Counter(in_order(models["left"], models["right"]) for models in battles)

    def get_battle(self, person: str, identity: str) -> Battle:
        """Return a person's open battle. Raises APIError 404 for an unknown one, and for another person's."""
        battle = self.battles.get(identity)
        if battle is None or battle.person != person:
            raise APIError(404, "this battle is not known here any more; begin another", "battle", "no_battle")
        return battle

    def stored_vote(self, person: str, identity: str) -> Event | None:
        """Return a person's vote on a battle, also from before a restart; None where there is none."""
        with self.lock:
            self.refresh()
            event = self.votes.get(identity)
        return event if event is not None and event.payload["annotator"] == person else None

    def acquire(self, person: str, identity: str) -> Battle:
        """Return a battle and mark it busy, for one request at a time; `release` frees it."""
        with self.lock:
            battle = self.get_battle(person, identity)
            self.refresh()
            if identity in self.votes:
                raise APIError(409, "this battle has been judged; begin another", "battle", "judged")
            if battle.busy:
                raise APIError(409, "the answers are still under way", "battle", "under_way")
            battle.busy = True
            return battle

    def release(self, battle: Battle) -> None:
        with self.lock:
            battle.busy = False

    def vote(self, person: str, identity: str, choice: Choice, seconds: float) -> tuple[Event, bool]:
        """Store a vote. Returns the event on disk, and True where it is new: a battle's first vote stands."""
        with self.lock:
            earlier = self.stored_vote(person, identity)
            if earlier is not None:
                return earlier, False
            battle = self.get_battle(person, identity)
            if battle.busy:
                raise APIError(409, "the answers are still under way", "battle", "under_way")
            if not battle.turns:
                raise APIError(409, "there is nothing to judge yet: ask something first", "battle", "nothing_said")
            payload = self.vote_payload(battle, choice, seconds)
            try:
                _, new = self.store.append_once("vote", payload, self.clock(), f"vote {identity}")
            except InputError:
                raise APIError(503, "the vote could not be written to the disk", code="not_kept") from None
            self.refresh()
            return self.votes[identity], new

    def vote_payload(self, battle: Battle, choice: Choice, seconds: float) -> dict[str, Any]:
        """Return a vote as it is stored."""
        return {
            "annotator": battle.person,
            "battle": battle.id,
            "models": battle.models,
            "origins": {side: dict(self.origins[name]) for side, name in battle.models.items()},
            "vote": choice,
            "turns": battle.turns,
            "sampling": asdict(self.sampling),
            "seed": battle.seed,
            "begun": battle.begun,
            "seconds": seconds,
        }

    def board(self, length_controlled: bool) -> dict[str, Any]:
        """Return the leaderboard, computed once for each number of votes."""
        with self.lock:
            self.refresh()
            key = (self.last_event_id, length_controlled)
        with self.counting:
            if key not in self.boards:
                rating = replace(self.rating, length_controlled=length_controlled)
                self.boards = {known: board for known, board in self.boards.items() if known[0] == key[0]}
                self.boards[key] = leaderboard(comparisons(self.store, ("arena",)), rating)
            return self.boards[key]


def in_order(a: str, b: str) -> tuple[str, str]:
    """Return a pair of names in alphabetical order."""
    return (a, b) if a < b else (b, a)


def draw_pair(names: Sequence[str], battle_counts: Mapping[tuple[str, str], int], draw: random.Random) -> list[str]:
    """Draw two models: first a pair that connects two groups of models, then one with the fewest battles."""
    pairs = [in_order(a, b) for a, b in combinations(names, 2)]
    met = [pair for pair in pairs if battle_counts.get(pair, 0)]
    group = {name: number for number, group in enumerate(groups_of(names, met)) for name in group}
    battles = Counter(name for pair in met for name in pair for _ in range(battle_counts[pair]))
    rank = {(a, b): (group[a] == group[b], battle_counts.get((a, b), 0), battles[a] + battles[b]) for a, b in pairs}
    least = min(rank.values())
    return list(draw.choice([pair for pair in pairs if rank[pair] == least]))
