"""Log-probabilities to report: of a prompt's tokens, and of the most probable tokens at each position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amenable.models.language_model import LanguageModel

TopLogprobs = list[tuple[int, float]]
"""(id, log-probability) of the most probable tokens at a position, best first"""

CHUNK_LOGITS = 2**24  # logits computed at once


@dataclass(frozen=True)
class PromptLogprobs:
    """Log-probabilities of a prompt's L - 1 tokens after the first, at temperature 1 without filters."""

    logps: list[float]
    top_logprobs: list[TopLogprobs]


def top_logprobs(logps: Tensor, count: int) -> list[TopLogprobs]:
    """Return the `count` most probable tokens per position, without those of probability 0. logps [R, V] -> R lists."""
    best = logps.topk(min(count, logps.shape[-1]))
    return [
        [(token, logp) for token, logp in zip(ids, values) if logp > -math.inf]
        for ids, values in zip(best.indices.tolist(), best.values.tolist())
    ]


def prompt_logprobs(decoder: LanguageModel, hidden: Tensor, ids: Sequence[int], count: int) -> PromptLogprobs:
    """Compute log p(ids[i] | ids[:i]) for i > 0 and the `count` most probable tokens; hidden [L, D] of ids [L]."""
    targets = torch.tensor(ids[1:], dtype=torch.long, device=hidden.device)
    size = max(1, CHUNK_LOGITS // decoder.num_tokens)
    logps: list[float] = []
    top: list[TopLogprobs] = []
    for states, tokens in zip(hidden[:-1].split(size), targets.split(size)):
        distribution = decoder.logits(states).float().log_softmax(-1)
        logps += distribution.gather(-1, tokens[:, None])[:, 0].tolist()
        top += top_logprobs(distribution, count)
    return PromptLogprobs(logps, top)
