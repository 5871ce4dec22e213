"""Learning of a reward from comparisons of clips (Christiano et al., 2017, section 2.2.3).

    P(left) = (1 - n) sigma(sum_t r(left_t) - sum_t r(right_t)) + n / 2      L = -mu log P(left) - (1 - mu) log P(right)

mu is the answer, n the share of answers that are taken to be a coin's. Every member learns from its own bootstrap
sample; what is not in it validates the member, and the weight decay, one for all, moves so that the validation loss
stays between 1.1 and 1.5 times the training loss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from amenable.control.comparisons import Comparisons
from amenable.control.reward_ensemble import RewardEnsemble
from amenable.functional.losses import preference_losses
from amenable.seeds import seeded_generator

LEAST_RATIO, GREATEST_RATIO = 1.1, 1.5
"""of validation loss to training loss: outside, weight decay is lowered or raised"""
DECAY_FACTOR = 1.5
DECAY_RANGE = 1e-4, 30.0
VALIDATED = 128
"""comparisons at most that losses and accuracy are reported of after an update"""
Metrics = dict[str, float]


class RewardLearner:
    """An ensemble, its optimizer and the weight decay."""

    def __init__(
        self, ensemble: RewardEnsemble, learning_rate: float, batch: int, noise: float, weight_decay: float, seed: int
    ):
        """batch: comparisons in an update. weight_decay: at the start; 0 stays 0."""
        self.ensemble, self.batch, self.noise, self.seed = ensemble, batch, noise, seed
        self.weight_decay, self.fits = weight_decay, 0
        self.optimizer = torch.optim.AdamW(ensemble.parameters(), learning_rate, weight_decay=weight_decay, fused=True)

    def losses(self, comparisons: Comparisons, numbers: Tensor) -> Tensor:
        """Return every member's loss of comparisons with answers, by their numbers: [M, B]."""
        rows = numbers.numpy()
        assert comparisons.left is not None and comparisons.right is not None
        left, right = (self.ensemble.of_clips(clips[rows]).sum(2) for clips in (comparisons.left, comparisons.right))
        return preference_losses(left, right, label_smoothing=1 - comparisons.answers[numbers], noise=self.noise)

    def fit(self, comparisons: Comparisons, updates: int) -> Metrics:
        """Take `updates` steps on the comparisons with answers, and return metrics; none without such comparisons."""
        numbers = (comparisons.labelled & ~comparisons.held_out).nonzero().flatten()
        if not len(numbers):
            return {}
        self.fits += 1
        generator, order = seeded_generator(self.seed, "reward minibatches", self.fits), numbers[:0]
        for _ in range(updates):
            if len(order) < min(self.batch, len(numbers)):
                order = numbers[torch.randperm(len(numbers), generator=generator)]
            rows, order = order[: self.batch], order[self.batch :]
            weights = comparisons.weights[:, rows]
            loss = (weights * self.losses(comparisons, rows)).sum(1) / weights.sum(1).clamp(min=1)
            self.optimizer.zero_grad(set_to_none=True)
            loss.sum().backward()
            self.optimizer.step()
        sample = torch.randperm(len(numbers), generator=generator)[:VALIDATED]
        return self.validate(comparisons, numbers[sample])

    @torch.no_grad()
    def validate(self, comparisons: Comparisons, numbers: Tensor) -> Metrics:
        """Return losses in and out of the bootstrap samples, and the accuracy on what is held out; adapt the decay."""
        losses, weights = self.losses(comparisons, numbers), comparisons.weights[:, numbers]
        training = float((weights * losses).sum() / weights.sum().clamp(min=1))
        metrics = {"reward/loss": training, **self.accuracy(comparisons, numbers, "reward/accuracy")}
        if (outside := weights == 0).any():
            validation = float(losses[outside].mean())
            self.adapt_decay(validation / max(training, 1e-8))
            metrics["reward/validation_loss"] = validation
        held_out = (comparisons.labelled & comparisons.held_out).nonzero().flatten()
        held_out_accuracy = self.accuracy(comparisons, held_out, "eval_rm/accuracy")
        return {**metrics, **held_out_accuracy, "reward/weight_decay": self.weight_decay}

    def accuracy(self, comparisons: Comparisons, numbers: Tensor, name: str) -> Metrics:
        """Return by its name the share of decided comparisons whose better clip has the higher reward, equal rewards
        one half; nothing where none is decided."""
        numbers = numbers[comparisons.answers[numbers] != 0.5]
        if not len(numbers):
            return {}
        rows = numbers.numpy()
        assert comparisons.left is not None and comparisons.right is not None
        left, right = (self.ensemble.returns(side[rows]).mean(0) for side in (comparisons.left, comparisons.right))
        agreement = ((left - right) * (comparisons.answers[numbers] - 0.5)).sign()
        return {name: float((agreement.mean() + 1) / 2)}

    def adapt_decay(self, ratio: float) -> None:
        """Raise or lower the weight decay by the ratio of validation to training loss."""
        if not self.weight_decay or LEAST_RATIO <= ratio <= GREATEST_RATIO:
            return
        factor = DECAY_FACTOR if ratio > GREATEST_RATIO else 1 / DECAY_FACTOR
        self.weight_decay = float(np.clip(self.weight_decay * factor, *DECAY_RANGE))
        for group in self.optimizer.param_groups:
            group["weight_decay"] = self.weight_decay

    def state_dict(self) -> dict[str, Any]:
        facts = {"weight_decay": self.weight_decay, "fits": self.fits}
        moments = self.ensemble.normalizer.state_dict()
        parts = {"ensemble": self.ensemble.state_dict(), "observations": moments}
        return {**facts, **parts, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight_decay, self.fits = state["weight_decay"], state["fits"]
        self.ensemble.load_state_dict(state["ensemble"])
        self.ensemble.normalizer.load_state_dict(state["observations"])
        self.optimizer.load_state_dict(state["optimizer"])
