"""amenable control: learns, resumes to the bit, and refuses what it cannot do in one line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable import cli
from amenable.control import people_labels, saved_policy
from amenable.errors import InputError, Interrupted
from amenable.feedback.store import Store
from amenable.stages import control
from amenable.stages.control import Config

SMALL = Config(
    total_timesteps=1200, num_envs=4, num_steps=50, num_epochs=3, hidden=(16,), eval_episodes=3, save_steps=2
)


def test_cartpole_gets_better(tmp_path: Path, rows_of: Callable[[Path], list[dict[str, Any]]]) -> None:
    config = replace(SMALL, out=tmp_path / "run", total_timesteps=6000, num_epochs=10, learning_rate=3e-3)
    out = control.run(config)
    rows, finished = rows_of(out), json.loads((out / "finished.json").read_text())
    assert len(rows) == 30 and rows[-1]["timesteps"] == 6000
    assert finished["eval/return"] > 2 * rows[0]["episode/return"] and finished["steps_per_second"] > 0
    policy, _, description = saved_policy.load(out)
    assert description.env == "CartPole-v1" and policy.num_actions == 2
    assert control.run(config) == out, "it is done already"


@pytest.mark.parametrize(
    ("algorithm", "env"),
    [("ppo", "Pendulum-v1"), ("a2c", "CartPole-v1"), ("trpo", "amenable/Gridworld-v0"), ("reinforce", "CartPole-v1")],
)
def test_a_stopped_run_goes_on_to_the_bit(
    algorithm: Any,
    env: str,
    tmp_path: Path,
    outcome: Callable[[Path], Any],
    run_in_two: Callable[[Any, Any, int], Path],
) -> None:
    options = ("slip=0.2",) if "Grid" in env else ()
    config = replace(SMALL, algorithm=algorithm, env=env, env_options=options, out=tmp_path / "whole")
    whole = outcome(control.run(config))
    assert outcome(run_in_two(control, replace(config, out=tmp_path / "two"), 3)) == whole


COMPARED = replace(
    SMALL,
    learn_from="comparisons",
    max_labels=60,
    reward_updates=10,
    clip_steps=10,
    reward_hidden=(16,),
    ensemble_size=2,
)


def test_an_agent_learns_from_comparisons(tmp_path: Path, rows_of: Callable[[Path], list[dict[str, Any]]]) -> None:
    """On Pendulum the learned reward orders clips as the true one does, which training never reads."""
    config = replace(COMPARED, env="Pendulum-v1", out=tmp_path / "run", total_timesteps=2400)
    out = control.run(config)
    rows, finished = rows_of(out), json.loads((out / "finished.json").read_text())
    assert rows[-1]["labels"] == 60 == finished["labels"] and finished["eval_rm/spearman"] > 0.7
    assert finished["eval/length"] == 200
    assert (out / "reward.safetensors").exists()


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a_stopped_run_from_comparisons_goes_on_to_the_bit(
    env: str, tmp_path: Path, outcome: Callable[[Path], Any], run_in_two: Callable[[Any, Any, int], Path]
) -> None:
    config = replace(COMPARED, env=env, out=tmp_path / "whole", query_strategy="disagreement")
    whole = outcome(control.run(config))
    assert outcome(run_in_two(control, replace(config, out=tmp_path / "two"), 3)) == whole


def test_people_are_waited_for_and_a_stopped_run_reads_their_answers_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outcome: Callable[[Path], Any],
    run_in_two: Callable[[Any, Any, int], Path],
) -> None:
    """A person who prefers the left clip answers all that wait, whenever training does."""

    def answer(labels: people_labels.PeopleLabels, *more: Any) -> None:
        done = {event.payload["task"] for event in labels.store.events("ranking")}
        for pair in labels.store.events("clip_pair"):
            if pair.payload["task"] not in done:
                labels.store.append("ranking", {"task": pair.payload["task"], "ranking": [1, 2]}, 0.0)

    pauses: list[float] = []

    def wait(labels: people_labels.PeopleLabels, needed: int, run: Any, save: Callable[[], None]) -> None:
        labels.pause = lambda seconds: (pauses.append(seconds), answer(labels))  # type: ignore[assignment]
        waits(labels, needed, run, save)

    waits = people_labels.PeopleLabels.wait
    monkeypatch.setattr(people_labels.PeopleLabels, "wait", wait)
    people = replace(COMPARED, env="Pendulum-v1", judge="people", label_lag=0, labels_db=tmp_path / "clips.db")
    out = control.run(replace(people, out=tmp_path / "whole"))
    finished = json.loads((out / "finished.json").read_text())
    assert len(pauses) >= 2 and 40 < finished["labels"] <= 60
    other = replace(people, out=tmp_path / "two", labels_db=tmp_path / "other.db")
    assert outcome(run_in_two(control, other, 3)) == outcome(out)


def test_ctrl_c_ends_the_wait_for_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = people_labels.PeopleLabels.wait

    def wait(labels: people_labels.PeopleLabels, needed: int, run: Any, save: Callable[[], None]) -> None:
        labels.pause = lambda seconds: os.kill(os.getpid(), signal.SIGINT)
        waits(labels, needed, run, save)

    monkeypatch.setattr(people_labels.PeopleLabels, "wait", wait)
    database = tmp_path / "clips.db"
    config = replace(COMPARED, env="Pendulum-v1", judge="people", labels_db=database, out=tmp_path / "run")
    for _ in range(2):
        with pytest.raises(Interrupted, match="saved at step 0; repeat the command"):
            control.run(config)
    with Store(database) as store:
        numbers = [pair.payload["number"] for pair in store.events("clip_pair")]
    assert numbers == list(range(15 + 20)), "those that are due and those ahead, once"


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = ["--out", str(tmp_path / "run")]
    for options, problem in (
        (["--env", "CartPole-v9"], "did you mean"),
        (["--env", "Blackjack-v1"], "observations are Tuple"),
        (["--env-options", "slip"], "'slip' is not NAME=VALUE"),
        (["--from", "comparisons", "--judge", "nobody"], "there is no judge 'nobody'"),
        (["--from", "comparisons", "--clip-steps", "900"], "a clip has 900 steps and an episode 500"),
        (["--from", "comparisons", "--judge", "people", "--env", "amenable/MovingDot-v0"], "no picture is known"),
        (["--env", "amenable/Gridworld-v0", "--env-options", "slip=3"], "slip is 3"),
    ):
        assert cli.main(["control", *out, *options]) == 2
        line = capsys.readouterr().err
        assert problem in line and len(line.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_options_of_the_environment_are_json_or_text() -> None:
    assert control.read_options(('rows=["SM"]', "slip=0.1", "name=x")) == {"rows": ["SM"], "slip": 0.1, "name": "x"}
    with pytest.raises(InputError, match="NAME=VALUE"):
        Config(env_options=("=3",))
