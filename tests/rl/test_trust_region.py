"""TRPO's Fisher products, and steps that keep the constraint or are not taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from amenable.data.batches import collate
from amenable.functional.natural_gradient import flatten
from amenable.models.decoder import Decoder
from amenable.models.lora import LoraOptions, add_adapters
from amenable.rl.trust_region import TrustRegion, TrustRegionOptions, fisher_product
from amenable.train import forward, loading
from amenable.train.optimizer import OptimizerConfig
from amenable.train.runtime import Runtime
from amenable.train.trained_weights import freeze

PROMPT = [1, *range(40, 46)]
ROWS = [
    ([*PROMPT, 60, 61], [False] * 7 + [True] * 2),
    ([*PROMPT, 62], [False] * 7 + [True]),
    ([1, 50, 9], [False] * 2 + [True]),
]
OPTIONS = TrustRegionOptions(temperature=0.7, optimizer=OptimizerConfig(learning_rate=1.0))


def lively(make_decoder: Callable[..., Decoder], form: str) -> Decoder:
    """A decoder of which all weights, the top layer or adapters train, none of them at a special point."""
    decoder = make_decoder(hidden_size=8, num_heads=2)
    draw = torch.Generator().manual_seed(3)
    if form == "adapters":
        add_adapters(decoder, LoraOptions(rank=2), 3)
    elif form == "top":
        freeze(decoder, 1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draw)
    return decoder


def trained(decoder: Decoder) -> list[torch.nn.Parameter]:
    return [p for p in decoder.parameters() if p.requires_grad]


def fisher_matrix(decoder: Decoder, temperature: float) -> Tensor:
    """The explicit matrix [P, P], the mean over tokens of sum_v p_v grad log p_v (grad log p_v)^T."""
    parameters, total = trained(decoder), 0
    for row in ROWS:
        logps = (decoder.logits(forward.masked_hidden(decoder, collate([row]))) / temperature).log_softmax(-1)
        for token in logps:
            slopes = [
                flatten(torch.autograd.grad(x, parameters, retain_graph=True, allow_unused=True), parameters)
                for x in token
            ]
            jacobian = torch.stack(slopes)
            total = total + jacobian.t() @ (token.exp()[:, None].detach() * jacobian)
    return total / 4


@pytest.mark.parametrize("form", ["all", "top", "adapters"])
def test_the_product_is_that_of_the_explicit_fisher_matrix(
    make_decoder: Callable[..., Decoder], runtime: Runtime, form: str
) -> None:
    decoder = lively(lambda **changes: make_decoder(vocab_size=72, mlp_width=12, **changes), form)
    matrix = fisher_matrix(decoder, 0.7)
    vector = torch.randn(len(matrix), generator=torch.Generator().manual_seed(0))
    for limit in (4096, 9):
        product = fisher_product(decoder, ROWS, vector, replace(runtime, bf16=True), limit, 0.7)
        assert torch.allclose(product, matrix @ vector, rtol=1e-3, atol=1e-4 * float(product.abs().max()))
    assert product.abs().max() > 1e-3


def test_below_adapters_the_matrices_may_be_in_bf16(make_decoder: Callable[..., Decoder], runtime: Runtime) -> None:
    products = []
    for bf16 in (False, True):
        decoder, own = make_decoder(), replace(runtime, bf16=bf16)
        loading.add_adapters(decoder, LoraOptions(rank=2), 0, Path("base"), own)
        with torch.no_grad():
            for parameter in trained(decoder):
                parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        assert any(p.dtype == torch.bfloat16 for p in decoder.parameters()) == bf16
        vector = torch.randn(sum(p.numel() for p in trained(decoder)), generator=torch.Generator().manual_seed(2))
        products.append(fisher_product(decoder, ROWS, vector, own, 4096, 0.7))
    assert float(torch.cosine_similarity(*products, dim=0)) > 0.98 and products[0].norm() > 0.1
    assert float(products[1].norm() / products[0].norm()) == pytest.approx(1, abs=0.3)


def region(decoder: Decoder, runtime: Runtime, sign: float = -1.0, **options: Any) -> TrustRegion:
    """A step that makes what was sampled likelier, or of a loss that is the other way round than its gradient."""
    trust = TrustRegion(decoder, replace(OPTIONS, **options), runtime)

    def loss() -> float:
        return -sign * -float(torch.cat(forward.compute_logprobs(decoder, ROWS, runtime, 4096, 0.7)).mean())

    trust.aim(ROWS, loss)
    for row in ROWS:
        (-forward.masked_logprobs(decoder, collate([row]), 0.7)[0].sum() / 4).backward()
    return trust


@pytest.mark.parametrize("form", ["all", "top", "adapters"])
@pytest.mark.parametrize("limit", [0.01, 0.3])
def test_a_step_lowers_the_loss_within_the_constraint(
    make_decoder: Callable[..., Decoder], runtime: Runtime, form: str, limit: float
) -> None:
    decoder = lively(make_decoder, form)
    frozen = [p.clone() for p in decoder.parameters() if not p.requires_grad]
    reference = lively(make_decoder, form)
    trust = region(decoder, runtime, trust_region=limit, cg_damping=0.01)
    before = trust.loss()
    assert trust.step() > 0 and all(p.grad is None for p in trust.parameters)
    kls = forward.compute_kls(reference, decoder, ROWS, ROWS, runtime, 4096, 0.7, 0.7)
    kl = float(torch.cat(kls).mean())
    assert trust.metrics["policy/kl"] == pytest.approx(kl, rel=1e-3) and limit / 50 < kl <= limit
    assert trust.metrics["policy/loss_fall"] == pytest.approx(before - trust.loss(), rel=1e-3)
    assert trust.metrics["policy/loss_fall"] > 0
    assert all(torch.equal(p, q) for p, q in zip(frozen, [p for p in decoder.parameters() if not p.requires_grad]))


def test_a_step_that_raises_the_loss_is_not_taken(make_decoder: Callable[..., Decoder], runtime: Runtime) -> None:
    decoder = lively(make_decoder, "all")
    start = [p.clone() for p in decoder.parameters()]
    trust = region(decoder, runtime, sign=1.0, line_search_steps=3)
    trust.step()
    assert trust.metrics["policy/kl"] == 0 and trust.metrics["policy/halvings"] == 4
    assert all(torch.equal(p, q) for p, q in zip(start, decoder.parameters()))


def test_the_schedule_shortens_the_step_and_without_a_gradient_there_is_none(
    make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    trust = region(lively(make_decoder, "all"), runtime)
    trust.step(0.5)
    assert trust.metrics["policy/kl_limit"] == pytest.approx(0.0025) and trust.metrics["policy/kl"] <= 0.0025
    assert trust.step() == 0.0 and trust.rates() == {}


def test_fewer_answers_for_the_fisher_matrix_are_another_step(
    make_decoder: Callable[..., Decoder], runtime: Runtime
) -> None:
    steps = []
    for answers in (0, 1):
        decoder = lively(make_decoder, "all")
        region(decoder, runtime, fisher_answers=answers).step()
        steps.append(flatten(list(decoder.parameters()), list(decoder.parameters())))
    assert not torch.allclose(*steps, atol=1e-6)
