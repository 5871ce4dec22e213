"""A real chat model's reward model on real preferences: its accuracy against the number of pairs, and a policy on it.

    python -m benchmarks.real_preferences --model models/smollm2 --data hh/train.jsonl.gz --test hh/test.jsonl.gz

Reward models from the chat model's body in one pass over the pairs that stops after 400, 1,650 ... of them: each goes
on from the one before with the pairs that follow, at a constant learning rate. Adapters (a set for each stop) read the
pairs in one order and all weights from its other end, so that after half of them the two have no pair in common. The
table has their accuracy on held-out pairs, beside "the longer answer wins" on the same pairs, and the gap between
predicted and actual accuracy. With --policy RLOO trains adapters on the reward model of adapters that has read half of
the pairs, and the one of all weights, which has read the others, judges the policy's answers to the test prompts,
paired. Stopped and started again, it goes on. `amenable compare OUT/lora-3300 OUT/all-3300 --data PAIRS` has the last
reward models on pairs of another kind.
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
from amenable.data.types import Message
from amenable.functional.statistics import Z95
from amenable.models.lora import LoraOptions
from amenable.recipes.from_scratch import write_once
from amenable.recipes.pipeline import StageRun, run_all, stage_runs
from amenable.stages import evaluate, reward, rloo
from amenable.train import loading, plan
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Device, DeviceOptions

Row = dict[str, Any]
FEW = 32
"""chosen answers whose mean reward is 0; test pairs that a stage attacks"""
PROMPTS = 150
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
    pairs: tuple[int, ...] = (400, 1650, 3300)
    """numbers of pairs that a reward model has read, rising"""
    adapters: tuple[bool, ...] = (False, True)
    """all weights, and LoRA of rank 16"""
    policy: bool = False
    """train a policy on the adapters that have read half of the pairs as well"""
    parallel: int = 2
    """stages side by side, each on a core"""
    out: Path = Path("runs/real-preferences")
    seed: int = 0
    device: Device = field(default_factory=DeviceOptions)

    def __post_init__(self) -> None:
        alone = self.policy and (len(set(self.adapters)) < 2 or 2 * min(self.pairs) > max(self.pairs))
        hint = "a policy needs --adapters False True, and --pairs with at most half of the last number among them"
        plan.forbid(alone, "policy is True without a reward model of other pairs as its judge", hint)

    @property
    def half(self) -> int:
        """The largest number of pairs that two reward models can read without one in common."""
        return max(count for count in self.pairs if 2 * count <= max(self.pairs))


def main(config: Config) -> None:
    """Train the reward models, and the policy with --policy, and print the table."""
    loading.require_model(config.model, "amenable get smollm2")
    write_parts(config)
    runs = curve(config)
    if config.policy:
        runs += policy_runs(config)
    run_all([StageRun(replace(each.config, device=config.device)) for each in runs], config.parallel)
    for line in [*table(config), *(policy_lines(config) if config.policy else [])]:
        print(line)


def write_parts(config: Config) -> None:
    """Write the pairs that each reward model adds to those of the one before, in an order drawn by the seed and from
    its other end, the chosen answers whose mean reward is 0, the test pairs that a stage attacks, and prompts of the
    test pairs, once."""
    rows = [row for _, row in read_json_rows(config.data, "")]
    order = shuffled(len(rows), config.seed, 0)[: max(config.pairs)]
    for lora, indices in ((True, order), (False, order[::-1])):
        for start, end in zip((0, *config.pairs), config.pairs):
            part = partial(iter, [rows[i] for i in indices[start:end]])
            write_once(pairs_file(config, end, lora), [config.data], len(rows), part)
    chosen = [
        {"messages": [*messages(ranking.prompt), {"role": "assistant", "content": ranking.completions[0]}]}
        for ranking in sources.read_rankings(pairs_file(config, config.pairs[0], True)).rows[:FEW]
    ]
    write_once(config.out / "demonstrations.jsonl", [config.data], len(chosen), partial(iter, chosen))
    few = [row for _, row in read_json_rows(config.test, "")][:FEW]
    write_once(config.out / "attacked.jsonl", [config.test], len(few), partial(iter, few))
    rankings = sources.read_rankings(config.test).rows[:PROMPTS]
    prompts = [{"prompt": messages(ranking.prompt)} for ranking in rankings]
    write_once(config.out / "prompts.jsonl", [config.test], len(prompts), partial(iter, prompts))


def pairs_file(config: Config, count: int, lora: bool) -> Path:
    """Return the file of the pairs that make those of a reward model `count`."""
    return config.out / f"{'pairs' if lora else 'reversed'}-{count}.jsonl"


def messages(turns: Sequence[Message]) -> list[dict[str, str]]:
    """Return turns as files have them."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def curve(config: Config) -> list[StageRun]:
    """Return a reward model for each number of pairs, of all weights and of adapters."""
    models = dict[str, Any]()
    for count, lora in settings(config):
        before = [each for each in config.pairs if each < count]
        model = config.out / name(before[-1], lora) if before else config.model
        models[name(count, lora)] = reward_model(config, model, pairs_file(config, count, lora), lora)
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
        validation=config.out / "attacked.jsonl",
        heldout_annotators=config.test,
        demonstrations=config.out / "demonstrations.jsonl",
        final_lr_frac=1.0,
        attack_queries=0,
        **weights,
    )


def table(config: Config) -> Iterator[str]:
    """Yield the lines of the learning curve: accuracy on the test pairs with its interval, and what it is beside."""
    yield "weights  pairs  accuracy                   the longer wins  predicted less actual"
    for count, lora in settings(config):
        row = json.loads((config.out / name(count, lora) / "finished.json").read_text("utf-8"))["heldout"]
        share = f"{row['accuracy']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        yield f"{'LoRA' if lora else 'all':7}  {count:5}  {share:25}  {row['longer_wins']:15.3f}  {row['ece']:.3f}"


def policy_runs(config: Config) -> list[StageRun]:
    """Return a policy on the adapters of half of the pairs, and its evaluation by all weights on the other half."""
    judge = str(config.out / name(config.half, False))
    policy = rloo.Config(
        model=config.model,
        reward=(str(config.out / name(config.half, True)),),
        data=tuple(pairs_file(config, count, True) for count in config.pairs if count <= config.half),
        lora=LoraOptions(rank=16),
        optimizer=OptimizerConfig(learning_rate=3e-4, eps=1e-5),
        prompts_per_step=8,
        num_generations=8,
        max_steps=12,
        max_new_tokens=64,
        temperature=0.8,
        kl_in="loss",
        kl_coef=0.05,
        adaptive_kl_target=0.0,
        num_traced_prompts=0,
        warmup_steps=1,
    )
    evaluation = evaluate.Config(
        models=(f"base={config.model}", f"policy={config.out / 'policy'}"),
        data=config.out / "prompts.jsonl",
        reward=(judge,),
        reference="base",
        temperature=0.8,
        max_new_tokens=64,
    )
    return stage_runs(config.out, config.seed, {"policy": policy, "evaluate": evaluation})


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
