"""Pictures of clips from positions: line segments that a browser draws on a canvas, without OpenGL.

A step is n segments (x1, y1, x2, y2), y upwards, in the environment's own units; one of no length is a dot. The scene
says how they are drawn, once for all steps. MuJoCo's bodies are seen from the side: x and z of every geom's axis.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amenable.control.environments import Environments
from amenable.errors import InputError

DECIMALS = 3
FPS = 10.0
"""frames a second of an environment that has no time of its own"""
Segments = list[tuple[float, float, float, float]]


@dataclass(frozen=True)
class Scene:
    """Still parts of the picture, and the way in which segments are drawn."""

    box: tuple[float, float, float, float]
    """left, bottom, right and top of the view"""
    widths: list[float]
    """of the n segments"""
    fixed: list[tuple[float, float, float, float, float]]
    """segments that do not move, and their widths"""
    marks: list[tuple[float, float, str]]
    """texts at their places"""
    follow: bool
    """True where the view moves along x with the first segment"""
    fps: float


class Painter:
    """Draws one kind of environment: its scene, and the segments of its present state."""

    def __init__(self, env: Any):
        """InputError for an environment of which no picture is known."""
        self.env = env.unwrapped
        name = type(self.env).__name__
        if hasattr(self.env, "model") and hasattr(self.env.model, "geom_type"):
            self.segments: Callable[[Any], Segments] = body
            widths, box = body_widths(self.env), (-1.6, -0.2, 1.6, 2.0)
            fixed, marks = [(-1000.0, 0.0, 1000.0, 0.0, 0.01)], list[tuple[float, float, str]]()
        elif name in DRAWINGS:
            self.segments, widths, box, fixed = DRAWINGS[name]
            marks = []
        elif name == "Gridworld":
            self.segments = cat
            height, width = len(self.env.rows), len(self.env.rows[0])
            widths, box, fixed = [0.5], (-0.6, -height + 0.4, width - 0.4, 0.6), grid_lines(height, width)
            cells = [(x, -y, cell) for y, row in enumerate(self.env.rows) for x, cell in enumerate(row)]
            marks = [(float(x), float(y), cell) for x, y, cell in cells if cell != "."]
        else:
            hint = "gridworld, CartPole, Pendulum, Acrobot, MountainCar and MuJoCo's environments are drawn"
            raise InputError(f"no picture is known of {name}", how=hint)
        fps = float(self.env.metadata.get("render_fps") or FPS)
        self.scene = Scene(box, widths, fixed, marks, self.segments is body, fps)

    def draw(self, env: Any) -> NDArray:
        """Return the segments of an environment's state as numbers [4 n]."""
        return np.array(self.segments(env.unwrapped), np.float32).ravel()


def body(env: Any) -> Segments:
    """Return the axes of a MuJoCo model's geoms, the ground left out, from the side."""
    model, data = env.model, env.data
    segments = Segments()
    for index in body_geoms(model):
        centre, axis = data.geom_xpos[index], data.geom_xmat[index].reshape(3, 3)[:, 2]
        reach = axis * model.geom_size[index][1] if model.geom_type[index] in LONG else np.zeros(3)
        (x1, _, z1), (x2, _, z2) = centre - reach, centre + reach
        segments.append((float(x1), float(z1), float(x2), float(z2)))
    return segments


LONG = (3, 5)
"""MuJoCo's geoms of a length: capsule and cylinder"""


def body_geoms(model: Any) -> list[int]:
    """Return the geoms of a MuJoCo model but those of the world, such as the ground."""
    return [index for index in range(model.ngeom) if model.geom_bodyid[index] != 0]


def body_widths(env: Any) -> list[float]:
    """Return the thickness of each geom of `body`."""
    return [2 * float(env.model.geom_size[index][0]) for index in body_geoms(env.model)]


def cart_pole(env: Any) -> Segments:
    """Return cart and pole."""
    x, _, angle, _ = map(float, env.state)
    return [(x - 0.2, 0.0, x + 0.2, 0.0), (x, 0.0, x + np.sin(angle), np.cos(angle))]


def pendulum(env: Any) -> Segments:
    """Return the rod."""
    angle = float(env.state[0])
    return [(0.0, 0.0, -np.sin(angle), np.cos(angle))]


def acrobot(env: Any) -> Segments:
    """Return both links."""
    first, second = float(env.state[0]), float(env.state[0] + env.state[1])
    x, y = np.sin(first), -np.cos(first)
    return [(0.0, 0.0, x, y), (x, y, x + np.sin(second), y - np.cos(second))]


def mountain_car(env: Any) -> Segments:
    """Return the car, a dot on its hill."""
    x = float(env.state[0])
    return [(x, hill(x) + 0.05) * 2]


def hill(x: float) -> float:
    """Return the height of MountainCar's hill."""
    return float(np.sin(3 * x) * 0.45 + 0.55)


def cat(env: Any) -> Segments:
    """Return the cat, a dot in its cell."""
    row, column = divmod(int(env.state), len(env.rows[0]))
    return [(float(column), -float(row)) * 2]


def grid_lines(height: int, width: int) -> list[tuple[float, float, float, float, float]]:
    """Return the lines between the cells of a map."""
    rows = [(-0.5, 0.5 - y, width - 0.5, 0.5 - y, 0.02) for y in range(height + 1)]
    return rows + [(x - 0.5, 0.5, x - 0.5, 0.5 - height, 0.02) for x in range(width + 1)]


HILL = [(x, hill(x), x + 0.1, hill(x + 0.1), 0.02) for x in np.arange(-1.2, 0.6, 0.1).round(2).tolist()]
CAR = (mountain_car, [0.1], (-1.25, -0.05, 0.65, 1.15), [*HILL, (0.5, hill(0.5), 0.5, hill(0.5) + 0.2, 0.02)])
DRAWINGS: dict[str, Any] = {
    "CartPoleEnv": (cart_pole, [0.25, 0.08], (-2.6, -0.6, 2.6, 1.4), [(-2.4, -0.13, 2.4, -0.13, 0.02)]),
    "PendulumEnv": (pendulum, [0.15], (-1.3, -1.3, 1.3, 1.3), [(0.0, 0.0, 0.0, 0.0, 0.1)]),
    "AcrobotEnv": (acrobot, [0.15, 0.15], (-2.3, -2.3, 2.3, 2.3), [(-2.3, 1.0, 2.3, 1.0, 0.02)]),
    "MountainCarEnv": CAR,
    "Continuous_MountainCarEnv": CAR,
}
"""by class: segments, their widths, the view, and what does not move"""


class RecordedEnvironments(Environments):
    """Environments that also keep the picture of every step, before it is taken."""

    def __init__(self, name: str, num_envs: int, seed: int, fixed_length: bool = False, **options: Any):
        super().__init__(name, num_envs, seed, fixed_length, **options)
        self.painter = Painter(self.envs[0])
        self.pictures: list[NDArray] = []

    def step(self, actions: NDArray, active: NDArray) -> tuple[NDArray, NDArray, NDArray, dict[int, NDArray]]:
        """Draw every copy, then step those that are active."""
        self.pictures.append(np.stack([self.painter.draw(env) for env in self.envs]))
        return super().step(actions, active)

    def take_pictures(self) -> NDArray:
        """Return the pictures [T, E, P] since the last call."""
        pictures, self.pictures = np.stack(self.pictures), []
        return pictures


def clip_json(scene: Scene, pictures: NDArray) -> str:
    """Return one clip [L, P] as the text that pages draw (serve/pages/clip.js)."""
    frames = np.asarray(pictures, np.float64).round(DECIMALS).tolist()
    return json.dumps({"scene": asdict(scene), "frames": frames}, separators=(",", ":"))
