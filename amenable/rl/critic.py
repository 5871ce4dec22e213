"""A critic beside a policy, or a value head on its trunk: options, the values that it adds, and its loss.

separate    a model of its own, with its own passes: L_V = vf_coef value_loss
shared      a head on the policy's hidden states, in the policy's passes: L + vf_coef value_loss (Schulman et al.,
            2017, eq. 9); no critic's memory, and no critic that starts as a reward model
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from amenable.data.batches import Batch
from amenable.functional.losses import value_loss
from amenable.generation.rollout import pad_to_mask
from amenable.models.heads import ScalarModel, ValueHead
from amenable.rl.algorithm import Columns, every
from amenable.rl.experience import Experience
from amenable.rl.models import Models, load_critic
from amenable.rl.options import OnlineOptions
from amenable.train import forward, plan
from amenable.train.defaults import FROM_MODEL, FromModel
from amenable.train.log import Bars
from amenable.train.objective import Stats
from amenable.train.optimizer import Optimizer


@dataclass(frozen=True, kw_only=True)
class CriticOptions(OnlineOptions):
    """Options of algorithms with a critic."""

    critic: Literal["separate", "shared"] = "separate"
    """a model of its own, or a value head on the policy's trunk, trained with it"""
    critic_learning_rate: FromModel[float] = FROM_MODEL
    """by default from the size of the critic; of the head alone where it is shared"""
    gamma: float = 1.0
    lam: float = 0.95
    vf_coef: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(0, self, "vf_coef", "critic_learning_rate")
        plan.require_share(self, "gamma", "lam")


Critic = ScalarModel | ValueHead
"""a model of its own, or a head on the policy's trunk"""


def make_critic(models: Models, options: CriticOptions) -> Critic:
    """Return the critic that the options describe; a separate one starts as `load_critic` says, a head at zero."""
    return ValueHead(models.policy) if options.critic == "shared" else load_critic(models, options)


def head_of(critic: Critic) -> ValueHead | None:
    """Return a critic that is a head on the policy's trunk; None for a model of its own."""
    return critic if isinstance(critic, ValueHead) else None


def critic_optimizer(critic: Critic, options: CriticOptions) -> Optimizer:
    """Return the critic's optimizer: the policy's, at a learning rate of its own."""
    return Optimizer([critic], replace(options.optimizer, learning_rate=options.critic_learning_rate))


def add_values(critic: Critic, experience: Experience, models: Models, options: CriticOptions, bars: Bars) -> None:
    """Add the column of the critic's values of the state before every response token."""
    passes = models.runtime, options.max_tokens_per_pass, bars("values")
    if isinstance(critic, ValueHead):
        values = forward.compute_head_values(models.policy, critic, experience.rollout.rows(), *passes)
    else:
        values = forward.compute_values(critic, experience.rollout.rows(), *passes)
    experience.columns["values"] = pad_to_mask(values, experience.rollout.mask)


def critic_loss(
    critic: Critic, models: Models, batch: Batch, old: Columns, vf_coef: float, clip: float = math.inf
) -> tuple[Tensor, Stats]:
    """Return vf_coef value_loss on a minibatch's value targets `returns`, and its statistics. A head reads the policy's
    trunk without changing it."""
    with models.runtime.autocast():
        if isinstance(critic, ValueHead):
            with torch.no_grad():
                hidden = forward.masked_hidden(models.policy, batch)
            values = critic(hidden)
        else:
            values = forward.masked_values(critic, batch)
    return loss_of_values(values, old, vf_coef, clip)


def add_value_loss(
    loss: Tensor, stats: Stats, old: Columns, vf_coef: float, clip: float = math.inf
) -> tuple[Tensor, Stats]:
    """Return a policy's loss and statistics, plus those of the values by a head in its pass, where there is one."""
    if "new_values" not in old:
        return loss, stats
    own, own_stats = loss_of_values(old["new_values"], old, vf_coef, clip)
    return loss + own, stats | own_stats


def loss_of_values(values: Tensor, old: Columns, vf_coef: float, clip: float) -> tuple[Tensor, Stats]:
    """Return vf_coef value_loss of new values [M], and its statistics."""
    loss, stats = value_loss(values, old["values"], old["returns"], every(values), clip)
    return vf_coef * loss, {"loss/value_avg": loss.detach(), "value/clipfrac_avg": stats["clip_fraction"]}
