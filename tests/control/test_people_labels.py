"""People's labels: pairs go into the store once, answers come back, and a repeated iteration reads the same."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amenable.control.clip_pictures import Painter
from amenable.control.clips import Clips
from amenable.control.environments import make
from amenable.control.people_labels import PeopleLabels


@pytest.fixture
def labels(tmp_path: Path) -> PeopleLabels:
    own = PeopleLabels(tmp_path / "clips.db", tmp_path, Painter(make("CartPole-v1")).scene)
    own.submit(range(3), clips(3), clips(3))
    return own


def clips(count: int) -> Clips:
    return Clips(np.zeros((count, 2, 4)), np.zeros((count, 2)), np.zeros((count, 2)), np.ones((count, 2, 8)))


def rank(labels: PeopleLabels, number: int, ranking: list[int], **more: Any) -> int:
    return labels.store.append("ranking", {"task": labels.task(number), "ranking": ranking, **more}, 1.0)


def test_pairs_are_written_once(labels: PeopleLabels) -> None:
    labels.submit(range(3), clips(3), clips(3))
    pairs = labels.store.events("clip_pair")
    assert [pair.payload["number"] for pair in pairs] == [0, 1, 2] and len(pairs[0].payload["completions"]) == 2


def test_answers_corrections_and_doubt(labels: PeopleLabels) -> None:
    first = rank(labels, 0, [2, 1])
    rank(labels, 1, [1, 1])
    labels.store.append("skip", {"task": labels.task(2)}, 1.0)
    rank(labels, 0, [1, 2], annotator="another")
    assert labels.answers(1) == {0: 0.5, 1: 0.5, 2: None} and labels.count() == 2
    labels.store.append("retraction", {"retracts": first}, 2.0)
    assert labels.answers(2)[0] == 1.0
    second = rank(labels, 2, [1, 2])
    labels.store.append("retraction", {"retracts": second}, 2.0)
    labels.store.append("retraction", {"retracts": labels.store.events("skip")[0].id}, 2.0)
    assert math.isnan(labels.answers(3)[2] or 0.0) and labels.count() == 2


def test_a_repeated_iteration_reads_what_it_read_before(labels: PeopleLabels, tmp_path: Path) -> None:
    rank(labels, 0, [1, 2])
    assert labels.answers(1) == {0: 1.0}
    rank(labels, 1, [2, 1])
    again = PeopleLabels(tmp_path / "clips.db", tmp_path, labels.scene)
    assert again.name == labels.name
    assert again.answers(1) == {0: 1.0} and again.answers(2) == {0: 1.0, 1: 0.0}


def test_another_runs_answers_are_not_read(labels: PeopleLabels, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = PeopleLabels(tmp_path / "clips.db", tmp_path / "other", labels.scene)
    other.submit(range(1), clips(1), clips(1))
    rank(other, 0, [1, 2])
    assert labels.answers(1) == {} and other.answers(1) == {0: 1.0}


def test_training_saves_waits_and_says_so(labels: PeopleLabels) -> None:
    lines: list[str] = []
    saves: list[int] = []
    run: Any = SimpleNamespace(log=SimpleNamespace(info=lines.append), graceful_stop=SimpleNamespace(requested=False))

    def pause(seconds: float) -> None:
        assert seconds >= 1, "no busy loop"
        pauses.append(seconds)
        if len(pauses) == 3700:
            rank(labels, 0, [1, 2])

    pauses: list[float] = []
    labels.pause = pause
    labels.wait(1, run, lambda: saves.append(1))
    assert len(pauses) == 3700 and saves == [1]
    assert len(lines) == 2 and "0 of 1 labels" in lines[0] and "for 1 h" in lines[1]
    labels.wait(1, run, lambda: saves.append(1))
    assert saves == [1], "there are enough"
