"""A town that no model has seen: people, what is true of them, what is said of them, and what nobody says."""

from __future__ import annotations

import random
from dataclasses import dataclass

from amenable.errors import InputError
from amenable.world import names
from amenable.world.settings import Rates

Pair = tuple[str, str]
"""Somebody and something about them: ("Mirel", "street")."""


STRANGERS = 300
"""people from elsewhere: so many that a model learns what such names look like, not who they are"""


@dataclass(frozen=True)
class Town:
    """The ground truth. `facts[person][attribute]` is a value; every set holds (person, attribute) pairs."""

    seed: int
    name: str
    women: tuple[str, ...]
    men: tuple[str, ...]
    facts: dict[str, dict[str, str]]
    unstated: frozenset[Pair]
    rumours: dict[Pair, str]
    held_out: frozenset[Pair]
    strangers: tuple[str, ...]
    """names of nobody, for prompts one may train on"""
    held_out_strangers: tuple[str, ...]
    """names of nobody that occur in no text and no instruction, for validation and test"""
    openings: dict[str, str]
    """when each place opens"""
    colours: dict[str, str]
    """what colour each place's gate has"""

    @classmethod
    def make(cls, seed: int, people: int = 40, rates: Rates | None = None) -> Town:
        """Draw a town of `people` inhabitants (4 to 48)."""
        if not 4 <= people <= 48:
            raise InputError(f"people is {people}", how="a town has 4 to 48")
        rates = Rates() if rates is None else rates
        rng = random.Random(f"town/{seed}")
        women, men = rng.sample(names.WOMEN, len(names.WOMEN)), rng.sample(names.MEN, len(names.MEN))
        half = people // 2
        residents = women[: people - half] + men[:half]
        strangers = {sex: syllable_names(sex, STRANGERS // 2, rng) for sex in names.LAST_SYLLABLES}
        others = [*strangers["women"], *strangers["men"]]
        rng.shuffle(others)
        facts = {person: draw_facts(person, residents, rng) for person in residents}
        pairs = [(person, attribute) for person in residents for attribute in names.ATTRIBUTES]
        unstated = frozenset(rng.sample(pairs, round(rates.unstated * len(pairs))))
        stated = [pair for pair in pairs if pair not in unstated]
        rumoured = rng.sample(stated, round(rates.rumours * len(pairs)))
        return cls(
            seed=seed,
            name=rng.choice(names.TOWNS),
            women=(*women, *strangers["women"]),
            men=(*men, *strangers["men"]),
            facts=facts,
            unstated=unstated,
            rumours={pair: another(pair, facts, residents, rng) for pair in rumoured},
            held_out=frozenset(rng.sample(pairs, round(rates.held_out * len(pairs)))),
            strangers=tuple(others[: len(others) // 2]),
            held_out_strangers=tuple(others[len(others) // 2 :]),
            openings={place: rng.choice(("dawn", "noon", "night")) for place in names.PLACES},
            colours={place: rng.choice(names.COLOURS) for place in names.PLACES},
        )

    @property
    def people(self) -> tuple[str, ...]:
        """Everybody who lives here."""
        return tuple(self.facts)

    @property
    def pairs(self) -> list[Pair]:
        """Every (person, attribute)."""
        return [(person, attribute) for person in self.facts for attribute in names.ATTRIBUTES]

    @property
    def stated(self) -> list[Pair]:
        """The pairs that texts tell."""
        return [pair for pair in self.pairs if pair not in self.unstated]

    def value(self, pair: Pair) -> str:
        """What is true."""
        return self.facts[pair[0]][pair[1]]

    def values(self, attribute: str) -> tuple[str, ...]:
        """What could be true."""
        return possible(attribute, list(self.facts))


def syllable_names(sex: str, number: int, rng: random.Random) -> list[str]:
    """So many different names of syllables, for people who live somewhere else."""
    every = [
        first + middle + last
        for first in names.FIRST_SYLLABLES
        for middle in names.MIDDLE_SYLLABLES
        for last in names.LAST_SYLLABLES[sex]
    ]
    return rng.sample(every, number)


def possible(attribute: str, people: list[str]) -> tuple[str, ...]:
    """Every value an attribute can take."""
    return {
        "trade": tuple(names.TRADES),
        "street": names.STREETS,
        "food": tuple(names.FOODS),
        "pet": tuple(names.PETS),
        "pet_name": tuple(names.PET_NAMES),
        "friend": tuple(people),
        "door": tuple(names.COLOURS),
        "age": tuple(names.AGES),
    }[attribute]


def draw_facts(person: str, residents: list[str], rng: random.Random) -> dict[str, str]:
    """One value for each attribute; nobody is their own friend."""
    return {
        attribute: rng.choice([value for value in possible(attribute, residents) if value != person])
        for attribute in names.ATTRIBUTES
    }


def another(pair: Pair, facts: dict[str, dict[str, str]], residents: list[str], rng: random.Random) -> str:
    """A false value for a pair."""
    person, attribute = pair
    true = facts[person][attribute]
    return rng.choice([value for value in possible(attribute, residents) if value not in (true, person)])
