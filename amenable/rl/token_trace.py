"""Traces: answers to a few prompts with every number that an algorithm gives their tokens.

    ratio_t = pi'(y_t) / pi(y_t)        and every column of the experience: ref_logps, values, rewards, advantages ...

pi is the policy that sampled the answer, pi' the same after the iteration's updates. `observe` is called before them
and `rows_of` after them. Advantages are as the algorithm estimates them, before they are standardised over a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from amenable.models.decoder import Decoder
from amenable.models.sharding import whole
from amenable.rl.algorithm import Algorithm
from amenable.rl.experience import Experience
from amenable.rl.models import Models
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.runtime import Runtime

T = TypeVar("T")

ALTERNATIVES = 5
PARTIAL_CHARACTER = "\ufffd"
"""stands for a token that ends inside a character"""

Alternative = tuple[int, float]
"""a token id and its probability"""


@dataclass(frozen=True)
class Settings:
    """Settings of the passes over traced answers."""

    temperature: float
    max_tokens: int
    """of one pass of a model"""


@dataclass(frozen=True)
class Trace:
    """Traced answers and the algorithm's numbers before an iteration's updates."""

    names: list[str]
    """of the prompts"""
    experience: Experience
    """`group` answers to each prompt, of which the first is traced"""
    group: int
    kl_coef: float
    top: list[list[list[Alternative]]]
    """[answer][token] the most probable tokens at that position"""
    settings: Settings


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Return `count` of the items, or all where there are fewer, at even distances from the first on.

    >>> evenly_spaced("abcdefgh", 3)
    ['a', 'c', 'f']
    """
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def observe(
    algorithm: Algorithm, models: Models, names: list[str], experience: Experience, kl_coef: float, settings: Settings
) -> Trace:
    """Estimate the advantages of traced answers, and find the alternatives, under the policy that sampled them."""
    algorithm.compute_advantages(experience, kl_coef)
    group = len(experience.rollout.prompts) // len(names)
    rows = experience.rollout.rows(range(0, len(names) * group, group))
    top = top_alternatives(models.policy, rows, models.runtime, settings.max_tokens, settings.temperature)
    return Trace(names, experience, group, kl_coef, top, settings)


@torch.inference_mode()
def top_alternatives(
    decoder: Decoder,
    rows: Sequence[forward.Row],
    runtime: Runtime,
    max_tokens: int,
    temperature: float,
    count: int = ALTERNATIVES,
) -> list[list[list[Alternative]]]:
    """Return the `count` most probable tokens at each response token, under softmax(logits / temperature)."""
    decoder = whole(decoder)
    out: list[list[list[Alternative]]] = [[] for _ in rows]
    for chosen, batch in forward.length_sorted_batches(rows, runtime, max_tokens):
        with runtime.autocast():
            hidden = forward.masked_hidden(decoder, batch)
            for i, states in zip(chosen, hidden.split([sum(rows[i][1]) for i in chosen])):
                logits = decoder.logits(states).float() / temperature
                best = logits.softmax(-1).topk(min(count, logits.shape[-1]))
                out[i] = [list(zip(*pair)) for pair in zip(best.indices.tolist(), best.values.tolist())]
    return out


def rows_of(trace: Trace, models: Models) -> list[dict[str, Any]]:
    """Return the rows of traces.jsonl, one an answer, once the policy has taken the iteration's updates."""
    traced, settings = range(0, len(trace.names) * trace.group, trace.group), trace.settings
    rows = trace.experience.rollout.rows(traced)
    after = forward.compute_logprobs(models.policy, rows, models.runtime, settings.max_tokens, settings.temperature)
    return [
        {**answer_fields(trace, number, answer, models.tokenizer), **token_fields(trace, answer, after[number])}
        for number, answer in enumerate(traced)
    ]


def answer_fields(trace: Trace, number: int, answer: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return prompt, text and scores of an answer.

    `score` is the score after clipping and the penalty of a missing end; `raw_score` is the reward's. `score_index` is
    the token at which a reward model is read: the answer's last.
    """
    experience, rollout = trace.experience, trace.experience.rollout
    prompt, response = rollout.prompts[answer], rollout.completions[answer]
    return {
        "id": trace.names[number],
        "prompt": tokenizer.decode(prompt),
        "prompt_tokens": pieces(tokenizer, prompt),
        "tokens": pieces(tokenizer, response),
        "top": [[(piece(tokenizer, token), round(p, 4)) for token, p in tokens] for tokens in trace.top[number]],
        "ended": bool(rollout.ended[answer]),
        "score": round(float(experience.scores[answer]), 4),
        "raw_score": round(float(experience.raw_scores[answer]), 4),
        "score_index": len(response) - 1,
        "kl_coef": round(trace.kl_coef, 4),
    }


def token_fields(trace: Trace, answer: int, after: Tensor) -> dict[str, list[float]]:
    """Return the numbers of an answer's T tokens, by column. after [T]: log-probabilities since the updates."""
    mask = trace.experience.rollout.mask[answer]
    logps = trace.experience.rollout.logps[answer][mask]
    columns = {name: column[answer][mask] for name, column in trace.experience.columns.items()}
    columns |= {"logps": logps, "kl": logps - columns["ref_logps"], "ratios": (after - logps).exp()}
    return {name: [round(value, 4) + 0.0 for value in values.tolist()] for name, values in columns.items()}


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return each token's share of the text, special tokens by name; joined, they are the text.

    But a token that ends inside a character is U+FFFD, and the one that completes the character is all of it.
    """
    shown, before = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=False)
        settled = before if text.startswith(before) else before.rstrip(PARTIAL_CHARACTER)
        shown.append(text[len(settled) :] or PARTIAL_CHARACTER)
        before = text
    return shown


def piece(tokenizer: Tokenizer, token: int) -> str:
    """Return a token's text alone."""
    return tokenizer.decode([token], skip_special_tokens=False)
