"""A person who labels what waits whenever training waits: every pair of clips once."""

from __future__ import annotations

import json
from pathlib import Path

from amenable.feedback.store import Store
from amenable.stages import control
from benchmarks import crash_people

SMALL = control.Config(
    env="Pendulum-v1",
    env_options=("max_episode_steps=20",),
    num_envs=2,
    num_steps=20,
    num_epochs=1,
    total_timesteps=80,
    eval_episodes=0,
    learn_from="comparisons",
    judge="people",
    label_lag=0,
    max_labels=30,
    clip_steps=5,
    reward_updates=1,
)


def test_every_pair_is_labelled_once(tmp_path: Path) -> None:
    config = control.Config(**{**vars(SMALL), "out": tmp_path / "run"})
    out = crash_people.run(config)
    rows = [tuple(row) for row in json.loads((out / crash_people.LABELS).read_text())]
    pairs, labels = ([number for kind, number in rows if kind == name] for name in ("clip_pair", "ranking"))
    assert pairs == list(range(30)) and labels == list(range(28)), "those beyond the first wait are not waited for"
    assert json.loads((out / "finished.json").read_text())["labels"] == 28
    with Store(out.with_suffix(".db")) as store:
        crash_people.label_pairs(store)
        crash_people.label_pairs(store)
    assert len(crash_people.rows_of(out.with_suffix(".db"))) == 60
    assert crash_people.run(config) == out, "it is done already"
