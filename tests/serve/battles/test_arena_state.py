"""Draws of pairs, and which battles are open or counted."""

import random
from collections import Counter

import pytest

from amenable.serve.battles.arena_state import draw_pair, in_order


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_graph_of_battles_is_connected_as_early_as_can_be(count: int) -> None:
    names, battle_counts, draw = [f"m{i}" for i in range(count)], Counter[tuple[str, str]](), random.Random(1)
    for _ in range(count - 1):
        battle_counts[in_order(*draw_pair(names, battle_counts, draw))] += 1
    reached = {"m0"}
    for _ in names:
        reached |= {name for pair in battle_counts if reached & set(pair) for name in pair}
    assert reached == set(names)
    for _ in range(5 * count * (count - 1) // 2 - (count - 1)):
        battle_counts[in_order(*draw_pair(names, battle_counts, draw))] += 1
    assert set(battle_counts.values()) == {5}


def test_pairs_and_sides_are_drawn_at_random(arena) -> None:
    sides = Counter(arena.begin("owner").models["left"] for _ in range(200))
    assert set(sides) == {"tiny", "plain"} and min(sides.values()) > 60
    pairs = {tuple(draw_pair(list("abcd"), {}, random.Random(seed))) for seed in range(60)}
    assert len(pairs) == 6


def test_battles_that_nobody_judges_are_forgotten(arena) -> None:
    built = [arena.begin("owner").id for _ in range(25)]
    assert len(arena.battles) == 20 and built[-1] in arena.battles and built[0] not in arena.battles
    arena.begin("another")
    arena.clock = lambda: 1e6
    last = arena.begin("another")
    assert list(arena.battles) == [last.id]


def test_battles_under_way_count_only_once_something_is_said(arena) -> None:
    battle = arena.begin("owner")
    assert not arena.battle_counts()
    battle.turns.append({"user": "x", "left": "a", "right": "b"})
    assert arena.battle_counts() == {("plain", "tiny"): 1}
