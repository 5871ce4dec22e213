"""amenable gridworld: the optimal policy as arrows, a trained one with its values, mistakes in one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from amenable import cli
from amenable.control import saved_policy
from amenable.control.dynamic_programming import policy_iteration
from amenable.control.gridworld import world_of
from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import Policy
from amenable.recipes import gridworld
from amenable.recipes.gridworld import Config


def test_it_shows_the_optimal_policy(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    map_file = tmp_path / "map.txt"
    map_file.write_text("SBM\n")
    assert cli.main(["gridworld", "--map", str(map_file), "--slip", "0", "--gamma", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("→") == 2 and "49.0" in shown and "100.0" in shown
    assert "expected return from the start 49.000" in shown
    assert "a walk of 2 steps, return 49.000: 0,0 0,1 0,2" in shown


def test_a_trained_policy_has_its_own_values(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One that always goes right: -1 + .5 x 100."""
    policy = Policy([3], 4, True, (2,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        policy.network[-1].bias[1] = 5.0
    description = saved_policy.Description("amenable/Gridworld-v0", {}, [3], 4, True, [2], "tanh", False)
    saved_policy.save(tmp_path, policy, ObservationNormalizer((3,), False), description)
    (tmp_path / "map.txt").write_text("SBM")
    gridworld.run(Config(map=tmp_path / "map.txt", slip=0.0, gamma=0.5, model=tmp_path))
    assert "start 49.000 (the optimal policy: 49.000)" in capsys.readouterr().out
    assert cli.main(["gridworld", "--model", str(tmp_path)]) == 2
    assert "not of 30 cells" in capsys.readouterr().err


def test_pictures_go_from_nothing_known_to_the_solution() -> None:
    rows, config = ["SBM"], Config(gamma=0.5)
    world = world_of(rows)
    values, actions, _ = policy_iteration(world, 0.5)
    frames = list(gridworld.pictures(rows, world, values, actions, [0, 1, 2], config))
    console = Console(file=io.StringIO(), width=80)
    texts = []
    for frame in frames:
        with console.capture() as capture:
            console.print(frame)
        texts.append(capture.get())
    assert len(frames) == gridworld.FRAMES + 3 and "100.0" in texts[0] and "49.0" not in texts[0] and "49.0" in texts[1]
    assert ["@" in text for text in texts[-3:]] == [True] * 3 and texts[-3].index("@") < texts[-1].index("@")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--gamma", "1"], "gamma is 1"),
        (["--slip", "2"], "slip is 2"),
        (["--map", "no.txt"], "no.txt: no such text file"),
        (["--model", "nowhere"], "holds no policy"),
    ],
)
def test_mistakes_are_one_line(options: list[str], problem: str, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["gridworld", *options]) == 2
    line = capsys.readouterr().err
    assert problem in line and len(line.splitlines()) == 1


def test_a_map_of_words_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "map.txt").write_text("a cat\n")
    assert cli.main(["gridworld", "--map", str(tmp_path / "map.txt")]) == 2
    assert "map.txt: its rows are not equally long" in capsys.readouterr().err


def test_the_walk_is_a_function_of_the_seed(capsys: pytest.CaptureFixture) -> None:
    outputs = []
    for seed in (0, 0, 1):
        gridworld.run(Config(slip=0.5, seed=seed))
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2] and np.all([len(text) > 100 for text in outputs])


def test_rewards_learned_from_comparisons_give_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "map.txt").write_text("S.M\n.B.\n")
    options = ["--map", str(tmp_path / "map.txt"), "--slip", "0", "--gamma", "0.9", "--comparisons", "100"]
    assert cli.main(["gridworld", *options, "--page", str(tmp_path / "page.html")]) == 0
    shown = capsys.readouterr().out
    assert "rewards learned from 100 comparisons" in shown and "100% of the cells have an optimal move" in shown
    assert "start 90.000 (the optimal policy: 90.000)" in shown
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "learned from 100 comparisons" in page and "--comparisons 100 --slip 0 --gamma 0.9" in page
    assert cli.main(["gridworld", "--comparisons", "60", "--model", str(tmp_path)]) == 2
