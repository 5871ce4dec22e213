"""Returns of agents that learned from comparisons of clips, beside those of agents that learned from the true reward.

    python -m benchmarks.control_preferences                                 # CartPole, Pendulum, Acrobot; five seeds
    python -m benchmarks.control_preferences --ablations --tasks pendulum    # what the method is made of, left out
    python -m benchmarks.control_preferences --tasks hopper --labels 700 1400 --seeds 1

Both learn by the same steps of the same algorithm in episodes of fixed length, comparisons by the answers of a judge
who goes by the true reward, 500 unless --labels says otherwise. The share is (comparisons - untrained) / (true reward -
untrained), of mean returns of episodes by the likeliest actions, a number a seed; intervals are over seeds. Stopped and
started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from amenable.control.normalization import ObservationNormalizer
from amenable.control.policies import Policy
from amenable.control.preference_training import PROBES
from amenable.control.rollout import collect
from amenable.functional.statistics import concordance, mean_interval, spearman
from amenable.seeds import seeded_generator
from amenable.stages import control
from amenable.stages.control import Config

POLE = Config(num_envs=8, num_steps=256, minibatch_size=256, num_epochs=10, learning_rate=3e-4)
TASKS = {
    "cartpole": replace(
        POLE, env="CartPole-v1", env_options=("max_episode_steps=200",), clip_steps=20, total_timesteps=200_000
    ),
    "pendulum": replace(POLE, env="Pendulum-v1", gamma=0.9, learning_rate=1e-3, total_timesteps=200_000),
    "acrobot": replace(POLE, env="Acrobot-v1", entropy_coef=0.01, total_timesteps=300_000),
    "hopper": Config(env="Hopper-v5", total_timesteps=500_000),
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "random queries": {"query_strategy": "random"},
    "one predictor": {"ensemble_size": 1, "query_strategy": "random"},
    "all labels before training": {"first_labels": 1.0},
    "no noise in the likelihood": {"label_noise": 0.0},
    "no weight decay": {"reward_weight_decay": 0.0},
    "reward of observations": {"reward_inputs": "observations"},
    "reward of observations and actions": {"reward_inputs": "observations_and_actions"},
}
"""what Christiano et al. (2017, section 3.3) leave out, and what the reward is of: one of the two is the default"""


@dataclass(frozen=True)
class Row:
    """Figures of one way to learn a task, a number a seed."""

    task: str
    way: str
    returns: list[float]
    shares: list[float]
    spearman: list[float]
    """rank correlation of learned and true returns of clips"""
    concordance: list[float]
    """share of the pairs of clips with different true returns that the learned ones order alike"""

    def __str__(self) -> str:
        columns = (self.returns, self.shares, self.spearman, self.concordance)
        return f"| {self.task} | {self.way} | {' | '.join(map(interval, columns))} |"


def interval(values: list[float]) -> str:
    """Return the mean of some numbers with its 95 % interval; a dash for none."""
    if len(values) < 2:
        return f"{values[0]:,.2f}" if values else "–"
    mean, low, high = mean_interval(torch.tensor(values))
    return f"{mean:,.2f} ({low:,.2f} to {high:,.2f})"


def untrained_return(config: Config) -> float:
    """Return the mean return of episodes by the actions of an untrained policy."""
    copies = control.make_environments(config, 20, config.seed)
    spaces = copies.spaces
    generator = seeded_generator(config.seed, "policy")
    policy = Policy(spaces.shape, spaces.num_actions, spaces.is_discrete, generator=generator)
    collect(copies, policy, ObservationNormalizer(spaces.shape, False), 0, seeded_generator(config.seed), True)
    return sum(value for value, _ in copies.finished) / len(copies.finished)


def results(config: Config, out: Path) -> dict[str, Any]:
    """Run a configuration, unless it has been, and return its facts."""
    folder = control.run(replace(config, out=out, save_steps=0))
    return json.loads((folder / "finished.json").read_text("utf-8"))


def ways_of(labels: Sequence[int], ablations: bool) -> dict[str, dict[str, Any]]:
    """Return options of the ways to learn from comparisons, by name: each number of labels, and with `ablations` the
    first of them with a part of the method left out."""
    ways = {f"{count} comparisons": {"max_labels": count} for count in labels}
    return ways | {name: {**left_out, "max_labels": labels[0]} for name, left_out in ABLATIONS.items() if ablations}


def clip_returns(folder: Path) -> list[torch.Tensor]:
    """Return learned and true returns of the clips on which a run compares the two."""
    clips = json.loads((folder / PROBES).read_text("utf-8"))
    return [torch.tensor(clips[name]) for name in ("learned", "true")]


def compare(name: str, seeds: int, ways: dict[str, dict[str, Any]], out: Path) -> list[Row]:
    """Return a row of the true reward, and one of each way to learn from comparisons."""
    true, untrained, rows = list[float](), list[float](), list[Row]()
    for seed in range(seeds):
        config = replace(TASKS[name], seed=seed, eval_episodes=50, fixed_length=True)
        untrained.append(untrained_return(config))
        true.append(results(config, out / name / "reward" / str(seed))["eval/return"])
    rows = [Row(name, "untrained", untrained, [], [], []), Row(name, "true reward", true, [], [], [])]
    for way, changes in ways.items():
        folders = [out / name / way.replace(" ", "-") / str(seed) for seed in range(seeds)]
        facts = [
            results(
                replace(TASKS[name], seed=seed, eval_episodes=50, learn_from="comparisons", **changes), folders[seed]
            )
            for seed in range(seeds)
        ]
        returns = [each["eval/return"] for each in facts]
        shares = [(a - c) / (b - c) for a, b, c in zip(returns, true, untrained)]
        clips = [clip_returns(folder) for folder in folders]
        agreements = [[measure(*each) for each in clips] for measure in (spearman, concordance)]
        rows.append(
            Row(name, way, returns, shares, *([v for v in values if not math.isnan(v)] for values in agreements))
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["cartpole", "pendulum", "acrobot"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, nargs="+", default=[500], help="answers of the judge")
    parser.add_argument("--ablations", action="store_true", help="also leave out parts of the method")
    parser.add_argument("--out", type=Path, default=Path("runs/control-preferences"))
    arguments = parser.parse_args()
    ways = ways_of(arguments.labels, arguments.ablations)
    heads = ("task", "way", "return", "share of the true reward's", "Spearman", "concordance")
    print(f"| {' | '.join(heads)} |\n|---|---|--:|--:|--:|--:|")
    for name in arguments.tasks:
        for row in compare(name, arguments.seeds, ways, arguments.out):
            print(row, flush=True)


if __name__ == "__main__":
    main()
