"""What was done as a drawing: a box a stage, in columns from left to right, and an arrow to whatever reads it.

A stage stands one column after the last of those it reads. Of the arrows those are left out that follow from others
(PPO reads the world too, but through all that lies between). An arrow over several columns keeps a lane of its own in
each. An evaluation stands in the last column, and only the models that it asks lead to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from amenable.claims.stage_folders import Stage, paths_of

WIDTH, GAP, WIDEST = 1064, 20, 150
"""of the drawing, between columns, and of a box, in pixels"""
BOX, LANE, ROOM = 96, 10, 14
"""height of a box and of an arrow's lane, and what is left free below each"""

Parents = Mapping[str, set[str]]
Item = str | tuple[str, str]
"""what stands in a column: a stage, or the arrow (parent, child) that crosses it"""


@dataclass(frozen=True)
class Place:
    """Where one box stands, in pixels from the drawing's upper left corner."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """Boxes in the order of the stages, arrows as SVG paths from the right of one box to the left of another."""

    places: list[Place]
    arrows: list[str]
    box: float
    """width of every box"""
    height: float


def draw(stages: Sequence[Stage]) -> Drawing:
    """The drawing of some stages, whether they are done or only planned."""
    parents = reduced(readings(stages))
    columns = depths(parents)
    last = max(columns.values())
    columns |= {stage.name: last for stage in stages if stage.command == "evaluate"}
    box = min(WIDEST, (WIDTH - GAP * last) / (last + 1))
    stride = (WIDTH - box) / last if last else 0.0
    items: list[list[Item]] = [[] for _ in range(last + 1)]
    for stage in stages:
        items[columns[stage.name]].append(stage.name)
    edges = [(parent, stage.name) for stage in stages for parent in sorted(parents[stage.name])]
    for parent, child in edges:
        for column in range(columns[parent] + 1, columns[child]):
            items[column].append((parent, child))
    height = max(sum(map(room_of, column)) for column in items) - ROOM
    middles = stacked(items, parents, height)
    places = [
        Place(stage.name, stride * columns[stage.name], middles[columns[stage.name], stage.name]) for stage in stages
    ]
    arrows = []
    for parent, child in edges:
        stops = [(stride * columns[parent] + box, middles[columns[parent], parent])]
        for column in range(columns[parent] + 1, columns[child]):
            y = middles[column, (parent, child)]
            stops += [(stride * column, y), (stride * column + box, y)]
        arrows.append(curve([*stops, (stride * columns[child] - 5, middles[columns[child], child])]))
    return Drawing([Place(one.name, one.x, one.y - BOX / 2) for one in places], arrows, box, height)


def readings(stages: Sequence[Stage]) -> Parents:
    """Which stages each stage builds on: those whose folder, beside its own at the time, its options name."""
    names = {stage.name for stage in stages}
    found: dict[str, set[str]] = {}
    for stage in stages:
        home = Path(str(stage.config.get("out", stage.folder))).parent
        told = {key: value for key, value in stage.config.items() if key != "out"}
        told = {"models": told["models"]} if told.get("models") else told
        read = {
            path.relative_to(home).parts[0]
            for path in map(Path, paths_of(told))
            if path != home and path.is_relative_to(home)
        }
        found[stage.name] = (read & names) - {stage.name}
    return found


def depths(parents: Parents) -> dict[str, int]:
    """The column of each stage: one after the last of its parents. A circle, which no recipe makes, is cut."""
    known: dict[str, int] = {}

    def depth(name: str, above: frozenset[str]) -> int:
        if name not in known:
            known[name] = 1 + max((depth(one, above | {name}) for one in parents[name] - above), default=-1)
        return known[name]

    for name in parents:
        depth(name, frozenset({name}))
    return known


def reduced(parents: Parents) -> Parents:
    """Without the arrows that follow from others: no parent is an ancestor of another parent."""
    return {
        name: {one for one in direct if not any(one in ancestors(other, parents) for other in direct - {one})}
        for name, direct in parents.items()
    }


def ancestors(name: str, parents: Parents) -> set[str]:
    found: set[str] = set()
    waiting = list(parents[name])
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += parents[one]
    return found


def stacked(columns: Sequence[Sequence[Item]], parents: Parents, height: float) -> dict[tuple[int, Item], float]:
    """The middle of every item: a column in the order of what its items come from, centred on the drawing's height."""
    middles: dict[tuple[int, Item], float] = {}
    for place, column in enumerate(columns):

        def wanted(item: Item, before: int = place - 1) -> float:
            sources = [(parent, item) for parent in parents[item]] if isinstance(item, str) else [item]
            ys = [middles.get((before, edge), middles.get((before, edge[0]))) for edge in sources]
            known = [y for y in ys if y is not None]
            return sum(known) / len(known) if known else height / 2

        y = (height + ROOM - sum(map(room_of, column))) / 2
        for item in sorted(column, key=wanted):
            middles[place, item] = y + (room_of(item) - ROOM) / 2
            y += room_of(item)
    return middles


def room_of(item: Item) -> float:
    """Height that a box or a lane takes, with what is free below it."""
    return (BOX if isinstance(item, str) else LANE) + ROOM


def curve(stops: Sequence[tuple[float, float]]) -> str:
    """A path through the stops, level at each of them."""
    told = f"M{stops[0][0]:.1f} {stops[0][1]:.1f}"
    for (x, y), (to_x, to_y) in pairwise(stops):
        bend = (to_x - x) / 2
        told += f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    return told
