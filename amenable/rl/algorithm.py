"""Online algorithms: columns of numbers beside the sampled tokens, and losses on them. The loop is rl/improve.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from amenable.data.batches import Batch
from amenable.functional import kl
from amenable.functional.importance_sampling import importance_weights
from amenable.functional.losses import LOG_RATIO_LIMIT, ratio_stats
from amenable.functional.masked import masked_sum, segment_means, segment_sums
from amenable.functional.rewards import token_rewards
from amenable.models.decoder import Decoder
from amenable.models.heads import ValueHead
from amenable.rl.experience import Experience
from amenable.rl.models import Models
from amenable.rl.options import OnlineOptions
from amenable.train import forward
from amenable.train.log import Bars
from amenable.train.objective import Objective, Stats
from amenable.train.optimizer import Optimizer
from amenable.train.runtime import Runtime

Columns = Mapping[str, Tensor]
"""flat [M]: a number for each response token of a minibatch, by name"""
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

    def compute_values(self, experience: Experience, bars: Bars) -> None:
        """Add columns that need a forward pass, such as a critic's values. `ref_logps` are there already."""
        ...

    def compute_advantages(self, experience: Experience, kl_coef: float) -> None:
        """Add the column `advantages`, and whatever else the losses or the traces read."""
        ...


@runtime_checkable
class Adaptive(Protocol):
    """An algorithm with numbers of its own that go on from step to step, such as a baseline: a checkpoint has them."""

    def adapt(self, experience: Experience) -> dict[str, float]:
        """Move its numbers, once the updates on a step's experience are done; return metrics."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@runtime_checkable
class Selective(Protocol):
    """An algorithm that learns from some of a step's answers, or from pairs of them."""

    def select(self, experience: Experience) -> Sequence[Any]:
        """Return the answers, or pairs, that the updates are of, once advantages are estimated."""
        ...


@runtime_checkable
class Paired(Selective, Protocol):
    """An algorithm with a loss on pairs of answers in place of `losses`."""

    def objective(self, experience: Experience) -> Objective[Any]:
        """Return the loss on an experience; an element is what `select` returns."""
        ...


def policy_logprobs(
    policy: Decoder,
    batch: Batch,
    old: Columns,
    runtime: Runtime,
    options: OnlineOptions,
    head: ValueHead | None = None,
) -> tuple[Tensor, Tensor, Columns, Stats]:
    """Return log-probabilities [M] of a batch's response tokens, the entropies [M] there, the columns that a loss
    reads, and statistics.

    The column `logps` is the old policy's: the trainer's before a step's updates. Where `old` has none nothing has
    moved yet, and it is these log-probabilities themselves, so that every ratio is exactly 1 and has its gradient. The
    column `advantages` is weighted by the correction for the sampler. Without an entropy_coef no gradient of the
    entropies is computed. With a head on the policy's trunk, the column `new_values` is its values, with gradient.
    """
    with runtime.autocast():
        hidden = forward.masked_hidden(policy, batch)
        logps, entropies = forward.logprobs_of_hidden(policy, hidden, batch, options.temperature, entropy=True)
    assert entropies is not None
    entropies = entropies if options.entropy_coef else entropies.detach()
    columns = {"logps": logps.detach(), **old} | ({} if head is None else {"new_values": head(hidden)})
    log_ratio = logps.detach() - columns["logps"]
    moved = ratio_stats(log_ratio, log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp(), every(logps))
    stats = {
        "policy/entropy_avg": entropies.detach().mean(),
        "policy/approxkl_avg": moved["approx_kl"],
        "policy/ratio": moved["ratio"],
    }
    stats |= sampler_stats(columns["logps"] - old["sampler_logps"])
    if options.sampler_correction != "none":
        weights, bounded = importance_weights(
            columns["logps"],
            old["sampler_logps"],
            *answers_of(batch),
            options.sampler_correction_cap,
            options.sampler_correction,
            options.sampler_correction_level,
        )
        columns["advantages"] = weights * old["advantages"]
        stats |= {"sampling/weight": weights.mean(), "sampling/weights_bounded": bounded.float().mean()}
    return logps, entropies, columns, stats


def sampler_stats(log_ratio: Tensor) -> Stats:
    """Return statistics of the trainer's log-probabilities less the sampler's [M]; sampling/kl estimates KL(sampler ||
    trainer) in nats a token (k3)."""
    ratio = log_ratio.exp()
    return {
        "sampling/logp_difference": log_ratio.abs().mean(),
        "sampling/kl": kl.k3(torch.zeros_like(log_ratio), log_ratio).mean(),
        "sampling/ratio": ratio.mean(),
        "sampling/ratio_var": ratio.var(unbiased=False),
    }


def divergences(experience: Experience, options: OnlineOptions) -> Tensor:
    """Return the estimate of KL from the reference at every response token, [B, T], as the rewards have it."""
    assert options.estimator != "full"
    return kl.estimate(options.estimator, experience.rollout.logps, experience.columns["ref_logps"])


def penalized_scores(experience: Experience, kl_coef: float, options: OnlineOptions) -> Tensor:
    """Return the scores [B], less the price of KL summed over each answer unless that stands in the loss."""
    if options.kl_in == "loss":
        return experience.scores
    return experience.scores - kl_coef * masked_sum(divergences(experience, options), experience.rollout.mask, 1)


def penalized_rewards(experience: Experience, kl_coef: float, options: OnlineOptions) -> Tensor:
    """Return token rewards [B, T]: the score on the last token, less the price of KL unless that stands in the loss."""
    rollout, ref_logps = experience.rollout, experience.columns["ref_logps"]
    if options.kl_in == "loss" or options.estimator == "full":
        return token_rewards(rollout.logps, ref_logps, experience.scores, rollout.mask, 0.0)
    return token_rewards(rollout.logps, ref_logps, experience.scores, rollout.mask, kl_coef, options.estimator)


def kl_in_loss(models: Models, options: OnlineOptions, batch: Batch, logps: Tensor, old: Columns) -> Tensor:
    """Return the estimate of KL from the reference at every token [M] of a minibatch, with its gradient."""
    if options.estimator != "full":
        return kl.estimate(options.estimator, logps, old["ref_logps"])
    assert isinstance(models.reference, Decoder)  # the options refuse servers here
    with models.runtime.autocast():
        return forward.masked_kls(models.policy, models.reference, batch, options.temperature)


def regularizers(
    models: Models,
    options: OnlineOptions,
    kl_coef: float,
    batch: Batch,
    logps: Tensor,
    entropies: Tensor,
    old: Columns,
) -> Tensor:
    """Return each token's terms [M] of the loss beside its surrogate: kl_coef times the KL from the reference where
    that stands in the loss, less entropy_coef times the entropy."""
    terms = -options.entropy_coef * entropies if options.entropy_coef else torch.zeros_like(logps)
    return terms + kl_coef * kl_in_loss(models, options, batch, logps, old) if options.kl_in == "loss" else terms


def answers_of(batch: Batch) -> tuple[Tensor, int]:
    """Return the answer [M] that each token of the loss mask belongs to, from 0, and the number of answers."""
    return forward.layout_of(batch).rows[batch.loss_mask], len(batch.lengths)


def sum_by_answer(column: Tensor, batch: Batch) -> Tensor:
    """Return the sum [B] of a flat column [M] over each answer's tokens."""
    return segment_sums(column, *answers_of(batch))


def mean_by_answer(column: Tensor, batch: Batch) -> Tensor:
    """Return the mean [B] of a flat column [M] over each answer's tokens."""
    return segment_means(column, *answers_of(batch))


def every(column: Tensor) -> Tensor:
    """Return the mask of a flat column: every token counts."""
    return torch.ones_like(column, dtype=torch.bool)
