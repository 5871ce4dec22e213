"""A real chat model's reward model on real preferences: its accuracy against the number of pairs, and a policy on it.

    python -m benchmarks.real_preferences --model models/smollm2 --data hh/train.jsonl.gz --test hh/test.jsonl.gz

Reward models from the chat model's body, all weights and adapters, in one pass over the pairs that stops after 400,
1,200 ... of them: each goes on from the one before with the pairs that follow, at a constant learning rate, and with
adapters of its own. The table has their accuracy on held-out pairs, beside "the longer answer wins" on the same pairs,
and the gap between predicted and actual accuracy. With --policy RLOO trains adapters on the reward model that has read
about half of the pairs, and a reward model of the other pairs alone judges the policy's answers to the test prompts,
paired. Pairs of another kind (`--other`) show how far a reward model carries. Stopped and started again, it goes on.
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
REST = "after-half"
"""name of the pairs that the policy's reward model has not read, and of the reward model that has"""
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
    pairs: tuple[int, ...] = (400, 1200, 1650, 3300)
    """numbers of pairs that a reward model has read, rising"""
    adapters: tuple[bool, ...] = (False, True)
    """all weights, and LoRA of rank 16"""
    policy: bool = False
    """train a policy on the adapters that have read about half of the pairs as well"""
    out: Path = Path("runs/real-preferences")
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)

    @property
    def half(self) -> int:
        """The number of pairs nearest to half of them: what the policy's reward model has read."""
        return min(self.pairs, key=lambda count: abs(count - max(self.pairs) / 2))


def main(config: Config) -> None:
    """Train the reward models, and the policy with --policy, and print the table."""
    loading.require_model(config.model, "amenable get smollm2")
    write_parts(config)
    runs = curve(config)
    if config.policy:
        runs += policy_runs(config)
    run_all([StageRun(replace(each.config, device=config.device)) for each in runs])
    for line in [*table(config), *(policy_lines(config) if config.policy else [])]:
        print(line)


def write_parts(config: Config) -> None:
    """Write the pairs that each reward model adds to those of the one before, in an order drawn by the seed, those that
    come after the policy's half, and prompts of the test pairs, once."""
    rows = [row for _, row in read_json_rows(config.data, "")]
    order = shuffled(len(rows), config.seed, 0)
    ranges = {f"pairs-{count}": (start, count) for start, count in zip((0, *config.pairs), config.pairs)}
    for file, (start, end) in {**ranges, REST: (config.half, max(config.pairs))}.items():
        part = partial(iter, [rows[i] for i in order[start:end]])
        write_once(config.out / f"{file}.jsonl", [config.data], len(rows), part)
    rankings = sources.read_rankings(config.test).rows[:PROMPTS]
    prompts = [
        {"prompt": [{"role": turn.role, "content": turn.content} for turn in ranking.prompt]} for ranking in rankings
    ]
    write_once(config.out / "prompts.jsonl", [config.test], len(prompts), partial(iter, prompts))


def curve(config: Config) -> list[StageRun]:
    """Return a reward model for each number of pairs, of all weights and of adapters."""
    models = dict[str, Any]()
    for count, lora in settings(config):
        before = [each for each in config.pairs if each < count]
        model = config.out / name(before[-1], lora) if before else config.model
        models[name(count, lora)] = reward_model(config, model, config.out / f"pairs-{count}.jsonl", lora)
    return stage_runs(config.out, config.seed, models)


def settings(config: Config) -> list[tuple[int, bool]]:
    """Return (number of pairs, True for adapters) of every reward model."""
    return [(count, lora) for lora in config.adapters for count in config.pairs]


def name(count: int, lora: bool) -> str:
    """Return the folder's name of a reward model."""
    return f"{'lora' if lora else 'all'}-{count}"


def reward_model(config: Config, model: Path, data: Path, lora: bool) -> reward.Config:
    """Return the training of a reward model on all pairs of a file; all weights at the study's learning rate."""
    weights: dict[str, Any] = (
        {"lora": LoraOptions(rank=16)} if lora else {"optimizer": OptimizerConfig(learning_rate=2e-5)}
    )
    return reward.Config(
        model=model,
        data=(data,),
        validation=config.test,
        heldout_annotators=config.other,
        final_lr_frac=1.0,
        attack_queries=0,
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


def policy_runs(config: Config) -> list[StageRun]:
    """Return a policy on the adapters of half of the pairs, a reward model of the others, and the policy's evaluation
    by that."""
    stages: dict[str, Any] = {REST: reward_model(config, config.model, config.out / f"{REST}.jsonl", True)}
    stages["policy"] = rloo.Config(
        model=config.model,
        reward=(str(config.out / name(config.half, True)),),
        eval_reward_model=(str(config.out / REST),),
        data=tuple(config.out / f"pairs-{count}.jsonl" for count in config.pairs if count <= config.half),
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
        data=config.out / "prompts.jsonl",
        reward=(str(config.out / REST),),
        reference="base",
        temperature=0.8,
        max_new_tokens=64,
    )
    return stage_runs(config.out, config.seed, stages)


def policy_lines(config: Config) -> Iterator[str]:
    """Yield the policy's reward by the reward model of the other pairs over the first model's, paired over prompts."""
    rows = read_json_lines(config.out / "evaluate" / "samples.jsonl")
    for decoding in ("sampled", "greedy"):
        gain, words = (difference(rows, decoding, key) for key in ("reward", "tokens"))
        yield f"policy, {decoding}: reward by the other pairs {gain}; tokens {words}"


def difference(rows: Sequence[Row], decoding: str, key: str) -> str:
    """Return the mean change of a figure from the first model's answers to the policy's, with its interval."""
    values = [[float(row["answers"][model][decoding][key]) for row in rows] for model in ("policy", "base")]
    estimate = paired(*(torch.tensor(column) for column in values))
    half = Z95 * estimate.error
    return f"{estimate.value:+.3f} ({estimate.value - half:.3f} to {estimate.value + half:.3f})"


if __name__ == "__main__":
    main(tyro.cli(Config))
