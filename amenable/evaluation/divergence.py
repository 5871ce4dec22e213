"""KL of a policy from its reference, on the policy's own answers to held-out prompts.

    KL(pi || ref) = E_{y ~ pi}  sum_t  sum_v  pi(v | y_<t) log [pi(v | y_<t) / ref(v | y_<t)]

The inner sum is over the whole vocabulary. In expectation that is the log-ratio of the answers, log pi(y) / ref(y), as
PPO reports it; without the noise of single tokens, and never negative, so that a few dozen prompts are enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amenable.generation.requests import EosIds
from amenable.generation.rollout import Rollout, collect
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.train import forward, memory
from amenable.train.log import Bars, no_bars
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Runtime


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
    bars: Bars = no_bars,
) -> tuple[Rollout, Tensor]:
    """An answer of the policy to each of B prompts, at temperature 1, and its KL to the reference in nats [B].

    An answer's random numbers come from its prompt's seed alone. max_tokens: tokens of a pass.
    """
    policy = runtime.asked(policy)
    sampling = Sampling(temperature=1.0, max_new_tokens=max_new_tokens)
    with runtime.autocast():
        rollout = collect(policy, prompts, sampling, eos_id=eos_id, seeds=seeds, progress=bars("answers"))
    rows = rollout.rows()
    kls = forward.row_kls(policy, reference, rows, rows, runtime, max_tokens, progress=bars("KL"))
    return rollout, torch.stack([kl.sum() for kl in kls])


def peaks(
    policy: nn.Module, prompts: Sequence[list[int]], max_new_tokens: int, limit: int, runtime: Runtime
) -> list[int]:
    """Bytes that `answers_with_kl` needs at its peaks: for the answers, and for the pass of both models over them."""
    if not prompts:
        return []
    model = memory.model_of(policy, OptimizerConfig())
    rows = [memory.full_answer(prompt, max_new_tokens) for prompt in prompts]
    longest, asked = max(len(ids) for ids, _ in rows), min(memory.PREFILL, sum(map(len, prompts)))
    both = 2 * memory.reading(model, memory.largest_reading(rows, limit), runtime)
    return [memory.sampling(model, min(memory.ROWS, len(rows)), longest, asked, runtime), both]
