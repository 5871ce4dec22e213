"""Sampling requests and completions: limits, EOS ids and stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from amenable.errors import InputError
from amenable.generation.detokenizer import Decode
from amenable.generation.sampling import Sampling
from amenable.generation.top_logprobs import PromptLogprobs, TopLogprobs
from amenable.seeds import mix

FinishReason = Literal["eos", "stop", "length"]
EosIds = int | Sequence[int] | None
"""the id that ends a completion, or several"""


@dataclass(frozen=True)
class Completion:
    """A sampled completion: `ids` with their `logps`, the EOS included if there was one."""

    ids: list[int]
    logps: list[float]
    finish_reason: FinishReason
    text: str | None
    """decoded, without EOS and stop string; None without `decode`"""
    top_logprobs: list[TopLogprobs] | None = None
    """for each token, the most probable (id, log-probability) of its sampling distribution, if requested"""
    prompt_logprobs: PromptLogprobs | None = None
    """log-probabilities of the prompt's tokens, if requested"""

    @property
    def ended(self) -> bool:
        """True if the model ended the completion by EOS; no EOS is appended to a completion cut short."""
        return self.finish_reason == "eos"


@dataclass(frozen=True)
class SampleRequest:
    """Request for sample number `sample` of a prompt: its ids, seed, and at most `limit` tokens.

    sampling, stop: None takes those of the batch. top_logprobs: number of most probable tokens to return per token.
    prompt_logprobs: return the prompt's log-probabilities too.
    """

    prompt: int
    sample: int
    ids: Sequence[int]
    limit: int
    seed: int
    sampling: Sampling | None = None
    stop: tuple[str, ...] | None = None
    top_logprobs: int = 0
    prompt_logprobs: bool = False


def make_requests(
    prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int] | int, samples: int, context: int
) -> list[SampleRequest]:
    """Return `samples` requests per prompt, longest prompts first: equal lengths are prefilled and decoded together."""
    if samples < 1:
        raise InputError(f"samples is {samples}", how="use 1 or more")
    if isinstance(seeds, int):
        seeds = [mix(seeds, i) for i in range(len(prompts))]
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts")
    requests = []
    for i, ids in enumerate(prompts):
        limit = completion_limit(ids, sampling.max_new_tokens, context, f"prompt {i}")
        requests += [SampleRequest(i, k, ids, limit, mix(seeds[i], k)) for k in range(samples)]
    return sorted(requests, key=lambda request: -len(request.ids))


def completion_limit(prompt: Sequence[int], max_new_tokens: int, context: int, name: str) -> int:
    """Return the greatest number of completion tokens. InputError, with `name`, for an empty or too long prompt."""
    if not prompt:
        raise InputError(f"{name} is empty", how="a prompt is at least one token, such as BOS")
    if len(prompt) >= context:
        hint = f"shorten it to {context - 1} tokens or fewer"
        raise InputError(f"{name} has {len(prompt)} tokens and leaves no room in a context of {context}", how=hint)
    return min(max_new_tokens, context - len(prompt))


def check_stops(stop: Sequence[str], decode: Decode | None) -> None:
    if isinstance(stop, str) or not all(stop):
        raise ValueError("stop is not a list of strings that are not empty")
    if stop and decode is None:
        raise ValueError("stop strings are matched on text: pass decode as well")


def eos_tuple(eos_id: EosIds) -> tuple[int, ...]:
    if eos_id is None:
        return ()
    return (eos_id,) if isinstance(eos_id, int) else tuple(eos_id)
