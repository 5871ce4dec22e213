"""Returns of agents on true reward, beside published figures.

    python -m benchmarks.control_curves                                # CartPole, Acrobot, Pendulum: three seeds each
    python -m benchmarks.control_curves --tasks ppo-hopper ppo-halfcheetah ppo-lunarlander

Each task is a run of `amenable control`; its options are in the table below: those of the published figure, as far as
there are such options here. A figure is the mean return of the last 100 episodes of training (as cleanrl's) or of
episodes by the likeliest actions (as rl-baselines3-zoo's). Ours is over seeds, with a 95 % interval.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from amenable.functional.statistics import mean_interval
from amenable.stages import control
from amenable.stages.control import Config

CLEANRL = "cleanrl, docs/rl-algorithms/ppo.md (mean and deviation over seeds)"
CLEANRL_MUJOCO = "cleanrl, benchmark/ppo_continuous_action.md (mean and deviation over seeds)"
ZOO = "rl-baselines3-zoo, benchmark.md (one agent; mean and deviation over episodes)"
Measure = Literal["episode/return", "eval/return"]


@dataclass(frozen=True)
class Task:
    """A run and the published figure of its kind."""

    config: Config
    published: str
    source: str
    measure: Measure


SMALL = Config(num_envs=4, num_steps=128, minibatch_size=128, num_epochs=4, learning_rate=2.5e-4, entropy_coef=0.01)
"""cleanrl's settings of ppo.py"""
SWING = Config(env="Pendulum-v1", num_envs=4, gamma=0.9, total_timesteps=100_000)
RAW_SWING = replace(SWING, normalize_observations=False, scale_rewards=False)
TASKS = {
    "ppo-cartpole": Task(replace(SMALL, total_timesteps=500_000), "490.04 ± 6.12", CLEANRL, "episode/return"),
    "ppo-acrobot": Task(
        replace(SMALL, env="Acrobot-v1", total_timesteps=500_000), "-86.36 ± 1.32", CLEANRL, "episode/return"
    ),
    "ppo-pendulum": Task(replace(RAW_SWING, num_steps=1024, learning_rate=1e-3), "-172.2 ± 104.2", ZOO, "eval/return"),
    "ppo-lunarlander": Task(
        replace(
            SMALL,
            env="LunarLander-v3",
            num_envs=16,
            num_steps=1024,
            minibatch_size=64,
            gamma=0.999,
            lam=0.98,
            learning_rate=3e-4,
            total_timesteps=1_000_000,
        ),
        "242.1 ± 31.8 (v2)",
        ZOO,
        "eval/return",
    ),
    "ppo-hopper": Task(
        Config(env="Hopper-v5", total_timesteps=1_000_000), "2,382.86 ± 271.74 (v4)", CLEANRL_MUJOCO, "episode/return"
    ),
    "ppo-halfcheetah": Task(
        Config(env="HalfCheetah-v5", total_timesteps=1_000_000),
        "1,442.64 ± 46.03 (v4)",
        CLEANRL_MUJOCO,
        "episode/return",
    ),
    "trpo-cartpole": Task(
        Config(algorithm="trpo", num_envs=2, num_steps=512, total_timesteps=100_000), "500 ± 0", ZOO, "eval/return"
    ),
    "trpo-pendulum": Task(
        replace(RAW_SWING, algorithm="trpo", num_envs=2, num_steps=1024, final_lr_frac=1.0, total_timesteps=300_000),
        "-174.6 ± 127.6 (100,000 steps, gSDE)",
        ZOO,
        "eval/return",
    ),
    "a2c-cartpole": Task(Config(algorithm="a2c", total_timesteps=500_000), "500 ± 0", ZOO, "eval/return"),
    "a2c-pendulum": Task(
        replace(SWING, algorithm="a2c", num_envs=8, num_steps=8, lam=0.9, total_timesteps=1_000_000),
        "-163.0 ± 103.2",
        ZOO,
        "eval/return",
    ),
    "reinforce-cartpole": Task(
        Config(algorithm="reinforce", total_timesteps=500_000), "none", "no source", "eval/return"
    ),
    "reinforce-pendulum": Task(
        replace(SWING, algorithm="reinforce", total_timesteps=500_000), "none", "no source", "eval/return"
    ),
}
DEFAULT = [name for name in TASKS if name.split("-")[1] in ("cartpole", "acrobot", "pendulum")]


def line(name: str, values: list[float]) -> str:
    """Return a row of the table: steps, ours with its interval, the published figure and its source."""
    task = TASKS[name]
    mean, low, high = mean_interval(torch.tensor(values))
    interval = f" ({low:,.1f} to {high:,.1f})" if len(values) > 1 else ""
    steps = f"{task.config.total_timesteps:,}"
    return f"| {name} | {steps} | {mean:,.1f}{interval} | {task.published} | {task.measure}; {task.source} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=DEFAULT)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/control-curves"))
    arguments = parser.parse_args()
    print("| task | steps | ours | published | what, and where |\n|---|--:|--:|--:|---|")
    for name in arguments.tasks:
        task, values = TASKS[name], []
        for seed in range(arguments.seeds):
            out = control.run(replace(task.config, seed=seed, out=arguments.out / name / str(seed), eval_episodes=100))
            values.append(json.loads((out / "finished.json").read_text())[task.measure])
        print(line(name, values), flush=True)


if __name__ == "__main__":
    main()
