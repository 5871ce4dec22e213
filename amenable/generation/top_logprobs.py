"""Log-probabilities for those who read them: of a prompt's own tokens, and of the most probable ones in each place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amenable.models.decoder import Decoder

TopLogprobs = list[tuple[int, float]]
"""(id, log-probability) of the most probable tokens of one place, best first"""

CHUNK_LOGITS = 2**24  # logits that are computed at once


@dataclass(frozen=True)
class PromptLogprobs:
    """Of the L - 1 tokens of a prompt that have one before them, under softmax(logits): temperature 1, no filters."""

    logps: list[float]
    likeliest: list[TopLogprobs]


def top_logprobs(logps: Tensor, count: int) -> list[TopLogprobs]:
    """The `count` most probable tokens of each place, without those of probability 0. logps [R, V] -> R lists."""
    best = logps.topk(min(count, logps.shape[-1]))
    return [
        [(token, logp) for token, logp in zip(ids, values) if logp > -math.inf]
        for ids, values in zip(best.indices.tolist(), best.values.tolist())
    ]


def prompt_logprobs(decoder: Decoder, hidden: Tensor, ids: Sequence[int], count: int) -> PromptLogprobs:
    """log p(ids[i] | ids[:i]) for i from 1 on, and the `count` likeliest in each place. hidden [L, D] of ids [L]."""
    targets = torch.tensor(ids[1:], dtype=torch.long, device=hidden.device)
    size = max(1, CHUNK_LOGITS // decoder.num_tokens)
    logps: list[float] = []
    likeliest: list[TopLogprobs] = []
    for states, tokens in zip(hidden[:-1].split(size), targets.split(size)):
        distribution = decoder.logits(states).float().log_softmax(-1)
        logps += distribution.gather(-1, tokens[:, None])[:, 0].tolist()
        likeliest += top_logprobs(distribution, count)
    return PromptLogprobs(logps, likeliest)
