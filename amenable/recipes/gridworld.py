"""A cat in a gridworld, solved exactly: arrows and values in the terminal, and a page with sliders.

Value iteration sweep by sweep, then a walk by the optimal policy, or by that of a trained agent (--model), whose values
are exact too. The map's cells, the slips of a drunk cat and the equations are in control/gridworld.py and
control/dynamic_programming.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from amenable.control.dynamic_programming import (
    Array,
    MarkovDecisionProcess,
    action_values,
    deterministic,
    discounted_return,
    evaluate_policy,
    policy_iteration,
    simulate,
    value_iteration,
)
from amenable.control.gridworld import DEFAULT_MAP, check_map, world_of
from amenable.control.gridworld_preferences import LearnedRewards, greedy, learn_rewards
from amenable.errors import InputError
from amenable.files import disk_errors, write_text
from amenable.recipes.reports import gridworld_page
from amenable.recipes.reports.terminal import print_lines
from amenable.train import plan

ARROWS = "↑→↓←"
"""of the actions, in their order"""
CAT = "@"
MAX_STEPS = 100
FRAMES = 30
"""sweeps that are shown"""
SHOWN_CELLS = 30
"""of a walk, in the line on it"""
STYLES = {"S": "bold", ".": "", "B": "yellow", "T": "red", "M": "green"}


@dataclass(frozen=True)
class Config:
    """Show the cat's world, its optimal policy and values."""

    map: Path | None = None
    """text file of a map, a row a line; by default one of ours"""
    slip: float = 0.1
    """probability that a move is a random one of the four"""
    gamma: float = 0.95
    """discount, below 1"""
    model: Path | None = None
    """run of amenable control on this map whose policy is shown, in the optimal one's place"""
    comparisons: int = 0
    """comparisons of trajectories from which the reward of each cell is learned, and a policy from these, shown in the
    optimal one's place and beside the true rewards; 0 is none"""
    page: Path | None = None
    """file to which a page is written: the map with sliders for slip and discount"""
    seed: int = 0
    """of the walk"""
    delay: float = 0.12
    """seconds between two pictures in the terminal; 0 shows the last alone"""

    def __post_init__(self) -> None:
        plan.require_share(self, "slip")
        plan.require_below_one(self, "gamma")
        plan.require_at_least(0, self, "seed", "delay", "comparisons")
        if self.comparisons and self.model is not None:
            raise InputError("model and comparisons are given", how="show the policy of one of them")


def run(config: Config) -> Path | None:
    """Show the world; write the page, if one is named, and return its path."""
    rows = read_map(config.map) if config.map is not None else list(DEFAULT_MAP)
    world = world_of(rows, config.slip)
    learned = learn_rewards(world, config.gamma, config.comparisons, config.seed) if config.comparisons else None
    if config.model is None and learned is None:
        values, actions, _ = policy_iteration(world, config.gamma)
    else:
        actions = actions_of(config, world, learned)
        values = evaluate_policy(world, deterministic(actions, world.num_actions), config.gamma)
    best, sweeps = value_iteration(world, config.gamma)
    walk = simulate(world, deterministic(actions, world.num_actions), np.random.default_rng(config.seed), MAX_STEPS)
    console = Console(highlight=False)
    if console.is_terminal and config.delay:
        with Live(console=console, auto_refresh=False) as live:
            for frame in pictures(rows, world, values, actions, walk[0], config):
                live.update(frame, refresh=True)
                time.sleep(config.delay)
    else:
        console.print(picture(rows, values, actions))
    if learned is not None:
        print_lines(console, learned_summary(rows, learned), soft_wrap=True)
    print_lines(console, summary(rows, config, world, values, best, sweeps, walk), soft_wrap=True)
    if config.page is not None:
        compared = gridworld_page.comparison(rows, world, config.gamma, learned) if learned is not None else None
        with disk_errors(config.page):
            config.page.parent.mkdir(parents=True, exist_ok=True)
            page = gridworld_page.page(rows, command_of(config), config.slip, config.gamma, compared)
            write_text(config.page, page)
        print_lines(console, [f"page: {config.page}"], soft_wrap=True)
    return config.page


def read_map(path: Path) -> list[str]:
    """Read a map from a text file. InputError for one that cannot be read, or is no map."""
    try:
        rows = path.read_text("utf-8").split()
    except (OSError, UnicodeDecodeError):
        raise InputError("no such text file", path, "write a map: a row a line, of S . B T M") from None
    check_map(rows, str(path))
    return rows


def command_of(config: Config) -> str:
    """Return the command that makes the page."""
    compared = f" --comparisons {config.comparisons}" if config.comparisons else ""
    return f"amenable gridworld{compared} --slip {config.slip:g} --gamma {config.gamma:g} --page {config.page}"


def learned_summary(rows: Sequence[str], learned: LearnedRewards) -> list[str]:
    """Return lines on rewards learned from comparisons: those of each cell in the true ones' unit, and the policy."""
    width, numbers = len(rows[0]), [f"{reward:7.1f}" for reward in learned.scaled]
    count, share = learned.rounds[-1]
    lines = ["".join(numbers[i : i + width]) for i in range(0, len(numbers), width)]
    optimal = f"{share:.0%} of the cells have an optimal move"
    return [f"rewards learned from {count} comparisons, in the true ones' unit; {optimal}", *lines]


def actions_of(config: Config, world: MarkovDecisionProcess, learned: LearnedRewards | None) -> np.ndarray:
    """Return the action [S] in every state that learned rewards recommend, or the likeliest of a trained agent.
    InputError for an agent of another world."""
    from amenable.control import saved_policy

    if learned is not None:
        return greedy(world, learned.rewards, config.gamma)
    assert config.model is not None
    folder, states = config.model, len(world.rewards)
    policy, normalizer, description = saved_policy.load(folder)
    if description.shape != [states] or not policy.discrete or policy.num_actions != len(ARROWS):
        problem = f"is an agent of {description.env} with observations of {description.shape}, not of {states} cells"
        raise InputError(problem, folder, "show it on the map that it was trained on (--map)")
    return policy.act(normalizer.normalize(np.eye(states, dtype=np.float32)), 0.0)


def pictures(
    rows: Sequence[str],
    world: MarkovDecisionProcess,
    values: Array,
    actions: np.ndarray,
    walk: Sequence[int],
    config: Config,
) -> Iterator[Table]:
    """Yield pictures of value iteration, if the policy is the optimal one, and of a walk."""
    current = np.zeros(len(values))
    for _ in range(FRAMES if config.model is None and not config.comparisons else 0):
        quality = action_values(world, current, config.gamma)
        current = quality.max(axis=1)
        yield picture(rows, current, quality.argmax(axis=1))
    for state in walk:
        yield picture(rows, values, actions, state)


def picture(rows: Sequence[str], values: Array, actions: np.ndarray, cat: int | None = None) -> Table:
    """Return the map as a table: in each cell its letter or the cat, the action's arrow, and the value."""
    table, width = Table(show_header=False, show_lines=True, padding=(0, 1)), len(rows[0])
    for row, cells in enumerate(rows):
        line = []
        for column, cell in enumerate(cells):
            state = row * width + column
            mark = CAT if state == cat else cell if cell != "." else " "
            arrow = " " if cell in "TM" else ARROWS[actions[state]]
            style = "bold reverse" if state == cat else STYLES[cell]
            line.append(Text(f"{mark}    {arrow}\n{values[state]:6.1f}", style=style))
        table.add_row(*line)
    return table


def summary(
    rows: Sequence[str],
    config: Config,
    world: MarkovDecisionProcess,
    values: Array,
    best: Array,
    sweeps: int,
    walk: tuple[list[int], list[int], list[float]],
) -> list[str]:
    """Return lines on the value of the start, the sweeps of value iteration, and the walk."""
    start, (states, _, rewards) = world.start, walk
    optimal = f" (the optimal policy: {best[start]:.3f})" if config.model is not None or config.comparisons else ""
    cells = " ".join(f"{state // len(rows[0])},{state % len(rows[0])}" for state in states[:SHOWN_CELLS])
    cells += " ..." if len(states) > SHOWN_CELLS else ""
    return [
        f"expected return from the start {values[start]:.3f}{optimal}, "
        f"discount {config.gamma:g}, slip {config.slip:g}; {sweeps} sweeps of value iteration",
        f"a walk of {len(rewards)} steps, return {discounted_return(rewards, config.gamma):.3f}: {cells}",
    ]
