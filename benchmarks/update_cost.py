"""Time of an online algorithm's updates over that of the same updates written by hand.

    python -m benchmarks.update_cost --size 5M --threads 1

By hand: the policy's log-probabilities and entropies pass by pass, the loss as a formula, backward, the same optimizer;
no loop, no other statistics, no checks. Advantages are given. Ours is all that a step does after sampling: advantages,
metrics, updates. Both compute the same gradient (a test compares weights), in turn, on the same answers, at a learning
rate of 0 so that every repeat has the same work; the table has medians of the ratio, of the processor's seconds, which
hardly depend on what else the machine does.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, Literal

import torch
import tyro
from torch import Tensor

from amenable.errors import InputError
from amenable.functional import kl
from amenable.rl.critic import critic_optimizer
from amenable.rl.experience import Experience
from amenable.stages import a2c, grpo, reinforce, rloo
from amenable.train import defaults, forward, plan
from amenable.train.defaults import traits_of
from amenable.train.optimizer import Optimizer
from amenable.train.runtime import DeviceOptions, Runtime, start_runtime
from benchmarks import machine
from benchmarks.workloads import (
    SIZES,
    Size,
    SizeName,
    learn,
    make_policy,
    prompt_lengths,
    sample_and_score,
    scalar_model,
    sequences,
)

GROUP = 4
"""answers to a prompt"""


@dataclass(frozen=True)
class Config:
    """Measure the cost of the algorithms over updates by hand."""

    only: str = ""
    """algorithms, with commas between; without it all"""
    size: SizeName = "5M"
    precision: Literal["fp32", "bf16"] = "bf16"
    repeats: int = 7
    """updates of each side, after one that warms up"""
    threads: int = 1
    out: Path | None = None
    """also write the table to this file"""

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "repeats", "threads")
        for name in self.names:
            if name not in STAGES:
                raise InputError(f"there is no algorithm '{name}'", "--only", f"choose from {', '.join(STAGES)}")

    @property
    def names(self) -> list[str]:
        """The algorithms that are measured."""
        return self.only.split(",") if self.only else list(STAGES)


@dataclass(frozen=True)
class Side:
    """An algorithm on an experience, and its update by hand of a copy of its models; each takes the learning rate's
    multiplier."""

    ours: Callable[[float], None]
    by_hand: Callable[[float], None]
    models: dict[str, torch.nn.Module]
    copies: dict[str, torch.nn.Module]
    tokens: int


STAGES: dict[str, Any] = {"reinforce": reinforce, "rloo": rloo, "grpo": grpo, "a2c": a2c}


def build(name: str, size: Size, runtime: Runtime) -> Side:
    """Return both sides of an algorithm: random models, answers sampled from the policy."""
    stage = STAGES[name]
    count, traits = size.prompts // GROUP, traits_of(size.shape)
    config = stage.Config(prompts_per_step=count, num_generations=GROUP, max_new_tokens=size.length // 4)
    config, _ = defaults.online(config, traits, *([traits] if name == "a2c" else []))
    models = make_policy(size.shape, runtime)
    if name == "a2c":
        algorithm = a2c.A2C(models, scalar_model(size.shape, runtime.device), config)
    else:
        kinds = {"reinforce": reinforce.Reinforce, "rloo": rloo.RLOO, "grpo": grpo.GRPO}
        algorithm = kinds[name](models, config)
    prompts = sequences(size, prompt_lengths(size, count))
    experience = sample_and_score(algorithm, models, config, prompts, 1)
    algorithm.compute_advantages(experience, config.kl_coef)
    copies = {key: copy.deepcopy(model) for key, model in algorithm.models.items()}
    optimizers = {"policy": Optimizer([copies["policy"]], config.optimizer)}
    if "critic" in copies:
        optimizers["critic"] = critic_optimizer(copies["critic"], config)
    given = Experience(experience.rollout, experience.raw_scores, experience.scores, dict(experience.columns))

    def ours(multiplier: float) -> None:
        learn(algorithm, models, config, experience, 1, multiplier)

    def hand(multiplier: float) -> None:
        update_policy(name, copies["policy"], given, config, runtime)
        if "critic" in copies:
            update_critic(copies["critic"], given, config, runtime)
        for optimizer in optimizers.values():
            optimizer.step(multiplier)

    return Side(ours, hand, dict(algorithm.models), copies, int(experience.rollout.lengths.sum()))


def update_policy(name: str, policy: Any, experience: Experience, config: Any, runtime: Runtime) -> None:
    """Add the gradient of an algorithm's loss at ratio 1: -w A log pi, and for GRPO w beta k3, of each token; w is one
    over the answers, over the tokens (A2C), or over the answers times an answer's tokens (GRPO)."""
    rows, lengths = experience.rollout.rows(), experience.rollout.lengths
    for chosen, batch in forward.ordered_batches(rows, runtime, config.max_tokens_per_pass):
        columns = experience.flat(chosen, runtime.device)
        with runtime.autocast():
            logps, _ = forward.masked_logprobs(policy, batch, config.temperature, entropy=True)  # a metric, as ours
        losses = -columns["advantages"] * logps
        if name == "grpo":
            losses = losses + config.kl_coef * kl.k3(logps, columns["ref_logps"])
        (losses * weights(name, lengths, chosen).to(logps.device)).sum().backward()


def weights(name: str, lengths: Tensor, chosen: Sequence[int]) -> Tensor:
    """Return the weight of each token of the chosen answers in the loss, one answer after another."""
    counts = lengths[torch.tensor(chosen)]
    if name == "a2c":
        return torch.full((int(counts.sum()),), 1 / float(lengths.sum()))
    if name == "grpo":
        return (1 / (counts * len(lengths))).repeat_interleave(counts)
    return torch.full((int(counts.sum()),), 1 / len(lengths))


def update_critic(critic: Any, experience: Experience, config: Any, runtime: Runtime) -> None:
    """Add the gradient of half the mean squared error of the values."""
    tokens = float(experience.rollout.lengths.sum())
    for chosen, batch in forward.ordered_batches(experience.rollout.rows(), runtime, config.max_tokens_per_pass):
        with runtime.autocast():
            values = forward.masked_values(critic, batch)
        errors = values - experience.flat(chosen, runtime.device)["returns"]
        (config.vf_coef * errors.square().sum() / (2 * tokens)).backward()


def measure(name: str, size: Size, config: Config) -> tuple[int, list[float], list[float]]:
    """Return the tokens of an update, and the processor's seconds of each repeat: ours, and by hand."""
    runtime = start_runtime(DeviceOptions(device="cpu", precision=config.precision, threads=config.threads))
    torch.manual_seed(0)
    side = build(name, size, runtime)
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(config.repeats + 1):
        for taken, step in zip(seconds, (side.ours, side.by_hand)):
            begun = process_time()
            step(0.0)
            taken.extend([process_time() - begun] if number else [])
    return side.tokens, *seconds


def report(config: Config) -> Iterator[str]:
    """Yield the table, a line for each algorithm."""
    yield machine.machine_line(config.threads)
    yield ""
    yield "| algorithm | tokens | ours, s | by hand, s | ours / by hand, median (least to most) |"
    yield "|---|--:|--:|--:|--:|"
    for name in config.names:
        tokens, ours, hand = measure(name, SIZES[config.size], config)
        ratios = [a / b for a, b in zip(ours, hand)]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        yield f"| {name} | {tokens:,} | {median(ours):.2f} | {median(hand):.2f} | {spread} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns the exit code."""
    config = tyro.cli(Config, args=arguments, prog="benchmarks.update_cost", description=__doc__)
    return machine.print_lines(report(config), config.out, "benchmarks.update_cost")


if __name__ == "__main__":
    sys.exit(main())
