"""Rollouts: what the policy said, with the log-probabilities it was drawn with.

B answers, the longest of T tokens. A response token is an action; EOS, where there is one, is the last of them. An
answer cut by the length limit has no EOS and is marked as not ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amenable.generation.engine import EosIds, Progress, generate
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder


@dataclass(frozen=True)
class Rollout:
    """Answers to prompts, one row each; a prompt's samples are neighbours."""

    prompts: list[list[int]]
    """B lists of ids, each ending where the assistant begins"""
    responses: list[list[int]]
    """B lists of ids, EOS included where the answer ended"""
    ended: Tensor
    """[B] bool: the answer ended by itself"""
    mask: Tensor
    """[B, T] bool: True where a response token is"""
    logps: Tensor
    """[B, T] log-probability of each response token under the distribution it was drawn from; 0 outside the mask"""

    def rows(self, chosen: Sequence[int] | None = None) -> list[tuple[list[int], list[bool]]]:
        """The sequences (or the chosen ones) as ids, and marks that are True on the response."""
        picked = range(len(self.prompts)) if chosen is None else chosen
        return [
            (self.prompts[i] + self.responses[i], [False] * len(self.prompts[i]) + [True] * len(self.responses[i]))
            for i in picked
        ]

    @property
    def lengths(self) -> Tensor:
        """Response lengths [B]."""
        return self.mask.sum(1)


def collect(
    decoder: Decoder,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    *,
    eos_id: EosIds,
    seeds: Sequence[int],
    samples: int = 1,
    rows: int = 128,
    progress: Progress | None = None,
) -> Rollout:
    """Sample `samples` answers to each prompt; each answer's randomness comes from its prompt's seed alone."""
    groups = generate(
        decoder, prompts, sampling, eos_id=eos_id, seeds=seeds, samples=samples, rows=rows, progress=progress
    )
    answers = [answer for group in groups for answer in group]
    mask = length_mask([len(answer.ids) for answer in answers])
    return Rollout(
        prompts=[list(prompt) for prompt in prompts for _ in range(samples)],
        responses=[answer.ids for answer in answers],
        ended=torch.tensor([answer.ended for answer in answers]),
        mask=mask,
        logps=spread([torch.tensor(answer.logps) for answer in answers], mask),
    )


def greedy(
    decoder: Decoder,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    eos_id: EosIds,
    progress: Progress | None = None,
) -> Rollout:
    """The most likely token at every step, one answer to each prompt."""
    sampling, seeds = Sampling(temperature=0.0, max_new_tokens=max_new_tokens), [0] * len(prompts)
    return collect(decoder, prompts, sampling, eos_id=eos_id, seeds=seeds, progress=progress)


def length_mask(lengths: Sequence[int]) -> Tensor:
    """[B, T] bool, True at the first lengths[b] places of row b."""
    return torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def spread(parts: Sequence[Tensor], mask: Tensor) -> Tensor:
    """One tensor a row, laid into [B, T] where the mask is True; 0 elsewhere."""
    out = torch.zeros(mask.shape)
    out[mask] = torch.cat(list(parts)).float()
    return out
