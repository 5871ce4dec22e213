"""The map's dynamics: rewards, ends, edges, and a drunk cat."""

import pytest

from amenable.control.gridworld import ACTIONS, DEFAULT_MAP, world_of
from amenable.errors import InputError

UP, RIGHT, DOWN, LEFT = range(4)


def test_moves_rewards_and_edges() -> None:
    world = world_of(["SB", "TM"])
    assert world.start == 0 and world.terminal.tolist() == [False, False, True, True]
    assert world.rewards.tolist() == [0, -1, -10, 100] and len(ACTIONS) == world.num_actions
    assert world.transitions[0].argmax(1).tolist() == [0, 1, 2, 0], "off the map it stays"
    assert world.transitions[1].argmax(1).tolist() == [1, 1, 3, 0]


def test_a_drunk_cat_slips() -> None:
    world = world_of(["SB", "TM"], 0.4)
    assert world.transitions[0, RIGHT].tolist() == pytest.approx([0.2, 0.7, 0.1, 0.0])
    assert world.transitions.sum(2) == pytest.approx(1)
    assert (
        world_of(DEFAULT_MAP, 1.0).transitions[8, UP].tolist()
        == world_of(DEFAULT_MAP, 1.0).transitions[8, DOWN].tolist()
    )


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "rows"),
        (["S.", "M"], "rows"),
        (["SX"], "unknown cell 'X'"),
        (["SS", "MM"], "2 starts"),
        (["S."], "no cell ends"),
        (["S" + "." * 400 + "M"], "402 cells"),
    ],
)
def test_a_wrong_map_is_refused(rows: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        world_of(rows)
    assert caught.value.how
    with pytest.raises(InputError, match=r"slip is 1\.5"):
        world_of(["SM"], 1.5)
