"""What PPO makes of single tokens: answers to a few watched prompts, with every number that a token is given.

    r_t = -kl_coef kl_t, plus the score on the last token        kl_t = log pi(y_t) - log ref(y_t)
    A_t = GAE(r, V), as it is                                    ratio_t = pi'(y_t) / pi(y_t)

pi is the policy that drew the answer, pi' the same after the iteration's updates. `observe` is called before them and
`rows_of` after them. Rewards are not whitened here and advantages not standardised: both depend on the other answers
of a batch, and a watched answer is in none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from amenable.functional.advantages import masked_gae
from amenable.functional.rewards import token_rewards
from amenable.models.decoder import Decoder
from amenable.rl.experience import Experience, Targets
from amenable.rl.models import Actors
from amenable.text.tokenizer import Tokenizer
from amenable.train import forward
from amenable.train.runtime import Runtime

T = TypeVar("T")

ALTERNATIVES = 5
OPEN = "\ufffd"
"""stands for a token that ends inside a character"""

Alternative = tuple[int, float]
"""a token that could have been drawn, and its probability"""


@dataclass(frozen=True)
class Settings:
    """The numbers by which PPO treats an answer."""

    kl_coef: float
    gamma: float
    lam: float
    temperature: float
    max_tokens: int
    """of one pass of a model"""


@dataclass(frozen=True)
class Trace:
    """Watched answers and what an iteration sees in them before its updates."""

    names: list[str]
    """of the prompts"""
    experience: Experience
    targets: Targets
    """raw advantages, value targets, token rewards; [B, T] each"""
    top: list[list[list[Alternative]]]
    """of every answer's every token, the likeliest in that place"""
    settings: Settings


def evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items, or all where there are fewer, at even distances from the first on.

    >>> evenly("abcdefgh", 3)
    ['a', 'c', 'f']
    """
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def observe(actors: Actors, names: list[str], experience: Experience, settings: Settings) -> Trace:
    """The watched answers' rewards, advantages and alternatives, under the policy that drew them."""
    rollout = experience.rollout
    rewards = token_rewards(rollout.logps, experience.ref_logps, experience.scores, rollout.mask, settings.kl_coef)
    advantages, returns = masked_gae(rewards, experience.values, rollout.mask, settings.gamma, settings.lam)
    top = likeliest(actors.policy, rollout.rows(), actors.runtime, settings.max_tokens, settings.temperature)
    return Trace(names, experience, Targets(advantages, returns, rewards), top, settings)


@torch.inference_mode()
def likeliest(
    decoder: Decoder,
    rows: Sequence[forward.Row],
    runtime: Runtime,
    max_tokens: int,
    temperature: float,
    count: int = ALTERNATIVES,
) -> list[list[list[Alternative]]]:
    """At each row's every trained token the `count` likeliest ones under softmax(logits / temperature), best first."""
    out: list[list[list[Alternative]]] = [[] for _ in rows]
    for chosen, batch in forward.in_chunks(rows, runtime, max_tokens):
        with runtime.autocast():
            hidden = forward.trained_hidden(decoder, batch)
            for i, states in zip(chosen, hidden.split([sum(rows[i][1]) for i in chosen])):
                logits = decoder.logits(states).float() / temperature
                found = logits.softmax(-1).topk(min(count, logits.shape[-1]))
                out[i] = [list(zip(*place)) for place in zip(found.indices.tolist(), found.values.tolist())]
    return out


def rows_of(trace: Trace, actors: Actors) -> list[dict[str, Any]]:
    """The rows of traces.jsonl, one an answer, once the policy has taken the iteration's updates."""
    rows, settings = trace.experience.rollout.rows(), trace.settings
    after = forward.row_logprobs(actors.policy, rows, actors.runtime, settings.max_tokens, settings.temperature)
    return [{**told(trace, i, actors.tokenizer), **numbers(trace, i, after[i])} for i in range(len(rows))]


def told(trace: Trace, i: int, tokenizer: Tokenizer) -> dict[str, Any]:
    """What was asked and said in answer i, and what it was worth.

    `score` is what the answer was paid, after clipping and the price of a missing end; `raw_score` is the scorer's
    word. `score_index` is the token at which the scorer was read: the answer's last.
    """
    experience, rollout = trace.experience, trace.experience.rollout
    prompt, response = rollout.prompts[i], rollout.completions[i]
    return {
        "id": trace.names[i],
        "prompt": tokenizer.decode(prompt),
        "prompt_tokens": pieces(tokenizer, prompt),
        "tokens": pieces(tokenizer, response),
        "top": [[(piece(tokenizer, token), round(p, 4)) for token, p in place] for place in trace.top[i]],
        "ended": bool(rollout.ended[i]),
        "score": round(float(experience.scores[i]), 4),
        "raw_score": round(float(experience.raw_scores[i]), 4),
        "score_index": len(response) - 1,
        "kl_coef": round(trace.settings.kl_coef, 4),
    }


def numbers(trace: Trace, i: int, after: Tensor) -> dict[str, list[float]]:
    """What each of the T tokens of answer i was given. after [T]: their log-probabilities since the updates."""
    experience, mask = trace.experience, trace.experience.rollout.mask[i]
    logps, ref_logps = experience.rollout.logps[i][mask], experience.ref_logps[i][mask]
    by_name = {
        "logps": logps,
        "ref_logps": ref_logps,
        "kl": logps - ref_logps,
        "values": experience.values[i][mask],
        "rewards": trace.targets.rewards[i][mask],
        "advantages": trace.targets.advantages[i][mask],
        "returns": trace.targets.returns[i][mask],
        "ratios": (after - logps).exp(),
    }
    return {name: [round(value, 4) + 0.0 for value in values.tolist()] for name, values in by_name.items()}


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Each token's share of the text, control tokens by name; joined, they are the text.

    But a token that ends inside a character is U+FFFD, and the one that completes the character is all of it.
    """
    shown, before = [], ""
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], keep_control=True)
        settled = before if text.startswith(before) else before.rstrip(OPEN)
        shown.append(text[len(settled) :] or OPEN)
        before = text
    return shown


def piece(tokenizer: Tokenizer, token: int) -> str:
    """A token alone."""
    return tokenizer.decode([token], keep_control=True)
