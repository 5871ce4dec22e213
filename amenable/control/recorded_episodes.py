"""Episodes of the policy before, midway and after training, from positions, so that a report can play them.

Each is one episode by the likeliest actions, the same start for all. episodes.jsonl in the run directory has a row for
each: moment, timesteps, return, length, and the clip as clip_pictures.py writes it, at most FRAMES_PER_SECOND frames of
a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from amenable.control.clip_pictures import RecordedEnvironments, clip_json
from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import Policy
from amenable.control.rollout import collect
from amenable.errors import InputError
from amenable.files import write_text

EPISODES = "episodes.jsonl"
FRAMES_PER_SECOND = 30
Moment = Literal["before", "midway", "after"]


class EpisodeRecorder:
    """Plays episodes of a policy and writes them; of an environment that cannot be drawn it writes none."""

    def __init__(self, folder: Path, make: Callable[[], RecordedEnvironments]):
        """make: makes one copy of the environment, always with the same start."""
        self.path, self.make = folder / EPISODES, make

    def record(self, moment: Moment, timesteps: int, policy: Policy, normalizer: ObservationNormalizer) -> None:
        """Play an episode and write its row, in place of an earlier one of that moment."""
        try:
            copies = self.make()
        except InputError:
            return
        rollout = collect(copies, policy, normalizer, 0, None, whole_episodes=True)
        value, length = copies.finished[0]
        scene, pictures = copies.painter.scene, copies.take_pictures()[: rollout.num_steps, 0]
        stride = max(1, round(scene.fps / FRAMES_PER_SECOND))
        clip = clip_json(replace(scene, fps=scene.fps / stride), pictures[::stride])
        row = {"moment": moment, "timesteps": timesteps, "return": value, "length": length, "clip": json.loads(clip)}
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        others = [line for line in lines if json.loads(line)["moment"] != moment]
        write_text(self.path, "".join(f"{line}\n" for line in [*others, json.dumps(row, separators=(",", ":"))]))
