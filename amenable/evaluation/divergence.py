"""KL of a policy from its reference, on the policy's own answers to held-out prompts.

    KL(pi || ref) = E_{y ~ pi}  sum_t  sum_v  pi(v | y_<t) log [pi(v | y_<t) / ref(v | y_<t)]

The inner sum is over the whole vocabulary. In expectation that is the log-ratio of the answers, log pi(y) / ref(y), as
PPO reports it; without the noise of single tokens, and never negative, so that a few dozen prompts are enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from amenable.generation.requests import EosIds
from amenable.generation.rollout import Rollout, collect
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.seeds import derive_seed
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward, memory
from amenable.train.log import Bars, no_bars
from amenable.train.optimizer import OptimizerConfig
from amenable.train.passes import full_row, largest_inference_pass
from amenable.train.runtime import Runtime

SAMPLES = 8
"""rows of samples.jsonl at each measurement"""


def answers_with_kl(
    policy: Decoder,
    reference: Decoder,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    eos_id: EosIds,
    seeds: Sequence[int],
    runtime: Runtime,
    max_tokens: int,
    samples: int = 1,
    temperature: float = 1.0,
    bars: Bars = no_bars,
) -> tuple[Rollout, Tensor]:
    """Return `samples` answers of the policy to each prompt, B in all, sampled at `temperature`, and the KL of each to
    the reference at the same temperature, in nats [B].

    An answer's random numbers come from its prompt's seed and its number alone. max_tokens: tokens of a pass.
    """
    policy = runtime.inference_copy(policy)
    sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
    with runtime.autocast():
        rollout = collect(
            policy, prompts, sampling, eos_id=eos_id, seeds=seeds, samples=samples, progress=bars("answers")
        )
    rows = rollout.rows()
    temperatures = temperature, temperature
    kls = forward.compute_kls(policy, reference, rows, rows, runtime, max_tokens, *temperatures, progress=bars("KL"))
    return rollout, torch.stack([kl.sum() for kl in kls])


def peaks(
    policy: nn.Module, prompts: Sequence[list[int]], max_new_tokens: int, limit: int, runtime: Runtime
) -> list[int]:
    """Return the peak bytes of `answers_with_kl`: of generation, and of the pass of both models over the answers."""
    if not prompts:
        return []
    model = memory.model_of(policy, OptimizerConfig())
    rows = [full_row(prompt, max_new_tokens) for prompt in prompts]
    longest, prefill = max(len(ids) for ids, _ in rows), min(memory.PREFILL_TOKENS, sum(map(len, prompts)))
    both = 2 * memory.inference_bytes(model, largest_inference_pass(rows, limit), runtime)
    return [memory.generation_bytes(model, min(memory.GENERATION_ROWS, len(rows)), longest, prefill, runtime), both]


@dataclass(frozen=True)
class KLMonitor:
    """KL of a policy during training, on its answers to the same held-out prompts every time."""

    policy: Decoder
    reference: Decoder | None
    prompts: list[list[int]]
    tokenizer: Tokenizer
    runtime: Runtime
    max_new_tokens: int
    max_tokens: int
    """of a pass"""
    seed: int
    samples: int = 1
    """answers to each prompt"""
    temperature: float = 1.0
    """of the answers, and of both models' probabilities"""

    def measure(self, bars: Bars = no_bars) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Return mean KL and mean length of the completions as metrics, and completions of the first prompts as
        rows of samples.jsonl; ({}, []) without a reference, where there are no prompts."""
        if self.reference is None:
            return {}, []
        rollout, kls = answers_with_kl(
            self.policy,
            self.reference,
            self.prompts,
            max_new_tokens=self.max_new_tokens,
            eos_id=self.tokenizer.stop_ids,
            seeds=[derive_seed(self.seed, "held out", i) for i in range(len(self.prompts))],
            runtime=self.runtime,
            max_tokens=self.max_tokens,
            samples=self.samples,
            temperature=self.temperature,
            bars=bars,
        )
        decode = self.tokenizer.decode
        answers = zip(rollout.prompts, rollout.completions, rollout.ended.tolist(), kls.tolist())
        rows = [
            {"prompt": decode(prompt), "completion": decode(answer), "ended": ended, "kl": round(kl, 4)}
            for prompt, answer, ended, kl in islice(answers, 0, SAMPLES * self.samples, self.samples)
        ]
        length = float(rollout.lengths.float().mean())
        return {"objective/kl": float(kls.mean()), "completions/mean_length": length}, rows

    def peaks(self) -> list[int]:
        """Return the bytes that a measurement needs at its peaks."""
        prompts = [prompt for prompt in self.prompts for _ in range(self.samples)]
        return peaks(self.policy, prompts, self.max_new_tokens, self.max_tokens, self.runtime)


def make_kl_monitor(
    policy: Decoder,
    reference: Decoder | None,
    rows: Iterable[forward.Row],
    tokenizer: Tokenizer,
    runtime: Runtime,
    count: int,
    max_new_tokens: int,
    max_tokens: int,
    seed: int,
    warn: Callable[[str], object],
    temperature: float = 1.0,
) -> KLMonitor:
    """Return a monitor over the first `count` prompts of the rows that leave room for `max_new_tokens`; over all of
    them, each answered several times, where there are fewer: `count` answers or a few more, for a mean that is steady.

    Where there are none it has no reference; that is a warning if `count` is above 0. Without a reference it has no
    prompts.
    """
    count = 0 if reference is None else count
    prompts = first_prompts(rows, count, policy.config.context_length - max_new_tokens)
    if count and not prompts:
        problem = f"no held-out prompt leaves room for --max-new-tokens {max_new_tokens}"
        warn(f"{problem}: the KL to the reference is not measured")
    monitored = reference if prompts else None
    samples = math.ceil(count / len(prompts)) if prompts else 1
    return KLMonitor(
        policy, monitored, prompts, tokenizer, runtime, max_new_tokens, max_tokens, seed, samples, temperature
    )


def first_prompts(rows: Iterable[forward.Row], count: int, room: int) -> list[list[int]]:
    """Return the first `count` prompts of the rows (the ids before the first trained one), each once, that have at most
    `room` tokens."""
    prompts = dict[tuple[int, ...], None]()
    rows = iter(rows)
    while len(prompts) < count and (row := next(rows, None)) is not None:
        ids, loss_mask = row
        if loss_mask.index(True) <= room:
            prompts[tuple(ids[: loss_mask.index(True)])] = None
    return list(map(list, prompts))
