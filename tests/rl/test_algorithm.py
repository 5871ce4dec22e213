"""Log-probabilities and statistics that every online algorithm's loss begins with."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from amenable.data.batches import collate, shared_prefix_lengths
from amenable.generation.rollout import Rollout, length_mask
from amenable.models.decoder import Decoder
from amenable.rl.algorithm import (
    every,
    mean_by_answer,
    penalized_rewards,
    penalized_scores,
    policy_logprobs,
    regularizers,
    sum_by_answer,
)
from amenable.rl.experience import Experience
from amenable.rl.models import Models
from amenable.rl.options import OnlineOptions
from amenable.train import forward
from amenable.train.runtime import Runtime

ROWS = [([1, 40, 41, 60, 61], [False] * 3 + [True] * 2), ([1, 50, 70], [False] * 2 + [True])]


@pytest.fixture
def decoder(make_decoder: Callable[..., Decoder]) -> Decoder:
    return make_decoder()


OPTIONS = OnlineOptions(temperature=0.7)


def test_statistics_compare_with_the_old_policy_and_with_the_sampler(decoder: Decoder, runtime: Runtime) -> None:
    now = torch.cat(forward.compute_logprobs(decoder, ROWS, runtime, 100, 0.7))
    moved, rounded = torch.tensor([0.1, -0.3, 0.0]), torch.tensor([0.02, 0.0, -0.07])
    old = {"logps": now - moved, "sampler_logps": now - moved - rounded}
    logps, entropies, columns, stats = policy_logprobs(decoder, collate(ROWS), old, runtime, OPTIONS)
    assert torch.allclose(logps, now, atol=1e-5) and logps.requires_grad and columns == old
    assert float(stats["policy/entropy_avg"]) == pytest.approx(float(entropies.mean())) and float(entropies.min()) > 0
    assert float(stats["policy/ratio"]) == pytest.approx(float(moved.exp().mean()), rel=1e-4)
    assert float(stats["policy/approxkl_avg"]) == pytest.approx(float((moved.exp() - 1 - moved).mean()), rel=1e-3)
    assert float(stats["sampling/logp_difference"]) == pytest.approx(0.03, abs=1e-5)
    assert float(stats["sampling/ratio"]) == pytest.approx(float(rounded.exp().mean()), rel=1e-4)
    assert float(stats["sampling/ratio_var"]) == pytest.approx(float(rounded.exp().var(unbiased=False)), rel=1e-3)
    assert float(stats["sampling/kl"]) == pytest.approx(float((rounded.exp() - 1 - rounded).mean()), rel=1e-3)


def test_before_any_update_ratios_are_exactly_one_whatever_the_sampler(decoder: Decoder, runtime: Runtime) -> None:
    old = {"sampler_logps": torch.tensor([-1.0, -2.0, -3.0])}
    logps, _, columns, stats = policy_logprobs(decoder, collate(ROWS), old, runtime, OPTIONS)
    assert torch.equal(columns["logps"], logps) and not columns["logps"].requires_grad
    assert stats["policy/ratio"] == 1 and stats["policy/approxkl_avg"] == 0 and stats["sampling/logp_difference"] > 0.1


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_correction_weighs_advantages_by_trainer_over_sampler(
    decoder: Decoder, runtime: Runtime, level: Any
) -> None:
    now = torch.cat(forward.compute_logprobs(decoder, ROWS, runtime, 100, 0.7))
    rounded, advantages = torch.tensor([0.3, -0.2, 0.9]), torch.tensor([1.0, -1.0, 2.0])
    options = replace(OPTIONS, sampler_correction="truncate", sampler_correction_level=level)
    old = {"sampler_logps": now - rounded, "advantages": advantages}
    _, _, columns, stats = policy_logprobs(decoder, collate(ROWS), old, runtime, options)
    weights = rounded.exp() if level == "token" else torch.tensor([0.1, 0.1, 0.9]).exp()
    weights[2] = 2.0
    assert torch.allclose(columns["advantages"], weights * advantages, atol=1e-4)
    assert float(stats["sampling/weight"]) == pytest.approx(float(weights.mean()), rel=1e-4)
    assert float(stats["sampling/weights_bounded"]) == pytest.approx(1 / 3)
    assert "sampling/weight" not in policy_logprobs(decoder, collate(ROWS), old, runtime, OPTIONS)[-1]


def test_the_entropy_has_a_gradient_only_where_it_is_rewarded(decoder: Decoder, runtime: Runtime) -> None:
    old = {"sampler_logps": torch.zeros(3)}
    _, entropy, *_ = policy_logprobs(decoder, collate(ROWS), old, runtime, OPTIONS)
    _, rewarded, *_ = policy_logprobs(decoder, collate(ROWS), old, runtime, replace(OPTIONS, entropy_coef=0.1))
    assert not entropy.requires_grad and rewarded.requires_grad
    assert torch.allclose(entropy, rewarded.detach())


def test_every_token_of_a_flat_column_counts() -> None:
    assert every(torch.zeros(3)).tolist() == [True] * 3


def test_a_column_is_summed_and_averaged_over_each_answer() -> None:
    column = torch.tensor([1.0, 2.0, 5.0])
    assert sum_by_answer(column, collate(ROWS)).tolist() == [3.0, 5.0]
    assert mean_by_answer(column, collate(ROWS)).tolist() == [1.5, 5.0]


def test_answers_of_a_shared_prompt_are_summed_apart() -> None:
    prompt = list(range(40, 52))
    rows = [([1, *prompt, end, 99], [False] * 13 + [True] * 2) for end in (60, 61)]
    batch = collate(rows, shared_prefix_lengths(rows))
    assert batch.prefix_lengths and sum_by_answer(torch.tensor([1.0, 2.0, 3.0, 4.0]), batch).tolist() == [3.0, 7.0]


def test_kl_is_paid_for_in_the_scores_in_the_rewards_or_in_the_loss() -> None:
    mask, logps = length_mask([2, 1]), torch.tensor([[-1.0, -2.0], [-3.0, 0.0]])
    rollout = Rollout([[1], [1]], [[5, 6], [7]], torch.tensor([True, True]), mask, logps)
    columns = {"ref_logps": torch.tensor([[-1.5, -2.0], [-2.8, 9.0]])}
    scores = torch.tensor([1.0, 2.0])
    experience = Experience(rollout, scores, scores, columns)
    expected = {"k1": (0.5, -0.2), "k2": (0.125, 0.02), "abs": (0.5, 0.2)}
    for estimator, (first, second) in expected.items():
        options = OnlineOptions(kl_estimator=estimator)
        paid = penalized_scores(experience, 0.1, options)
        assert paid.tolist() == pytest.approx([1 - 0.1 * first, 2 - 0.1 * second])
        rewards = penalized_rewards(experience, 0.1, options)
        assert rewards.sum(1).tolist() == pytest.approx(paid.tolist()) and rewards[1, 1] == 0
    options = OnlineOptions(kl_in="loss")
    assert torch.equal(penalized_scores(experience, 0.1, options), scores)
    assert penalized_rewards(experience, 0.1, options).tolist() == [[0.0, 1.0], [2.0, 0.0]]


@pytest.mark.parametrize("estimator", ["k2", "full"])
def test_kl_and_entropy_in_the_loss(make_decoder: Callable[..., Decoder], runtime: Runtime, estimator: Any) -> None:
    """Of a policy that differs from its reference: each token's terms, and the gradient that the vocabulary gives."""
    policy, reference = make_decoder(), make_decoder(seed=5)
    models = Models(policy, reference, None, None, runtime)  # type: ignore[arg-type]
    options = OnlineOptions(kl_in="loss", kl_estimator=estimator, entropy_coef=0.5, temperature=0.7)
    batch, old = collate(ROWS), {"sampler_logps": torch.zeros(3), "ref_logps": torch.full((3,), -4.0)}
    logps, entropies, *_ = policy_logprobs(policy, batch, old, runtime, options)
    terms = regularizers(models, options, 2.0, batch, logps, entropies, old)
    kls = forward.compute_kls(policy, reference, ROWS, ROWS, runtime, 100, 0.7, 0.7)
    penalty = torch.cat(kls) if estimator == "full" else (logps + 4).square() / 2
    assert torch.allclose(terms, 2.0 * penalty - 0.5 * entropies, atol=1e-5)
    terms.sum().backward()
    assert all(p.grad is None for p in reference.parameters()) and policy.token_embedding.weight.grad is not None
