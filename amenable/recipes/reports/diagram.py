"""The stages of a demo as a drawing: a box a stage, in columns from left to right, and an arrow to each that reads it.

A stage stands one column after the last of those it reads. Arrows that follow from others are left out (PPO reads the
world too, but through all that lies between). An arrow over several columns keeps a lane of its own in each. An
evaluation stands in the last column, and only the models that it evaluates lead to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from amenable.claims.stage_folders import Stage, paths_of

WIDTH, GAP, MAX_BOX_WIDTH = 1064, 20, 150
"""of the drawing, between columns, and of a box, in pixels"""
BOX_HEIGHT, LANE_HEIGHT, SPACING = 96, 10, 14
"""of a box, of an arrow's lane, and of the free space below each"""

Parents = Mapping[str, set[str]]
Item = str | tuple[str, str]
"""an item of a column: a stage, or the arrow (parent, child) that crosses the column"""


@dataclass(frozen=True)
class Box:
    """A stage's box, in pixels from the drawing's upper left corner."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """Boxes in the order of the stages, arrows as SVG paths from the right of one box to the left of another."""

    boxes: list[Box]
    arrows: list[str]
    box_width: float
    height: float


def draw(stages: Sequence[Stage]) -> Drawing:
    """Draw stages, finished or only planned."""
    parents = direct_parents(stage_parents(stages))
    columns = column_of_each(parents)
    last = max(columns.values())
    columns |= {stage.name: last for stage in stages if stage.command == "evaluate"}
    width = min(MAX_BOX_WIDTH, (WIDTH - GAP * last) / (last + 1))
    stride = (WIDTH - width) / last if last else 0.0
    items: list[list[Item]] = [[] for _ in range(last + 1)]
    for stage in stages:
        items[columns[stage.name]].append(stage.name)
    edges = [(parent, stage.name) for stage in stages for parent in sorted(parents[stage.name])]
    for parent, child in edges:
        for column in range(columns[parent] + 1, columns[child]):
            items[column].append((parent, child))
    height = max(sum(map(item_height, column)) for column in items) - SPACING
    middles = item_middles(items, parents, height)
    boxes = [
        Box(stage.name, stride * columns[stage.name], middles[columns[stage.name], stage.name] - BOX_HEIGHT / 2)
        for stage in stages
    ]
    arrows = []
    for parent, child in edges:
        stops = [(stride * columns[parent] + width, middles[columns[parent], parent])]
        for column in range(columns[parent] + 1, columns[child]):
            y = middles[column, (parent, child)]
            stops += [(stride * column, y), (stride * column + width, y)]
        arrows.append(curve([*stops, (stride * columns[child] - 5, middles[columns[child], child])]))
    return Drawing(boxes, arrows, width, height)


def stage_parents(stages: Sequence[Stage]) -> Parents:
    """Return by stage the stages whose folders its options name, beside its own folder at the time."""
    names = {stage.name for stage in stages}
    parents: dict[str, set[str]] = {}
    for stage in stages:
        root = Path(str(stage.config.get("out", stage.folder))).parent
        options = {key: value for key, value in stage.config.items() if key != "out"}
        options = {"models": options["models"]} if options.get("models") else options
        folders = {
            path.relative_to(root).parts[0]
            for path in map(Path, paths_of(options))
            if path != root and path.is_relative_to(root)
        }
        parents[stage.name] = (folders & names) - {stage.name}
    return parents


def column_of_each(parents: Parents) -> dict[str, int]:
    """Return the column of each stage: one after the last of its parents. A cycle, which no recipe makes, is cut."""
    columns: dict[str, int] = {}

    def column(name: str, path: frozenset[str]) -> int:
        if name not in columns:
            columns[name] = 1 + max((column(parent, path | {name}) for parent in parents[name] - path), default=-1)
        return columns[name]

    for name in parents:
        column(name, frozenset({name}))
    return columns


def direct_parents(parents: Parents) -> Parents:
    """Return the parents of each stage that are no ancestors of its other parents."""
    return {
        name: {parent for parent in own if not any(parent in ancestors(other, parents) for other in own - {parent})}
        for name, own in parents.items()
    }


def ancestors(name: str, parents: Parents) -> set[str]:
    """Return the parents of a stage, their parents and so on."""
    reached: set[str] = set()
    waiting = list(parents[name])
    while waiting:
        parent = waiting.pop()
        if parent not in reached:
            reached.add(parent)
            waiting += parents[parent]
    return reached


def item_middles(columns: Sequence[Sequence[Item]], parents: Parents, height: float) -> dict[tuple[int, Item], float]:
    """Return the middle of every item: a column in the order of its items' parents, centred on the drawing's height."""
    middles: dict[tuple[int, Item], float] = {}
    for i, column in enumerate(columns):

        def mean_of_parents(item: Item, before: int = i - 1) -> float:
            sources = [(parent, item) for parent in parents[item]] if isinstance(item, str) else [item]
            ys = [middles.get((before, edge), middles.get((before, edge[0]))) for edge in sources]
            known = [y for y in ys if y is not None]
            return sum(known) / len(known) if known else height / 2

        y = (height + SPACING - sum(map(item_height, column))) / 2
        for item in sorted(column, key=mean_of_parents):
            middles[i, item] = y + (item_height(item) - SPACING) / 2
            y += item_height(item)
    return middles


def item_height(item: Item) -> float:
    """Return the height of a box or a lane, with the free space below it."""
    return (BOX_HEIGHT if isinstance(item, str) else LANE_HEIGHT) + SPACING


def curve(stops: Sequence[tuple[float, float]]) -> str:
    """Return an SVG path through the stops, level at each of them."""
    path = f"M{stops[0][0]:.1f} {stops[0][1]:.1f}"
    for (x, y), (to_x, to_y) in pairwise(stops):
        bend = (to_x - x) / 2
        path += f"C{x + bend:.1f} {y:.1f} {to_x - bend:.1f} {to_y:.1f} {to_x:.1f} {to_y:.1f}"
    return path
