"""The peer's side of benchmarks/control.py: stable-baselines3's PPO, with the same settings.

.venv-peers-control/bin/python benchmarks/peer_control.py '{"env": "CartPole-v1", ...}'
"""

from __future__ import annotations

import json
import sys
import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize


def main(work: dict) -> None:
    """Print seconds, processor seconds and steps after the first rollout, and the return of the last episodes."""
    torch.set_num_threads(work["threads"])
    env = make_vec_env(work["env"], work["num_envs"], seed=work["seed"])
    env = VecNormalize(env, gamma=work["gamma"])
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=work["learning_rate"],
        n_steps=work["num_steps"],
        batch_size=work["minibatch_size"],
        n_epochs=work["num_epochs"],
        gamma=work["gamma"],
        gae_lambda=work["lam"],
        seed=work["seed"],
        device="cpu",
    )
    rollout = work["num_envs"] * work["num_steps"]
    model.learn(rollout)
    begun, processor = time.perf_counter(), time.process_time()
    model.learn(work["steps"] - rollout, reset_num_timesteps=False)
    seconds, processor = time.perf_counter() - begun, time.process_time() - processor
    returns = [episode["r"] for episode in model.ep_info_buffer]
    mean = sum(returns) / len(returns) if returns else None
    print(json.dumps({"seconds": seconds, "processor": processor, "steps": work["steps"] - rollout, "return": mean}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
