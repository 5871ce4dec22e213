"""Online algorithms: columns of numbers beside the sampled tokens, and losses on them. The loop is rl/improve.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from amenable.data.batches import Batch
from amenable.functional.losses import LOG_RATIO_LIMIT, ratio_stats
from amenable.models.decoder import Decoder
from amenable.rl.experience import Experience
from amenable.train import forward
from amenable.train.log import Bars
from amenable.train.objective import Stats
from amenable.train.optimizer import Optimizer
from amenable.train.runtime import Runtime

Columns = Mapping[str, Tensor]
"""flat [M]: a number for each response token of a minibatch, by name; `logps` are the sampler's"""
Loss = Callable[[Batch, Columns], tuple[Tensor, Stats]]
"""the mean loss over a batch's response tokens, or answers, and statistics by metric name"""
MeanOver = Literal["tokens", "answers"]


class Algorithm(Protocol):
    """An algorithm that learns from its own samples. `rl/improve.py` has the loop."""

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """Models that train, by name: the policy first, and a critic where there is one."""
        ...

    @property
    def optimizers(self) -> Mapping[str, Optimizer]:
        """Their optimizers, by the same names."""
        ...

    @property
    def losses(self) -> Sequence[Loss]:
        """Losses, computed and backpropagated one after another in each microbatch."""
        ...

    @property
    def mean_over(self) -> MeanOver:
        """The unit of the mean that the losses are: a minibatch's response tokens, or its answers."""
        ...

    @property
    def standardize_advantages(self) -> bool:
        """True where advantages are standardised over a step's tokens before the updates."""
        ...

    @property
    def group(self) -> int:
        """Answers to one prompt that its advantages need."""
        ...

    def look(self, experience: Experience, bars: Bars) -> None:
        """Add columns that need a forward pass, such as a critic's values. `ref_logps` are there already."""
        ...

    def estimate(self, experience: Experience, kl_coef: float) -> None:
        """Add the column `advantages`, and whatever else the losses or the traces read."""
        ...


def policy_logprobs(
    policy: Decoder, batch: Batch, old: Columns, runtime: Runtime, temperature: float, entropy_coef: float = 0.0
) -> tuple[Tensor, Tensor, Stats]:
    """Return log-probabilities [M] of a batch's response tokens, the entropies [M] there, and statistics of both.

    Without an `entropy_coef` no gradient of the entropies is computed.
    """
    with runtime.autocast():
        logps, entropies = forward.masked_logprobs(policy, batch, temperature, entropy=True)
    assert entropies is not None
    entropies = entropies if entropy_coef else entropies.detach()
    log_ratio = (logps - old["logps"]).detach()
    moved = ratio_stats(log_ratio, log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp(), every(logps))
    return (
        logps,
        entropies,
        {
            "policy/entropy_avg": entropies.detach().mean(),
            "policy/approxkl_avg": moved["approx_kl"],
            "policy/ratio": moved["ratio"],
            "policy/ratio_var": log_ratio.exp().var(unbiased=False),
            "sampling/logp_difference": log_ratio.abs().mean(),
        },
    )


def sum_by_answer(column: Tensor, batch: Batch) -> Tensor:
    """Return the sum [B] of a flat column [M] over each answer's tokens."""
    answers = forward.layout_of(batch).rows[batch.loss_mask]
    return torch.zeros(len(batch.lengths), dtype=column.dtype, device=column.device).index_add(0, answers, column)


def mean_by_answer(column: Tensor, batch: Batch) -> Tensor:
    """Return the mean [B] of a flat column [M] over each answer's tokens."""
    return sum_by_answer(column, batch) / sum_by_answer(torch.ones_like(column), batch)


def every(column: Tensor) -> Tensor:
    """Return the mask of a flat column: every token counts."""
    return torch.ones_like(column, dtype=torch.bool)
