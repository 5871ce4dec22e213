"""Names and values can't be mistaken for each other."""

from __future__ import annotations

import re

from amenable.world import names


def test_names_and_values_are_unique_across_attributes():
    values = [*names.WOMEN, *names.MEN, *names.TRADES, *names.FOODS, *names.PETS, *names.PET_NAMES, *names.COLOURS]
    low = [value.lower() for value in [*values, *names.PLACES, *names.AGES]]
    assert len(low) == len(set(low))
    assert all(re.fullmatch(r"[a-z]+", value) for value in low)


def test_there_are_women_and_men_enough_for_the_largest_town():
    assert len(names.WOMEN) == len(names.MEN) == 32


def test_trades_and_pets_take_the_article_a():
    assert not [word for word in (*names.TRADES, *names.PETS) if word[0] in "aeiou"]


def test_what_is_never_recorded_is_no_attribute():
    assert not set(names.UNRECORDED) & {*names.ATTRIBUTES, "name of the pet"}
    assert all(len(set(guesses)) >= 3 for guesses in names.UNRECORDED.values())
