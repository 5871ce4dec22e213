"""The peer's side of benchmarks/control_imitation.py: imitation's preference comparisons, as its tutorial sets them up.

.venv-peers-imitation/bin/python benchmarks/peer_imitation.py '{"env": "Pendulum-v1", ...}'
"""

from __future__ import annotations

import json
import sys
import tempfile
import time

import gymnasium
import numpy as np
import torch
from imitation.algorithms import preference_comparisons
from imitation.policies.base import FeedForward32Policy, NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import BasicRewardNet
from imitation.util import logger
from imitation.util.networks import RunningNorm
from imitation.util.util import make_vec_env
from seals.util import AbsorbAfterDoneWrapper
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy

NAME = "FixedLength-v0"


def main(work: dict) -> None:
    """Print the mean true return of the trained policy, labels, steps, and seconds of the clock and the processor."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(work["seed"])
    torch.manual_seed(work["seed"])

    def make() -> gymnasium.Env:
        return AbsorbAfterDoneWrapper(gymnasium.make(work["env"]).unwrapped)

    gymnasium.register(NAME, entry_point=make, max_episode_steps=work["episode_steps"], disable_env_checker=True)
    begun, processor = time.perf_counter(), time.process_time()
    venv = make_vec_env(NAME, rng=rng, n_envs=work["num_envs"])
    reward = BasicRewardNet(venv.observation_space, venv.action_space, normalize_input_layer=RunningNorm)
    agent = PPO(
        FeedForward32Policy,
        venv,
        policy_kwargs={
            "features_extractor_class": NormalizeFeaturesExtractor,
            "features_extractor_kwargs": {"normalize_class": RunningNorm},
        },
        n_steps=work["num_steps"],
        batch_size=work["minibatch_size"],
        n_epochs=10,
        gamma=work["gamma"],
        learning_rate=work["learning_rate"],
        clip_range=0.1,
        ent_coef=0.01,
        gae_lambda=0.95,
        seed=work["seed"],
        device="cpu",
    )
    log = logger.configure(tempfile.mkdtemp(), format_strs=[])
    trainer = preference_comparisons.BasicRewardTrainer(
        preference_comparisons.PreferenceModel(reward),
        loss=preference_comparisons.CrossEntropyRewardLoss(),
        epochs=3,
        rng=rng,
    )
    rollout = work["num_envs"] * work["num_steps"]
    iterations = work["steps"] // rollout - 1  # it trains once more than that, after the labels before training
    comparisons = preference_comparisons.PreferenceComparisons(
        preference_comparisons.AgentTrainer(agent, reward, venv, rng, exploration_frac=0.05, custom_logger=log),
        reward,
        num_iterations=iterations,
        fragmenter=preference_comparisons.RandomFragmenter(rng=rng, warning_threshold=0),
        preference_gatherer=preference_comparisons.SyntheticGatherer(temperature=0, rng=rng),
        reward_trainer=trainer,
        fragment_length=work["clip_steps"],
        initial_epoch_multiplier=4,
        query_schedule="hyperbolic",
        custom_logger=log,
    )
    comparisons.train(iterations * rollout, work["labels"])
    seconds, processor = time.perf_counter() - begun, time.process_time() - processor
    test = make_vec_env(NAME, rng=np.random.default_rng(1000 + work["seed"]), n_envs=10)
    mean, _ = evaluate_policy(agent, test, work["episodes"], deterministic=True)
    facts = {"return": float(mean), "labels": len(comparisons.dataset), "steps": int(agent.num_timesteps)}
    print(json.dumps({**facts, "seconds": seconds, "processor": processor}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
