"""Pictures: segments where the environment's parts are, before each step."""

from __future__ import annotations

import json

import numpy as np
import pytest

from amenable.control.clip_pictures import Painter, RecordedEnvironments, clip_json
from amenable.control.environments import make
from amenable.errors import InputError


@pytest.mark.parametrize(
    ("env", "segments"),
    [
        *(("CartPole-v1", 2), ("Pendulum-v1", 1), ("Acrobot-v1", 2), ("MountainCar-v0", 1)),
        *(("MountainCarContinuous-v0", 1), ("amenable/Gridworld-v0", 1), ("Hopper-v5", 4), ("amenable/Backflip-v0", 4)),
    ],
)
def test_an_environment_is_drawn_within_its_view(env: str, segments: int) -> None:
    own = make(env)
    own.reset(seed=0)
    painter = Painter(own)
    picture, (left, bottom, right, top) = painter.draw(own).reshape(-1, 4), painter.scene.box
    assert len(picture) == segments == len(painter.scene.widths)
    assert np.all((picture[:, [0, 2]] >= left) & (picture[:, [0, 2]] <= right))
    assert np.all((picture[:, [1, 3]] >= bottom) & (picture[:, [1, 3]] <= top))


def test_parts_are_where_the_state_says() -> None:
    cart = make("CartPole-v1").unwrapped
    cart.state = (0.5, 0.0, np.pi / 2, 0.0)
    assert Painter(cart).draw(cart)[4:] == pytest.approx([0.5, 0, 1.5, 0], abs=1e-6)
    rod = make("Pendulum-v1").unwrapped
    rod.state = np.array([np.pi, 0.0])
    assert Painter(rod).draw(rod) == pytest.approx([0, 0, 0, -1], abs=1e-6)
    links = make("Acrobot-v1").unwrapped
    links.state = np.array([np.pi / 2, np.pi / 2, 0, 0])
    assert Painter(links).draw(links) == pytest.approx([0, 0, 1, 0, 1, 0, 1, 1], abs=1e-6)
    cat = make("amenable/Gridworld-v0", rows=["S.B", "..M"]).unwrapped
    cat.state = 4
    assert Painter(cat).draw(cat).tolist() == [1, -1, 1, -1]
    assert Painter(cat).scene.marks == [(0, 0, "S"), (2, 0, "B"), (2, -1, "M")]


def test_the_hopper_stands_on_the_ground() -> None:
    hopper = make("Hopper-v5")
    hopper.reset(seed=0)
    painter = Painter(hopper)
    torso, *_, foot = painter.draw(hopper).reshape(-1, 4)
    assert torso[[1, 3]].min() > 1 and abs(foot[[1, 3]]).max() < 0.15 and painter.scene.follow


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="no picture is known of MovingDot"):
        Painter(make("amenable/MovingDot-v0"))


def test_pictures_are_of_the_observations_that_are_acted_on() -> None:
    copies = RecordedEnvironments("CartPole-v1", 2, 0)
    before = copies.observations.copy()
    for _ in range(3):
        copies.step(np.zeros(2, np.int64), np.ones(2, bool))
    pictures = copies.take_pictures()
    assert pictures.shape == (3, 2, 8) and copies.pictures == []
    assert pictures[0, :, 4] == pytest.approx(before[:, 0])
    clip = json.loads(clip_json(copies.painter.scene, pictures[:, 0]))
    assert len(clip["frames"]) == 3 and clip["scene"]["fps"] == 50 and len(clip["frames"][0]) == 8
