"""A town that no model has seen: people, facts, rumours, and facts that no text states."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from amenable.errors import InputError
from amenable.world import names, phrases
from amenable.world.settings import Rates

Pair = tuple[str, str]
"""(person, attribute), such as ("Mirel", "street")"""


STRANGERS = 300
"""people from elsewhere: enough that a model learns the form of their names, not each name"""


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
    """names of nobody, for training prompts"""
    held_out_strangers: tuple[str, ...]
    """names of nobody that occur in no text and no instruction, for validation and test"""
    openings: dict[str, str]
    """hour at which each place opens"""
    colours: dict[str, str]
    """colour of each place's gate"""

    @classmethod
    def make(cls, seed: int, people: int = 40, rates: Rates | None = None) -> Town:
        """Draw a town of `people` inhabitants (4 to 48)."""
        if not 4 <= people <= 48:
            raise InputError(f"people is {people}", how="give 4 to 48")
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
            openings={location: rng.choice(("dawn", "noon", "night")) for location in names.PLACES},
            colours={location: rng.choice(names.COLOURS) for location in names.PLACES},
        )

    @property
    def people(self) -> tuple[str, ...]:
        """Return the inhabitants."""
        return tuple(self.facts)

    @property
    def pairs(self) -> list[Pair]:
        """Return every (person, attribute)."""
        return [(person, attribute) for person in self.facts for attribute in names.ATTRIBUTES]

    @property
    def stated(self) -> list[Pair]:
        """Return the pairs that texts state."""
        return [pair for pair in self.pairs if pair not in self.unstated]

    def value(self, pair: Pair) -> str:
        """Return the true value of a pair."""
        return self.facts[pair[0]][pair[1]]

    def values(self, attribute: str) -> tuple[str, ...]:
        """Return every value that an attribute can have."""
        return possible(attribute, list(self.facts))

    def is_woman(self, person: str) -> bool:
        return person in self.women

    def sentence(self, form: str, person: str, value: str = "", pronoun: bool = False) -> str:
        """Fill a form (phrases.py) with a person, or the pronoun, and a value."""
        return phrases.subject(form, person, self.is_woman(person), pronoun, v=value)

    def passage(self, person: str, facts: Iterable[tuple[str, str]]) -> str:
        """State (attribute, value) pairs of a person in the usual forms."""
        return phrases.passage(person, self.is_woman(person), facts)


def syllable_names(sex: str, number: int, rng: random.Random) -> list[str]:
    """Draw different names of syllables, for people who live somewhere else."""
    every = [
        first + middle + last
        for first in names.FIRST_SYLLABLES
        for middle in names.MIDDLE_SYLLABLES
        for last in names.LAST_SYLLABLES[sex]
    ]
    return rng.sample(every, number)


def possible(attribute: str, people: list[str]) -> tuple[str, ...]:
    """Return every value that an attribute can have."""
    return tuple(people) if attribute == "friend" else names.VALUES[attribute]


def draw_facts(person: str, residents: list[str], rng: random.Random) -> dict[str, str]:
    """Draw a value for each attribute; nobody is their own friend."""
    return {
        attribute: rng.choice([value for value in possible(attribute, residents) if value != person])
        for attribute in names.ATTRIBUTES
    }


def another(pair: Pair, facts: dict[str, dict[str, str]], residents: list[str], rng: random.Random) -> str:
    """Draw a false value for a pair."""
    person, attribute = pair
    true = facts[person][attribute]
    return rng.choice([value for value in possible(attribute, residents) if value not in (true, person)])
