"""Sampling from logits: repetition penalty, temperature, top-k, top-p, min-p, one draw.

    p = softmax(filters(logits / temperature))        token = first id whose cumulative p exceeds u

Each filter acts on the distribution that the previous filter left (as in Hugging Face `transformers`). Tokens are a
pure function of logits and uniform numbers, so a row never depends on other rows; the log-probability returned is that
of the distribution drawn from.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from amenable.errors import InputError

NUCLEUS_GUESS = 512  # tokens tried first for top-p: sorting the vocabulary costs more than a small model's step
BLOCK = 128  # tokens whose probabilities are summed before the cumulative sum


@dataclass(frozen=True)
class Sampling:
    """Sampling settings. The defaults sample from the model's own distribution."""

    temperature: float = 1.0
    """divides the logits; 0 takes the most probable token"""
    top_k: int = 0
    """keep the k most probable tokens; 0 keeps all"""
    top_p: float = 1.0
    """keep the smallest set of tokens that holds this much probability; 1 keeps all"""
    min_p: float = 0.0
    """keep tokens at least this fraction as probable as the most probable one; 0 keeps all"""
    repetition_penalty: float = 1.0
    """above 1 makes tokens of the prompt and completion so far less likely"""
    max_new_tokens: int = 128
    """the longest completion, in tokens"""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}", how="use 0 (greedy) or more, such as 0.7")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}", how="use a count of tokens, or 0 for all")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}", how="use a probability above 0, up to 1 for all tokens")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}", how="use a fraction from 0 to 1")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise InputError(f"repetition_penalty is {self.repetition_penalty}", how="use 1 for none, or a bit above")
        if not 1 <= self.max_new_tokens <= 10**9:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}", how="use 1 or more, within the context")


def sample(
    logits: Tensor, uniforms: Tensor, sampling: Sampling, penalized: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sample a token per row: logits [R, V], uniforms [R] in [0, 1), penalized [R, V] bool -> tokens [R], logps [R].

    At temperature 0 the log-probability is the model's own, at temperature 1 without filters (a point mass has none).
    """
    adjusted = adjust(logits, sampling, penalized)
    return greedy(adjusted) if sampling.temperature == 0 else draw(adjusted, uniforms)


def adjust(logits: Tensor, sampling: Sampling, penalized: Tensor | None = None) -> Tensor:
    """Return fp32 logits [..., V] whose softmax is the distribution that `sample` draws from; dropped tokens are -inf.

    Trainers apply `adjust` to their logits for the sampler's log-probabilities. penalized [..., V]: the tokens to which
    the repetition penalty applies. At temperature 0 only that penalty is applied.
    """
    logits = logits.float()
    if penalized is not None and sampling.repetition_penalty != 1:
        logits = penalize_repetition(logits, penalized, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return logits
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.top_k:
        logits = top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = top_p(logits, sampling.top_p)
    if sampling.min_p:
        logits = min_p(logits, sampling.min_p)
    return logits


def penalize_repetition(logits: Tensor, penalized: Tensor, penalty: float) -> Tensor:
    """Divide positive and multiply negative logits of `penalized` tokens (Keskar et al., 2019, section 4.1)."""
    return torch.where(penalized, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits of each row and all that equal the k-th (Fan et al., 2018). [..., V] -> [..., V]."""
    if k >= logits.shape[-1]:
        return logits
    threshold = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < threshold, -torch.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of most probable tokens whose mass is at least p (Holtzman et al., 2019). [..., V] -> same.

    The token that crosses p stays, so at least one does. Of tokens with equal logits the smaller ids come first.
    """
    ordered, mass = largest_first(logits, p)
    size = (mass < p).sum(-1, keepdim=True).clamp(max=ordered.shape[-1] - 1) + 1
    cut = ordered.gather(-1, size - 1)
    dropped = logits < cut
    if ((~dropped).sum(-1, keepdim=True) > size).any():
        tied = logits == cut
        room = size - (logits > cut).sum(-1, keepdim=True)
        dropped |= tied & (tied.cumsum(-1) > room)
    return logits.masked_fill(dropped, -torch.inf)


def largest_first(logits: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Return each row's largest logits in order, enough to hold mass p, and their cumulative probability."""
    log_total = logits.logsumexp(-1, keepdim=True)
    if logits.shape[-1] > NUCLEUS_GUESS:
        ordered = logits.topk(NUCLEUS_GUESS, dim=-1).values
        mass = (ordered - log_total).exp().cumsum(-1)
        if (mass[..., -1] >= p).all():
            return ordered, mass
    ordered = logits.sort(dim=-1, descending=True).values
    return ordered, (ordered - log_total).exp().cumsum(-1)


def min_p(logits: Tensor, fraction: float) -> Tensor:
    """Keep tokens with p_i >= fraction * max p (Nguyen et al., 2024). [..., V] -> [..., V]."""
    threshold = logits.amax(-1, keepdim=True) + math.log(fraction)
    return logits.masked_fill(logits < threshold, -torch.inf)


def greedy(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Take the most probable token of each row, the smaller id of equals. logits [R, V] -> tokens [R], logps [R]."""
    largest, tokens = logits.max(-1)
    return tokens, largest - logits.logsumexp(-1)


def draw(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Invert the cumulative distribution of each row. logits [R, V], uniforms [R] in [0, 1) -> tokens [R], logps [R].

    Selects a block of tokens, then a token inside it: a cumulative sum over the vocabulary costs more than its softmax.
    A token of probability 0 is never drawn.
    """
    probs = logits.float().softmax(-1)
    masses = block_masses(probs)
    block, rest = invert(masses, uniforms[:, None] * masses.sum(-1, keepdim=True))
    inside = BLOCK * block + torch.arange(BLOCK, device=probs.device)
    beyond = inside >= probs.shape[-1]
    inside = inside.masked_fill(beyond, probs.shape[-1] - 1)
    index, _ = invert(probs.gather(-1, inside).masked_fill(beyond, 0), rest)
    tokens = inside.gather(-1, index)
    drawn = probs.gather(-1, tokens)
    if (drawn == 0).any():
        # parallel sums may rise by a rounding error at a token without mass
        tokens = torch.where(drawn == 0, probs.argmax(-1, keepdim=True), tokens)
        drawn = probs.gather(-1, tokens)
    return tokens[:, 0], drawn[:, 0].log()


def block_masses(probs: Tensor) -> Tensor:
    """Sum probabilities over blocks of BLOCK neighbours. [R, V] -> [R, ceil(V / BLOCK)]."""
    blocks = probs.shape[-1] // BLOCK
    whole = probs[:, : blocks * BLOCK].unflatten(-1, (blocks, BLOCK)).sum(-1)
    left = probs[:, blocks * BLOCK :]
    return torch.cat([whole, left.sum(-1, keepdim=True)], -1) if left.shape[-1] else whole


def invert(masses: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first index whose cumulative mass exceeds the target, and the target minus the mass before that index.

    masses [R, n], target [R, 1] -> [R, 1], [R, 1]. A target that rounding made as large as the total counts as below.
    """
    cumulative = masses.cumsum(-1)
    total = cumulative[:, -1:]
    target = torch.minimum(target, total.nextafter(torch.zeros_like(total)))
    index = torch.searchsorted(cumulative, target, right=True).clamp(max=masses.shape[-1] - 1)
    return index, (target - (cumulative - masses).gather(-1, index)).clamp(min=0)
