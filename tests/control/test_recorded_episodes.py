"""Episodes that reports play: one a moment, from the same start, at the speed of the environment."""

import json
from pathlib import Path

from amenable.control.clip_pictures import RecordedEnvironments
from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import Policy
from amenable.control.recorded_episodes import EPISODES, EpisodeRecorder


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / EPISODES).read_text("utf-8").splitlines()]


def test_an_episode_a_moment(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path, lambda: RecordedEnvironments("CartPole-v1", 1, 3, max_episode_steps=40))
    policy, normalizer = Policy((4,), 2, True), ObservationNormalizer((4,), False)
    recorder.record("before", 0, policy, normalizer)
    recorder.record("after", 64, policy, normalizer)
    before, after = rows_of(tmp_path)
    assert (before["moment"], before["timesteps"], after["timesteps"]) == ("before", 0, 64)
    assert before["clip"] == after["clip"] and before["return"] == before["length"]
    scene, frames = before["clip"]["scene"], before["clip"]["frames"]
    assert scene["fps"] == 25 and len(frames) == -(-before["length"] // 2), "every second of 50 frames a second"
    recorder.record("before", 8, policy, normalizer)
    assert [(row["moment"], row["timesteps"]) for row in rows_of(tmp_path)] == [("after", 64), ("before", 8)]


def test_what_cannot_be_drawn_is_left_out(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path, lambda: RecordedEnvironments("amenable/MovingDot-v0", 1, 0))
    recorder.record("before", 0, Policy((1, 36, 36), 4, True), ObservationNormalizer((1, 36, 36), False))
    assert not (tmp_path / EPISODES).exists()
