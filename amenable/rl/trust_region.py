"""The policy's step of TRPO, in an optimizer's place: natural gradient, line search, a constraint that is checked."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from amenable import processes
from amenable.functional.kl import exact_kl
from amenable.functional.natural_gradient import flatten, line_search, trust_region_step, unflatten
from amenable.models.decoder import Decoder
from amenable.rl.options import OnlineOptions
from amenable.train import forward, plan
from amenable.train.forward import Row
from amenable.train.optimizer import Optimizer
from amenable.train.runtime import Runtime

PASS_SHARE = 4
"""a pass of a Fisher product, which keeps a graph of the gradient, is as many times smaller than other passes"""


@dataclass(frozen=True, kw_only=True)
class TrustRegionOptions(OnlineOptions):
    """Options of the constraint and the step of TRPO."""

    trust_region: float = 0.01
    """mean KL(old || new), in nats a token, that a step may come to at most; the schedule of --warmup-steps and
    --final-lr-frac multiplies its square root, the length of the step"""
    cg_iterations: int = 10
    """products of conjugate gradient with the Fisher matrix"""
    cg_damping: float = 0.1
    """added to the diagonal of the Fisher matrix"""
    line_search_steps: int = 10
    """times that a step is halved, until the loss is lower and the KL within the constraint; then it is not taken"""
    fisher_answers: int = 0
    """answers whose tokens the Fisher matrix is a mean over; 0 takes all of a step"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_above_zero(self, "trust_region")
        plan.require_at_least(0, self, "cg_damping", "fisher_answers")
        plan.require_at_least(1, self, "cg_iterations", "line_search_steps")


class TrustRegion(Optimizer):
    """The step of a policy from the gradient of a loss on a rollout, within a KL constraint. It has no moments."""

    extra_vectors = 4
    """vectors of the weights' size beyond an optimizer's two moments: conjugate gradient's, and the old policy"""

    def __init__(self, policy: Decoder, options: TrustRegionOptions, runtime: Runtime):
        super().__init__([policy], options.optimizer)
        self.policy, self.options, self.runtime = policy, options, runtime
        self.rows: list[Row] = []
        self.loss: Callable[[], float] = lambda: 0.0
        self.metrics: dict[str, float] = {}

    def aim(self, rows: list[Row], loss: Callable[[], float]) -> None:
        """Set the rollout of the next step: its rows, and the loss on them, computed without gradients."""
        self.rows, self.loss = rows, loss

    def step(self, multiplier: float = 1.0) -> float:
        """Take the step for the gradients that are there, none without; return their norm.

        Calls `on_nonfinite` for a gradient that is not finite.
        """
        processes.sum_gradients(self.parameters)
        if all(p.grad is None for p in self.parameters):
            return 0.0
        gradient = flatten([p.grad for p in self.parameters], self.parameters)
        self.zero_grad()
        if not gradient.isfinite().all():
            self.on_nonfinite("the gradient is not finite", "lower --trust-region")
        options, limit = self.options, self.options.trust_region * multiplier**2
        rows = self.rows[: options.fisher_answers or None]

        def product(vector: Tensor) -> Tensor:
            tokens = max(1, options.max_tokens_per_pass // PASS_SHARE)
            return fisher_product(self.policy, rows, vector, self.runtime, tokens, options.temperature)

        step = trust_region_step(product, gradient, limit, options.cg_damping, options.cg_iterations)
        self.metrics = {"policy/kl_limit": limit, **self.search(step, limit)}
        return float(gradient.norm())

    @torch.no_grad()
    def search(self, step: Tensor, limit: float) -> dict[str, float]:
        """Take the longest of step, step / 2, ... that lowers the loss with a KL of at most `limit`, or none; return
        the KL in nats a token, the fall of the loss, and the halvings."""
        frozen = {id(p): p for p in self.policy.parameters() if not p.requires_grad}
        old, before, halvings = copy.deepcopy(self.policy, frozen), self.loss(), self.options.line_search_steps
        taken = line_search(self.parameters, step, before, lambda: (self.loss(), self.divergence(old)), limit, halvings)
        return {"policy/kl": taken.kl, "policy/loss_fall": taken.fall, "policy/halvings": taken.halvings}

    def divergence(self, old: Decoder) -> float:
        """Return the mean KL(old || policy) over the rollout's tokens, summed over the vocabulary, in nats a token."""
        limit, temperature = self.options.max_tokens_per_pass, self.options.temperature
        models = old, self.policy
        kls = forward.compute_kls(*models, self.rows, self.rows, self.runtime, limit, temperature, temperature)
        return float(torch.cat(kls).double().mean())

    def rates(self, prefix: str = "") -> dict[str, float]:
        """Return nothing: the step has no learning rate."""
        return {}


def fisher_product(
    policy: Decoder, rows: Sequence[Row], vector: Tensor, runtime: Runtime, max_tokens: int, temperature: float = 1.0
) -> Tensor:
    """Return F v [P] in fp32, F the mean over the loss mask's tokens of the Fisher matrix of their distributions.

    F = E[grad log pi (grad log pi)^T] is the second derivative of KL(old || new) where both are one, and F v the
    gradient of (gradient of the KL) . v. vector [P]: of the parameters that train, one after another. Matrix products
    are fp32, but for those with matrices that are stored in bf16.
    """
    parameters = [p for p in policy.parameters() if p.requires_grad]
    rounded = any(p.dtype == torch.bfloat16 for p in policy.parameters())  # frozen matrices below adapters
    products, direction = replace(runtime, bf16=rounded), unflatten(vector, parameters)
    total = torch.zeros_like(vector)
    for _, batch in forward.ordered_batches(rows, products, max_tokens, divided=True):
        with sdpa_kernel(SDPBackend.MATH), products.autocast():  # torch's fused attention has no second derivative
            logits = policy.logits(forward.masked_hidden(policy, batch))
            kl = exact_kl(logits.detach(), logits, temperature, temperature).sum()
            slopes = torch.autograd.grad(kl, parameters, create_graph=True, allow_unused=True)
            used = [(slope, part) for slope, part in zip(slopes, direction) if slope is not None]
            along = torch.stack([(slope * part).sum() for slope, part in used]).sum()
            total += flatten(torch.autograd.grad(along, parameters, allow_unused=True), parameters)
    return processes.summed(total) / sum(sum(mask) for _, mask in rows)
