"""Samplers outside the trainer: programs that complete prompts of token ids with weights which they take from it.

    SampleRequest (ids, limit, seed)  ->  Completion (ids, log-probabilities of the sampling distribution, reason)

Ours needs none of this: `engine.generate` reads the decoder that trains. vLLM is one, in this process (vllm_engine.py)
or as servers (vllm_server.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from amenable.errors import InputError
from amenable.generation.engine import Progress
from amenable.generation.requests import Completion, EosIds, SampleRequest, eos_tuple, make_requests
from amenable.generation.sampling import Sampling
from amenable.models.decoder import Decoder

NEVER = -100.0
"""logit bias of an id that is not to be drawn: the least that APIs take"""


class Sampler(Protocol):
    """Program that samples completions by weights of its own."""

    def load(self, policy: Decoder) -> None:
        """Take the weights of a policy, all of them or its adapters."""
        ...

    def complete(
        self,
        requests: Sequence[SampleRequest],
        sampling: Sampling,
        eos_ids: Sequence[int],
        progress: Progress | None = None,
    ) -> list[Completion]:
        """Return the completion of each request, which ends at one of the ids or at its limit."""
        ...

    def close(self) -> None:
        """Remove what it has written."""
        ...


def generate_by(
    sampler: Sampler,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    eos_id: EosIds,
    seeds: Sequence[int],
    samples: int,
    context_length: int,
    progress: Progress | None = None,
) -> list[list[Completion]]:
    """Return `samples` completions of each prompt by a sampler, as `engine.generate` does: the same limits, ends, and
    a seed for each completion. What is drawn with a seed is the sampler's own affair."""
    requests = make_requests(prompts, sampling, seeds, samples, context_length)
    completions = sampler.complete(requests, sampling, eos_tuple(eos_id), progress)
    done = {(request.prompt, request.sample): each for request, each in zip(requests, completions, strict=True)}
    return [[done[prompt, k] for k in range(samples)] for prompt in range(len(prompts))]


def vllm_parameters(
    request: SampleRequest, sampling: Sampling, eos_ids: Sequence[int], never: Sequence[int] = ()
) -> dict[str, Any]:
    """Return vLLM's sampling parameters of a request; its API has the same names. never: ids that are not drawn, such
    as those of a vocabulary beyond the tokenizer's tokens."""
    settings: dict[str, Any] = {
        "max_tokens": request.limit,
        "seed": request.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "stop_token_ids": list(eos_ids),
        "ignore_eos": True,  # what ends a completion is in stop_token_ids, whatever generation_config.json says
        "logprobs": 0,  # of the sampled token alone
    }
    return settings | ({"logit_bias": {token: NEVER for token in never}} if never else {})


def completion_of(ids: Sequence[int], logps: Sequence[float], eos_ids: Sequence[int], where: str) -> Completion:
    """Return a sampler's completion. InputError where it has no tokens, or a log-probability that is no number."""
    if not ids or len(ids) != len(logps):
        raise InputError(f"gave {len(ids)} tokens with {len(logps)} log-probabilities", where)
    if not all(isinstance(logp, (int, float)) and math.isfinite(logp) for logp in logps):
        raise InputError("gave log-probabilities that are no numbers", where, "its weights may have diverged")
    return Completion(list(ids), list(logps), "eos" if ids[-1] in eos_ids else "length", text=None)
