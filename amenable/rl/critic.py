"""A critic beside a policy: its options, the values that it adds to an experience, and its loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from amenable.data.batches import Batch
from amenable.functional.losses import value_loss
from amenable.generation.rollout import pad_to_mask
from amenable.models.heads import ScalarModel
from amenable.rl.algorithm import Columns, every
from amenable.rl.experience import Experience
from amenable.rl.options import OnlineOptions
from amenable.train import forward, plan
from amenable.train.defaults import FROM_MODEL, FromModel
from amenable.train.log import Bars
from amenable.train.objective import Stats
from amenable.train.optimizer import Optimizer
from amenable.train.runtime import Runtime


@dataclass(frozen=True, kw_only=True)
class CriticOptions(OnlineOptions):
    """Options of algorithms with a critic."""

    critic_learning_rate: FromModel[float] = FROM_MODEL
    """by default from the size of the critic"""
    gamma: float = 1.0
    lam: float = 0.95
    vf_coef: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(0, self, "vf_coef", "critic_learning_rate")
        plan.require_share(self, "gamma", "lam")


def critic_optimizer(critic: ScalarModel, options: CriticOptions) -> Optimizer:
    """Return the critic's optimizer: the policy's, at a learning rate of its own."""
    return Optimizer([critic], replace(options.optimizer, learning_rate=options.critic_learning_rate))


def add_values(
    critic: ScalarModel, experience: Experience, runtime: Runtime, options: CriticOptions, bars: Bars
) -> None:
    """Add the column of the critic's values of the state before every response token."""
    rows, limit = experience.rollout.rows(), options.max_tokens_per_pass
    values = forward.compute_values(critic, rows, runtime, limit, bars("values"))
    experience.columns["values"] = pad_to_mask(values, experience.rollout.mask)


def critic_loss(
    critic: ScalarModel, batch: Batch, old: Columns, runtime: Runtime, vf_coef: float, clip: float = math.inf
) -> tuple[Tensor, Stats]:
    """Return vf_coef value_loss on a minibatch's value targets `returns`, and its statistics."""
    with runtime.autocast():
        values = forward.masked_values(critic, batch)
    loss, stats = value_loss(values, old["values"], old["returns"], every(values), clip)
    return vf_coef * loss, {"loss/value_avg": loss.detach(), "value/clipfrac_avg": stats["clip_fraction"]}
