"""Online algorithms: columns of numbers beside the sampled tokens, and losses on them. The loop is rl/improve.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from amenable.data.batches import Batch
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
"""the mean loss over a batch's response tokens, and statistics by metric name"""


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
    def standardize_advantages(self) -> bool:
        """True where advantages are standardised over a step's tokens before the updates."""
        ...

    @property
    def group(self) -> int:
        """Answers to one prompt that its advantages need."""
        ...

    def look(self, experience: Experience, bars: Bars) -> None:
        """Add the columns that models must be asked for, such as a critic's values. `ref_logps` are there."""
        ...

    def estimate(self, experience: Experience, kl_coef: float) -> None:
        """Add the column `advantages`, and whatever else the losses or the traces read."""
        ...


def policy_logprobs(
    policy: Decoder, batch: Batch, old: Columns, runtime: Runtime, temperature: float, entropy_coef: float = 0.0
) -> tuple[Tensor, Tensor, Stats]:
    """Return log-probabilities [M] of a batch's response tokens, the mean entropy, and statistics of both.

    Without an `entropy_coef` no gradient of the entropy is computed.
    """
    with runtime.autocast():
        logps, entropies = forward.trained_logprobs(policy, batch, temperature, entropy=True)
    assert entropies is not None
    entropy = entropies.mean() if entropy_coef else entropies.detach().mean()
    moved = (logps - old["logps"]).detach()
    return (
        logps,
        entropy,
        {
            "policy/entropy_avg": entropy.detach(),
            "policy/ratio_var": moved.exp().var(unbiased=False),
            "sampling/logp_difference": moved.abs().mean(),
        },
    )


def every(column: Tensor) -> Tensor:
    """Return the mask of a flat column: every token counts."""
    return torch.ones_like(column, dtype=torch.bool)
