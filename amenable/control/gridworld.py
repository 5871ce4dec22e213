"""The cat in a gridworld: a map of cells as a Markov decision process.

    S start    . empty, 0    B broom, -1    T bathtub, -10, the episode ends    M meat, +100, the episode ends

The cat moves up, right, down or left. A move off the map leaves it where it is, and the reward is that of the cell
where it is then. A drunk cat slips with probability `slip`: its move is then one of the four, each as likely.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amenable.control.dynamic_programming import MarkovDecisionProcess
from amenable.errors import InputError

DEFAULT_MAP = (
    "S.B...",
    ".TB.T.",
    "..B.B.",
    ".T...B",
    "..BT.M",
)
ACTIONS = ("up", "right", "down", "left")
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
REWARDS = {"S": 0.0, ".": 0.0, "B": -1.0, "T": -10.0, "M": 100.0}
ENDS = "TM"
"""cells in which an episode ends"""
MAX_CELLS = 400


def check_map(rows: Sequence[str], where: str = "map") -> None:
    """Raise InputError for a map that is not a rectangle of known cells with one start and a cell that ends."""
    if not rows or len({len(row) for row in rows}) != 1 or not rows[0]:
        raise InputError("its rows are not equally long", where, "give each row as many cells")
    cells = "".join(rows)
    if unknown := sorted(set(cells) - set(REWARDS)):
        raise InputError(f"unknown cell '{unknown[0]}'", where, f"cells are {' '.join(REWARDS)}")
    if cells.count("S") != 1:
        raise InputError(f"it has {cells.count('S')} starts", where, "give one cell S")
    if not set(ENDS) & set(cells):
        raise InputError("no cell ends an episode", where, "add meat (M) or a bathtub (T)")
    if len(cells) > MAX_CELLS:
        raise InputError(f"it has {len(cells)} cells", where, f"at most {MAX_CELLS} are solved")


def world_of(rows: Sequence[str], slip: float = 0.0) -> MarkovDecisionProcess:
    """Return the decision process of a map; states are its cells, row by row. slip is from 0 to 1."""
    check_map(rows)
    if not 0 <= slip <= 1:
        raise InputError(f"slip is {slip}", how="it is a probability, from 0 to 1")
    height, width, cells = len(rows), len(rows[0]), "".join(rows)
    transitions = np.zeros((len(cells), len(MOVES), len(cells)))
    for state in range(len(cells)):
        for move, (down, right) in enumerate(MOVES):
            row, column = state // width + down, state % width + right
            inside = 0 <= row < height and 0 <= column < width
            after = row * width + column if inside else state
            transitions[state, move, after] += 1 - slip
            transitions[state, :, after] += slip / len(MOVES)
    rewards = np.array([REWARDS[cell] for cell in cells])
    return MarkovDecisionProcess(transitions, rewards, np.array([cell in ENDS for cell in cells]), cells.index("S"))
