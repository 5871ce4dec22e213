"""Rollouts of a model by vLLM in this process and by our engine: tokens per second, and the gap to the trainer.

    .venv-peers-vllm/bin/python -m benchmarks.vllm_rollouts --model runs/demo/ppo        # `make bench-vllm` sets it up
    .venv-peers-vllm/bin/python -m benchmarks.vllm_rollouts --model models/smollm2 --precision bf16 --rows 32

Both complete the same prompts with the same settings, turn by turn; the medians count. The gap is the mean difference
of the sampler's log-probabilities and the trainer's in nats a token, `sampling/logp_difference` of a run; the ratio is
the mean of the trainer's probabilities over the sampler's, 1 where nothing is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

import torch
import tyro

from amenable.errors import InputError
from amenable.generation.engine import generate
from amenable.generation.requests import Completion
from amenable.generation.sampler import generate_by
from amenable.generation.sampling import Sampling
from amenable.generation.vllm_engine import VllmEngine
from amenable.model_folder import base_folder
from amenable.models.decoder import Decoder
from amenable.rl.experience import Ratios
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, loading, plan
from amenable.train.runtime import DeviceOptions, Runtime, start_runtime
from benchmarks.machine import machine_line

Groups = list[list[Completion]]
Sample = Callable[[int], Groups]
"""seed -> completions of each prompt"""


@dataclass(frozen=True)
class Config:
    """Model, rollout and runtime."""

    model: Path
    precision: Literal["fp32", "bf16"] = "bf16"
    rows: int = 64
    """completions, two of each prompt"""
    new_tokens: int = 64
    temperature: float = 0.7
    repeats: int = 5
    """timed rollouts of each engine, after one that warms up"""
    threads: int = 2

    def __post_init__(self) -> None:
        plan.require_at_least(2, self, "rows")
        plan.require_at_least(1, self, "new_tokens", "repeats", "threads")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, and return 0; 2 for a mistake."""
    config = tyro.cli(Config, args=arguments, prog="benchmarks.vllm_rollouts", description=__doc__)
    try:
        for line in report(config):
            print(line, flush=True)
    except InputError as error:
        print(f"benchmarks.vllm_rollouts: {error}", file=sys.stderr)
        return 2
    return 0


def report(config: Config) -> Iterator[str]:
    """Yield the lines of the table."""
    runtime = start_runtime(DeviceOptions("cpu", config.precision, config.threads))
    policy, tokenizer = loading.load_policy(config.model, runtime)
    prompts = questions(tokenizer, config.rows // 2)
    samples = samplers(config, policy, tokenizer, prompts, runtime)
    yield f"{machine_line(config.threads)}; {config.precision}"
    yield f"{len(prompts)} prompts x 2, at most {config.new_tokens} tokens at temperature {config.temperature:g}"
    yield ""
    yield "| engine | tokens/s | of ours | nats a token from the trainer | mean ratio |"
    yield "|---|---:|---:|---:|---:|"
    groups = {name: sample(0) for name, sample in samples.items()}
    rates: dict[str, list[float]] = {name: [] for name in samples}
    for number in range(config.repeats):
        for name, sample in samples.items():
            begun = perf_counter()
            tokens = sum(len(each.ids) for group in sample(number + 1) for each in group)
            rates[name].append(tokens / (perf_counter() - begun))
    ours = median(rates["ours"])
    for name, each in rates.items():
        gap = ratios_of(policy, prompts, groups[name], config.temperature, runtime)
        rate = median(each)
        yield f"| {name} | {rate:,.0f} | {rate / ours:.2f} | {gap.gap:.2g} | {gap.mean:.4f} |"


def samplers(
    config: Config, policy: Decoder, tokenizer: Tokenizer, prompts: list[list[int]], runtime: Runtime
) -> dict[str, Sample]:
    """Return a rollout's sampling by each engine, with the policy's weights."""
    sampling = Sampling(temperature=config.temperature, max_new_tokens=config.new_tokens)
    engine = VllmEngine(base_folder(config.model), policy, torch.bfloat16 if runtime.bf16 else torch.float32)
    engine.load(policy)
    stops, length = tokenizer.stop_ids, policy.config.context_length

    def ours(seed: int) -> Groups:
        seeds = [seed * len(prompts) + i for i in range(len(prompts))]
        with runtime.autocast():
            return generate(policy, prompts, sampling, eos_id=stops, seeds=seeds, samples=2, max_batch_size=config.rows)

    def theirs(seed: int) -> Groups:
        seeds = [seed * len(prompts) + i for i in range(len(prompts))]
        return generate_by(engine, prompts, sampling, eos_id=stops, seeds=seeds, samples=2, context_length=length)

    return {"ours": ours, "vLLM": theirs}


def questions(tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Return the ids of texts of some lengths."""
    texts = [
        f"{'There is a town. ' * (i % 4)}Question {i}: what is {i} plus {7 * i % 50}? Answer:" for i in range(count)
    ]
    return [[*tokenizer.opening_ids, *tokenizer.encode(text)] for text in texts]


def ratios_of(
    policy: Decoder, prompts: Sequence[list[int]], groups: Groups, temperature: float, runtime: Runtime
) -> Ratios:
    """Compare the log-probabilities of completions with the trainer's."""
    pairs = [(prompt, each) for prompt, group in zip(prompts, groups) for each in group]
    rows = [(prompt + each.ids, [False] * len(prompt) + [True] * len(each.ids)) for prompt, each in pairs]
    trainers = forward.compute_logprobs(policy, rows, runtime, 8192, temperature)
    return Ratios.of(torch.cat(trainers) - torch.tensor([logp for _, each in pairs for logp in each.logps]))


if __name__ == "__main__":
    sys.exit(main())
