"""The town's sets have the stated sizes, and are drawn from the seed alone."""

from __future__ import annotations

import random

import pytest

from amenable.errors import InputError
from amenable.world import names
from amenable.world.town import STRANGERS, Town, syllable_names


def test_the_same_seed_draws_the_same_town_and_another_seed_another():
    assert Town.make(5) == Town.make(5)
    assert Town.make(5).facts != Town.make(6).facts


def test_shares_of_pairs_are_as_stated():
    town = Town.make(0)
    assert len(town.pairs) == 40 * 8
    assert len(town.unstated) == 38  # 12 % of 320 is 38.4
    assert len(town.rumours) == 48
    assert len(town.held_out) == 64
    assert not town.unstated & set(town.rumours)
    assert all(false != town.value(pair) for pair, false in town.rumours.items())


def test_nobody_is_their_own_friend_and_values_are_possible():
    town = Town.make(1)
    for person, attribute in town.pairs:
        value = town.value((person, attribute))
        assert value in town.values(attribute)
        assert value != person


def test_strangers_live_nowhere():
    town = Town.make(2)
    groups = [set(town.people), set(town.strangers), set(town.held_out_strangers)]
    assert [len(group) for group in groups] == [40, STRANGERS // 2, STRANGERS // 2]
    assert sum(map(len, groups)) == len(set().union(*groups))


def test_names_of_strangers_are_made_of_syllables_and_tell_who_is_a_woman():
    town = Town.make(2)
    for person in (*town.strangers, *town.held_out_strangers):
        assert person.startswith(names.FIRST_SYLLABLES)
        assert person.endswith(names.LAST_SYLLABLES["women" if person in town.women else "men"])
    assert not set(town.women) & set(town.men)
    assert len(set(syllable_names("women", 500, random.Random(0)))) == 500


@pytest.mark.parametrize("people", [0, 3, 49])
def test_a_town_of_impossible_size_is_refused(people):
    with pytest.raises(InputError, match="4 to 48"):
        Town.make(0, people)
