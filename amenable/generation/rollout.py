"""Rollouts: completions sampled from the policy, with their log-probabilities.

B completions, the longest of T tokens. A completion token is an action; EOS, if any, is the last action. A completion
cut by the length limit has no EOS and `ended` False.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from amenable import processes
from amenable.generation.engine import Progress, generate
from amenable.generation.requests import Completion, EosIds, FinishReason
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder
from amenable.models.sharding import whole


@dataclass(frozen=True)
class Rollout:
    """Sampled completions, one per row; a prompt's samples are neighbours."""

    prompts: list[list[int]]
    """B lists of ids, each ending where the assistant begins"""
    completions: list[list[int]]
    """B lists of ids, EOS included if the completion ended"""
    ended: Tensor
    """[B] bool: the completion ended by EOS"""
    mask: Tensor
    """[B, T] bool: True for completion tokens"""
    logps: Tensor
    """[B, T] log-probability of each completion token under its sampling distribution; 0 outside the mask"""

    def rows(self, chosen: Sequence[int] | None = None) -> list[tuple[list[int], list[bool]]]:
        """Return (ids, loss mask) of all sequences, or of the chosen ones; the mask is True on the completion."""
        chosen = range(len(self.prompts)) if chosen is None else chosen
        pairs = [(self.prompts[i], self.completions[i]) for i in chosen]
        return [(prompt + answer, [False] * len(prompt) + [True] * len(answer)) for prompt, answer in pairs]

    @property
    def lengths(self) -> Tensor:
        """Completion lengths [B]."""
        return self.mask.sum(1)


def collect(
    decoder: Decoder,
    prompts: Sequence[list[int]],
    sampling: Sampling,
    *,
    eos_id: EosIds,
    seeds: Sequence[int],
    samples: int = 1,
    max_batch_size: int = 128,
    progress: Progress | None = None,
) -> Rollout:
    """Sample `samples` completions of each prompt; random numbers depend on the prompt's seed alone. Several processes
    divide the prompts, and each returns the whole rollout."""
    decoder, own = whole(decoder), own_share(prompts, sampling)
    groups = generate(
        decoder,
        [prompts[i] for i in own],
        sampling,
        eos_id=eos_id,
        seeds=[seeds[i] for i in own],
        samples=samples,
        max_batch_size=max_batch_size,
        progress=progress,
    )
    return gather_rollout(prompts, own, groups, samples)


def own_share(prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[int]:
    """Return the numbers of the prompts that this process samples completions of, all of them in a process alone."""
    return processes.own_share([len(prompt) + sampling.max_new_tokens for prompt in prompts])


def gather_rollout(
    prompts: Sequence[list[int]], own: Sequence[int], groups: Sequence[Sequence[Completion]], samples: int
) -> Rollout:
    """Return the rollout of all prompts, of which each process has the `samples` completions of its `own_share`."""
    if len(own) < len(prompts):
        groups = of_all_processes(own, groups, samples)
    completions = [completion for group in groups for completion in group]
    mask = length_mask([len(completion.ids) for completion in completions])
    return Rollout(
        prompts=[list(prompt) for prompt in prompts for _ in range(samples)],
        completions=[completion.ids for completion in completions],
        ended=torch.tensor([completion.ended for completion in completions]),
        mask=mask,
        logps=pad_to_mask([torch.tensor(completion.logps) for completion in completions], mask),
    )


def of_all_processes(
    own: Sequence[int], groups: Sequence[Sequence[Completion]], samples: int
) -> list[list[Completion]]:
    """Return the completions of all prompts, of which each process has sampled those of the prompts `own`."""
    completions = [completion for group in groups for completion in group]
    numbers = processes.gather_vectors(torch.tensor(own, dtype=torch.long))
    facts = torch.tensor([[len(each.ids), each.ended] for each in completions], dtype=torch.long)
    ids = torch.tensor([i for each in completions for i in each.ids], dtype=torch.long)
    logps = torch.tensor([logp for each in completions for logp in each.logps], dtype=torch.float64)
    gathered = (processes.gather_vectors(column) for column in (facts.flatten(), ids, logps))
    whole: dict[int, list[Completion]] = {}
    for prompts, own_facts, own_ids, own_logps in zip(numbers, *gathered):
        lengths, ends = own_facts.view(-1, 2).unbind(1)
        parts = (column.split(lengths.tolist()) for column in (own_ids, own_logps))
        for k, (tokens, scores, ended) in enumerate(zip(*parts, ends.tolist())):
            reason: FinishReason = "eos" if ended else "length"
            completion = Completion(tokens.tolist(), scores.tolist(), reason, text=None)
            whole.setdefault(int(prompts[k // samples]), []).append(completion)
    return [whole[i] for i in range(len(whole))]


def greedy(
    decoder: Decoder,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    eos_id: EosIds,
    progress: Progress | None = None,
) -> Rollout:
    """Decode a greedy completion of each prompt."""
    sampling, seeds = Sampling(temperature=0.0, max_new_tokens=max_new_tokens), [0] * len(prompts)
    return collect(decoder, prompts, sampling, eos_id=eos_id, seeds=seeds, progress=progress)


def length_mask(lengths: Sequence[int]) -> Tensor:
    """Return [B, T] bool, True at the first lengths[b] positions of row b."""
    return torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]


def pad_to_mask(parts: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Place a tensor per row into [B, T] where the mask is True; 0 elsewhere."""
    out = torch.zeros(mask.shape)
    out[mask] = torch.cat(list(parts)).float()
    return out
