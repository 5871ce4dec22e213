"""A real chat model's reward model on real preferences: its accuracy against the number of pairs, and a policy on it.

    python -m benchmarks.real_preferences --model models/smollm2 --data hh/train.jsonl.gz --test hh/test.jsonl.gz

Reward models from the chat model's body, all weights and adapters, on the first 400, 1,200 ... pairs of the data. The
table has their accuracy on held-out pairs, beside "the longer answer wins" on the same pairs, and the gap between
predicted and actual accuracy. With --policy one half of the pairs trains a reward model, RLOO an adapter on it, and a
reward model of the other half, which nothing was trained on, judges the policy's answers to the test prompts, paired.
Pairs of another kind (`--other`) show how far a reward model carries. Stopped and started again, it goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

from amenable.claims.verdicts import paired
from amenable.data import sources
from amenable.data.batches import shuffled
from amenable.data.files import read_json_lines, read_json_rows
from amenable.functional.statistics import Z95
from amenable.models.lora import LoraOptions
from amenable.recipes.from_scratch import write_once
from amenable.recipes.pipeline import StageRun, run_all, stage_runs
from amenable.stages import evaluate, reward, rloo
from amenable.train import loading
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Device, DeviceOptions

Row = dict[str, Any]
HALVES = ("first", "second")
PROMPTS = 200
"""prompts of the test file that the policy answers"""


@dataclass(frozen=True)
class Config:
    """Measure reward models of a chat model on real preferences."""

    model: Path = Path("models/smollm2")
    """folder of a chat model; `amenable get smollm2` makes the default"""
    data: Path = Path("train.jsonl")
    """pairs to train on"""
    test: Path = Path("test.jsonl")
    """held-out pairs of the same kind"""
    other: Path | None = None
    """held-out pairs of another kind"""
    pairs: tuple[int, ...] = (400, 1200, 3300)
    """numbers of pairs trained on, each with a reward model"""
    adapters: tuple[bool, ...] = (False, True)
    """all weights, and LoRA of rank 16"""
    policy: bool = False
    """train a policy on a reward model of half of the pairs as well"""
    out: Path = Path("runs/real-preferences")
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)


def main(config: Config) -> None:
    """Train the reward models, and the policy with --policy, and print the table."""
    loading.require_model(config.model, "amenable get smollm2")
    runs = curve(config)
    if config.policy:
        write_halves(config)
        runs += policy_runs(config)
    run_all([StageRun(replace(each.config, device=config.device)) for each in runs])
    for line in [*table(config), *(policy_lines(config) if config.policy else [])]:
        print(line)


def curve(config: Config) -> list[StageRun]:
    """Return a reward model for each number of pairs, of all weights and of adapters."""
    models = {name(count, lora): reward_model(config, config.data, count, lora) for count, lora in settings(config)}
    return stage_runs(config.out, config.seed, models)


def settings(config: Config) -> list[tuple[int, bool]]:
    """Return (number of pairs, True for adapters) of every reward model."""
    return [(count, lora) for lora in config.adapters for count in config.pairs]


def name(count: int, lora: bool) -> str:
    """Return the folder's name of a reward model."""
    return f"{'lora' if lora else 'all'}-{count}"


def reward_model(config: Config, data: Path, count: int, lora: bool) -> reward.Config:
    """Return the training of a reward model on the first pairs of a file; all weights at the study's learning rate."""
    weights: dict[str, Any] = (
        {"lora": LoraOptions(rank=16)} if lora else {"optimizer": OptimizerConfig(learning_rate=2e-5)}
    )
    return reward.Config(
        model=config.model,
        data=(data,),
        validation=config.test,
        heldout_annotators=config.other,
        max_prompts=count,
        **weights,
    )


def table(config: Config) -> Iterator[str]:
    """Yield the lines of the learning curve: accuracy on the test pairs with its interval, and what it is beside."""
    sets = {"validation": "held out"} | ({"heldout": config.other.name} if config.other else {})
    yield "weights  pairs  accuracy                   on                the longer wins  predicted less actual"
    for count, lora in settings(config):
        finished = json.loads((config.out / name(count, lora) / "finished.json").read_text("utf-8"))
        for key, title in sets.items():
            row, bins = finished[key], finished[key]["calibration"]
            accuracy = f"{row['accuracy']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
            gaps = [abs(each["predicted"] - each["actual"]) * each["count"] / row["pairs"] for each in bins]
            start = f"{'LoRA' if lora else 'all':7}  {count:5}  {accuracy:25}  {title:16}"
            yield f"{start}  {row['longer_wins']:15.3f}  {sum(gaps):.3f}"


def write_halves(config: Config) -> None:
    """Write each half of the pairs, by prompt, and prompts of the test pairs, once."""
    rows = [row for _, row in read_json_rows(config.data, "")]
    order = shuffled(len(rows), config.seed, 0)
    for half, chosen in zip(HALVES, (order[: len(rows) // 2], order[len(rows) // 2 :])):
        write_once(config.out / f"{half}.jsonl", [config.data], len(rows), partial(iter, [rows[i] for i in chosen]))
    rankings = sources.read_rankings(config.test).rows[:PROMPTS]
    prompts = [
        {"prompt": [{"role": turn.role, "content": turn.content} for turn in ranking.prompt]} for ranking in rankings
    ]
    write_once(config.out / "prompts.jsonl", [config.test], len(prompts), partial(iter, prompts))


def policy_runs(config: Config) -> list[StageRun]:
    """Return a reward model of each half, a policy on the first's, and its evaluation by the second's."""
    prompts = config.out / "prompts.jsonl"
    stages: dict[str, Any] = {
        f"reward-{half}": reward_model(config, config.out / f"{half}.jsonl", 0, True) for half in HALVES
    }
    stages["policy"] = rloo.Config(
        model=config.model,
        reward=(str(config.out / "reward-first"),),
        eval_reward_model=(str(config.out / "reward-second"),),
        data=config.out / "first.jsonl",
        lora=LoraOptions(rank=16),
        optimizer=OptimizerConfig(learning_rate=3e-4, eps=1e-5),
        prompts_per_step=8,
        num_generations=8,
        max_steps=30,
        max_new_tokens=64,
        temperature=0.8,
        kl_in="loss",
        kl_coef=0.05,
        adaptive_kl_target=0.0,
        num_traced_prompts=0,
        warmup_steps=1,
    )
    stages["evaluate"] = evaluate.Config(
        models=(f"base={config.model}", f"policy={config.out / 'policy'}"),
        data=prompts,
        reward=(str(config.out / "reward-second"),),
        reference="base",
        temperature=0.8,
        max_new_tokens=64,
    )
    return stage_runs(config.out, config.seed, stages)


def policy_lines(config: Config) -> Iterator[str]:
    """Yield the policy's reward by the other half's reward model over the first model's, paired over prompts."""
    rows = read_json_lines(config.out / "evaluate" / "samples.jsonl")
    for decoding in ("sampled", "greedy"):
        gain, words = (difference(rows, decoding, key) for key in ("reward", "tokens"))
        yield f"policy, {decoding}: reward of the other half {gain}; tokens {words}"


def difference(rows: Sequence[Row], decoding: str, key: str) -> str:
    """Return the mean change of a figure from the first model's answers to the policy's, with its interval."""
    values = [[float(row["answers"][model][decoding][key]) for row in rows] for model in ("policy", "base")]
    estimate = paired(*(torch.tensor(column) for column in values))
    half = Z95 * estimate.error
    return f"{estimate.value:+.3f} ({estimate.value - half:.3f} to {estimate.value + half:.3f})"


if __name__ == "__main__":
    main(tyro.cli(Config))
