"""Acting, labelling and learning of a reward in turn (Christiano et al., 2017): a loop of control whose rewards are
learned from comparisons of clips.

    acting      a rollout of the policy is cut into clips
    labelling   of pairs of recent clips those are shown that the query strategy selects; answers come at once from a
                judge, from people when they come
    learning    the reward predictors learn from all answers so far; the rollout's rewards are computed anew by them,
                and the policy learns from these

Labels are asked for at a falling rate: of n in all, a first share n_1 before training, and after t steps

    n_1 + (n - n_1) log(1 + t / tau) / log(1 + T / tau)

The environment's reward is read by simulated judges and by metrics alone; episodes end at the time limit alone, so that
neither their end nor their length says how well it goes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amenable.control.agent import Agent
from amenable.control.clip_pictures import RecordedEnvironments
from amenable.control.clips import ClipCutter, Clips, clips_of, join
from amenable.control.comparison_options import WITH_ACTIONS, ComparisonOptions
from amenable.control.comparisons import Comparisons
from amenable.control.environments import Environments
from amenable.control.label_sources import LabelSource
from amenable.control.reward_ensemble import RewardEnsemble
from amenable.control.reward_learning import RewardLearner
from amenable.control.rollout import Rollout, collect
from amenable.control.training import Training
from amenable.errors import InputError
from amenable.feedback.queries import Pool, choose
from amenable.files import write_text
from amenable.functional.statistics import concordance, spearman
from amenable.seeds import derive_seed, seeded_generator
from amenable.train.run import Run

PROBES = "probes.json"
RECENT_CLIPS = 200
"""clips that pairs are drawn from, and whose rewards normalise the predictors"""
PROBES_PER_ROLLOUT = 4
MAX_PROBES = 400
"""clips from all of the run, on which learned and true reward are compared; nothing is learned from them"""
FIRST_UPDATES = 10
"""times as many updates of the predictors before training as after a rollout"""
SECOND_STEPS = 10
"""steps of a clip of an environment that has no time of its own"""


class PreferenceTraining(Training):
    """Training whose rewards are learned from comparisons."""

    progress_metrics = (
        *("episode/return", "episode/rotation", "episode/predicted_return"),
        *("labels", "eval_rm/accuracy"),
    )

    def __init__(
        self,
        agent: Agent,
        environments: Environments,
        total_timesteps: int,
        options: ComparisonOptions,
        labels: LabelSource,
        untrained: Callable[[int], Environments],
    ):
        """untrained: makes the environments, from a seed, in which the first clips are played."""
        super().__init__(agent, environments, total_timesteps)
        self.comparing, self.labels, self.untrained = options, labels, untrained
        self.horizon, seed = episode_length(environments), agent.seed
        self.length = options.clip_steps or clip_length(environments)
        if self.length > self.horizon:
            problem = f"a clip has {self.length} steps and an episode {self.horizon}"
            raise InputError(problem, environments.name, "lower --clip-steps")
        self.cutter = ClipCutter(len(environments), self.length, self.horizon, seed)
        self.comparisons = Comparisons(options.ensemble_size, options.holdout, seed)
        reads_actions = predictors_read_actions(options, environments)
        members, hidden = options.ensemble_size, options.reward_hidden
        self.ensemble = RewardEnsemble(environments.spaces, members, hidden, seed, reads_actions)
        self.learner = RewardLearner(
            self.ensemble,
            options.reward_learning_rate,
            options.reward_batch,
            options.label_noise,
            options.reward_weight_decay,
            seed,
        )
        self.clips = Memory(RECENT_CLIPS)
        self.probes = Memory(MAX_PROBES)

    @property
    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint holds, by name."""
        parts = {"comparisons": self.comparisons, "reward": self.learner, "clips": self.clips, "probes": self.probes}
        return {**super().state, **parts, "cutter": self.cutter}

    def wait(self, iteration: int, run: Run) -> None:
        """Before the first iteration compare clips of the untrained policy; wait for labels that are due."""
        if not len(self.comparisons):
            self.clips.add(self.first_clips())
            self.query_labels(0, self.due(0))
        needed = self.due(self.progress.timesteps) - self.comparing.label_lag
        self.labels.wait(max(1, needed), run, lambda: run.save(iteration - 1, self.state))

    def first_clips(self) -> Clips:
        """Return clips of the untrained policy in whole episodes, as many as the first labels may need."""
        seed = derive_seed(self.agent.seed, "first clips")
        environments, generator = self.untrained(seed), seeded_generator(seed, "actions")
        cutter, parts = ClipCutter(len(environments), self.length, self.horizon, seed), list[Clips]()
        while sum(map(len, parts)) < min(RECENT_CLIPS, 2 * self.due(0)):
            rollout = collect(environments, self.agent.policy, self.normalizer, self.horizon, generator)
            parts.append(cutter.add(rollout, pictures_of(environments, rollout)))
        clips = join(*parts)
        self.ensemble.normalizer.update(clips.observations.reshape(-1, *clips.observations.shape[2:]))
        return clips

    def due(self, timesteps: int) -> int:
        """Return the labels there are to be after so many steps."""
        options, tau = self.comparing, self.comparing.label_annealing * self.progress.total
        first = round(options.first_labels * options.max_labels)
        share = math.log1p(timesteps / tau) / math.log1p(self.progress.total / tau)
        return max(1, min(options.max_labels, first + round((options.max_labels - first) * share)))

    def query_labels(self, iteration: int, due: int) -> None:
        """Submit as many pairs of recent clips as are missing to the labels that are due."""
        comparisons, clips = self.comparisons, self.clips.clips
        wanted = min(due + self.labels.ahead, self.comparing.max_labels) - comparisons.num_labels
        wanted -= comparisons.num_open
        if wanted <= 0 or clips is None or len(clips) < 2:
            return
        generator = seeded_generator(self.agent.seed, "queries", iteration)
        count = wanted * self.comparing.candidate_factor
        first = torch.randint(len(clips), (count,), generator=generator)
        second = (first + torch.randint(1, len(clips), (count,), generator=generator)) % len(clips)
        returns = self.ensemble.returns(clips)
        pool = Pool(count, torch.stack([returns[:, first], returns[:, second]], dim=2))
        chosen = choose(self.comparing.query_strategy, pool, wanted, generator)
        left, right = clips[first[chosen].numpy()], clips[second[chosen].numpy()]
        self.labels.submit(comparisons.add(left, right), left, right)

    def rewards_of(self, rollout: Rollout, iteration: int) -> tuple[NDArray, dict[str, Any]]:
        """Cut clips, take in answers, learn the reward, and return the rollout's rewards [T, E] by it, with metrics."""
        new = self.cutter.add(rollout, pictures_of(self.environments, rollout))
        self.clips.add(new)
        self.probes.add(new[np.linspace(0, max(len(new) - 1, 0), min(len(new), PROBES_PER_ROLLOUT)).astype(int)])
        self.ensemble.normalizer.update(rollout.observations[rollout.mask])
        self.query_labels(iteration, self.due(self.progress.timesteps + rollout.num_steps))
        self.comparisons.answer(self.labels.answers(iteration))
        updates = self.comparing.reward_updates * (1 if self.learner.fits else FIRST_UPDATES)
        metrics = self.learner.fit(self.comparisons, updates)
        if self.clips.clips is not None:
            self.ensemble.normalize_by(self.clips.clips)
        rewards = self.ensemble.reward(rollout.observations, rollout.executed) * rollout.mask
        counts = {"labels": self.comparisons.num_labels, "comparisons": len(self.comparisons)}
        return rewards, {**counts, **self.predictions(new), **metrics}

    def predictions(self, new: Clips) -> dict[str, float]:
        """Return the return of an episode as the predictors see it in new clips, and where the true returns of clips
        from all of the run vary, their rank correlation with the learned ones, and the share of pairs that both order
        alike."""
        facts: dict[str, float] = {}
        if len(new):
            returns = self.ensemble.returns(new).mean(0)
            facts["episode/predicted_return"] = float(returns.mean()) * self.horizon / self.length
        learned, true = self.probe_returns()
        correlation = spearman(learned, true) if len(true) else math.nan
        if math.isnan(correlation):
            return facts
        return {**facts, "eval_rm/spearman": correlation, "eval_rm/concordance": concordance(learned, true)}

    def probe_returns(self) -> tuple[Tensor, Tensor]:
        """Return learned and true returns [N] of the clips on which the two are compared."""
        probes = self.probes.clips
        if probes is None:
            return torch.zeros(0), torch.zeros(0)
        return self.ensemble.returns(probes).mean(0), torch.from_numpy(probes.returns)


def write_probes(path: Path, training: PreferenceTraining) -> None:
    """Write learned and true returns of the clips on which the two are compared, as {"learned": [N], "true": [N]}."""
    learned, true = training.probe_returns()
    write_text(path, json.dumps({"learned": learned.tolist(), "true": true.tolist()}))


class Memory:
    """The newest clips, a number of them at most; None before there are any."""

    def __init__(self, size: int):
        self.size = size
        self.clips: Clips | None = None

    def add(self, clips: Clips) -> None:
        """Add clips, and forget the oldest beyond the size."""
        self.clips = join(self.clips, clips)[-self.size :]

    def state_dict(self) -> dict[str, Any]:
        return {"clips": None if self.clips is None else self.clips.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.clips = None if state["clips"] is None else clips_of(state["clips"])


def episode_length(environments: Environments) -> int:
    """Return the time limit, in steps. InputError for an environment without one."""
    spec = environments.envs[0].spec
    if spec is None or spec.max_episode_steps is None:
        hint = "give one: --env-options max_episode_steps=200"
        raise InputError("has no time limit, which comparisons of clips need", environments.name, hint)
    return int(spec.max_episode_steps)


def predictors_read_actions(options: ComparisonOptions, environments: Environments) -> bool:
    """Return whether a reward is of the action too: by default of a discrete one. InputError for continuous actions
    beside an image."""
    spaces = environments.spaces
    if options.reward_inputs is None:
        return spaces.is_discrete
    if options.reward_inputs == WITH_ACTIONS and spaces.is_image and not spaces.is_discrete:
        problem = "a reward predictor of images does not read continuous actions"
        raise InputError(problem, environments.name, "give --reward-inputs observations")
    return options.reward_inputs == WITH_ACTIONS


def clip_length(environments: Environments) -> int:
    """Return the steps in a second of an environment's time; SECOND_STEPS where it has none."""
    frames = environments.envs[0].unwrapped.metadata.get("render_fps")
    return min(int(frames or SECOND_STEPS), episode_length(environments))


def pictures_of(environments: Environments, rollout: Rollout) -> NDArray:
    """Return what each step of a rollout is drawn from, [T, E, P]."""
    if isinstance(environments, RecordedEnvironments):
        return environments.take_pictures()
    return np.zeros((*rollout.rewards.shape, 0), np.float32)
