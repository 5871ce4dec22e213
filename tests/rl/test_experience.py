"""The numbers that users of PPO watch, worked out by hand for two answers of unequal length."""

import math
from dataclasses import replace

import pytest
import torch

from amenable.generation.rollout import Rollout
from amenable.rl.experience import (
    Experience,
    Ratios,
    Targets,
    flat,
    mean_of,
    objective_metrics,
    require_at_reference,
    require_same_distribution,
    sample_rows,
    update_metrics,
)

MASK = torch.tensor([[True, True, True], [True, False, False]])
LOGPS = torch.tensor([[-1.0, -2.0, -0.5], [-3.0, 0.0, 0.0]])
REF = torch.tensor([[-1.5, -1.0, -0.5], [-3.2, 0.0, 0.0]])


@pytest.fixture
def experience() -> Experience:
    rollout = Rollout([[1, 4], [1, 5]], [[6, 7, 2], [8]], torch.tensor([True, False]), MASK, LOGPS)
    values = torch.tensor([[0.1, 0.2, 0.3], [0.5, 9.0, 9.0]])
    return Experience(rollout, REF, values, raw_scores=torch.tensor([2.0, 0.5]), scores=torch.tensor([2.0, -0.5]))


@pytest.fixture
def targets() -> Targets:
    returns = torch.tensor([[1.1, 1.2, 1.3], [1.5, 0.0, 0.0]])
    rewards = torch.tensor([[-0.05, 0.1, 2.0], [-0.52, 0.0, 0.0]])
    return Targets(torch.zeros(2, 3), returns, rewards)


def test_objective_metrics_by_hand(experience: Experience, targets: Targets) -> None:
    found = objective_metrics(experience, targets, kl_coef=0.1)
    gaps = [[0.5, -1.0, 0.0], [0.2]]  # log pi - log ref
    k1 = (sum(gaps[0]) + sum(gaps[1])) / 2
    assert found["objective/kl"] == pytest.approx(k1)
    assert found["objective/kl_k2"] == pytest.approx((0.125 + 0.5 + 0.02) / 2)
    k3 = [sum(math.exp(-gap) - 1 + gap for gap in row) for row in gaps]
    assert found["objective/kl_k3"] == pytest.approx(sum(k3) / 2)
    assert found["objective/kl_coef"] == 0.1
    assert found["objective/entropy"] == pytest.approx((3.5 + 3.0) / 2)
    assert found["objective/non_score_reward"] == pytest.approx(-0.1 * k1)
    assert found["objective/scores"] == pytest.approx(1.25)  # as the scorer gave them
    assert found["objective/rlhf_reward"] == pytest.approx((2.05 - 0.52) / 2)
    assert found["val/explained_variance"] == pytest.approx(1.0)  # off by a constant within the mask
    assert found["val/num_eos_tokens"] == 1
    assert found["completions/mean_length"] == 2.0 and found["completions/ended"] == 0.5


def test_what_lies_outside_the_mask_changes_nothing(experience: Experience, targets: Targets) -> None:
    before = objective_metrics(experience, targets, 0.1)
    for tensor in (experience.rollout.logps, experience.ref_logps, experience.values, targets.returns, targets.rewards):
        tensor[1, 1:] = 77.0
    assert objective_metrics(experience, targets, 0.1) == pytest.approx(before)


def test_the_tokens_of_chosen_answers_lie_one_after_another(experience: Experience, targets: Targets) -> None:
    logps, values, advantages, returns = flat(experience, targets, [1, 0], torch.device("cpu"))
    assert logps.tolist() == [-3.0, -1.0, -2.0, -0.5] and advantages.tolist() == [0.0] * 4
    assert torch.equal(values, torch.tensor([0.5, 0.1, 0.2, 0.3]))
    assert torch.equal(returns, torch.tensor([1.5, 1.1, 1.2, 1.3]))


def test_update_metrics_are_plain_numbers_by_the_names_users_know() -> None:
    policy = {"approx_kl": torch.tensor(0.02), "clip_fraction": torch.tensor(0.25), "ratio": torch.tensor(1.01)}
    moved = torch.tensor([0.1, -0.3])
    told = update_metrics(
        torch.tensor(-0.5), policy, torch.tensor(2.0), {"clip_fraction": torch.tensor(0.5)}, torch.tensor(1.5), moved
    )
    assert told == pytest.approx(
        {
            "loss/policy_avg": -0.5,
            "loss/value_avg": 2.0,
            "policy/entropy_avg": 1.5,
            "policy/approxkl_avg": 0.02,
            "policy/clipfrac_avg": 0.25,
            "val/clipfrac_avg": 0.5,
            "val/ratio": 1.01,
            "val/ratio_var": (math.exp(0.1) - math.exp(-0.3)) ** 2 / 4,
            "val/ratio_gap": 0.2,
        }
    )
    assert all(type(value) is float for value in told.values())


def test_updates_are_averaged_and_counted() -> None:
    history = [{"val/ratio_gap": 0.1, "loss/policy_avg": 1.0}, {"val/ratio_gap": 0.5, "loss/policy_avg": 2.0}]
    assert mean_of(history) == {"val/ratio_gap": 0.1, "loss/policy_avg": 1.5, "updates": 2}


def test_samples_tell_the_first_answers(experience: Experience) -> None:
    rows = sample_rows(experience, lambda ids: " ".join(map(str, ids)), count=5)
    assert rows == [
        {"prompt": "1 4", "completion": "6 7 2", "ended": True, "score": 2.0, "kl": -0.5},
        {"prompt": "1 5", "completion": "8", "ended": False, "score": 0.5, "kl": 0.2},
    ]
    assert len(sample_rows(experience, str, count=1)) == 1


def gap_of(gap: float) -> Ratios:
    return Ratios(1000, gap, 1.0, 0.01)


def test_a_sampler_that_differs_from_the_trainer_is_an_error() -> None:
    require_same_distribution(gap_of(0.005), 0.01)
    with pytest.raises(RuntimeError, match="dropout left on, another temperature"):
        require_same_distribution(gap_of(0.02), 0.01)
    require_same_distribution(gap_of(math.nan), 0.01)  # the optimizer refuses that, and tells which rows it came from
    require_same_distribution(Ratios.of(torch.tensor([math.nan])), 0.01)


def test_what_rounding_makes_is_borne_and_dropout_is_no_rounding() -> None:
    """Both sides are rounded, so twice as much is borne; where the gap is small, nobody measures it."""
    require_same_distribution(gap_of(0.005), 0.01, rounding=lambda: pytest.fail("nobody had to know"))
    require_same_distribution(gap_of(0.05), 0.01, rounding=lambda: 0.03)
    with pytest.raises(RuntimeError, match="points to temperature"):
        require_same_distribution(gap_of(0.07), 0.01, rounding=lambda: 0.03)
    with pytest.raises(RuntimeError, match="it is dropout"):
        require_same_distribution(gap_of(0.05), 0.01, training=True, rounding=lambda: 0.03)


def test_a_sampler_that_leaves_tokens_out_is_an_error() -> None:
    """Half of the places lose a hundredth: too little for the gap, and no chance."""
    filtered = Ratios.of(torch.tensor([0.0, math.log(0.99)] * 500))
    assert filtered.gap < 0.01 and filtered.missing == pytest.approx(0.005, abs=1e-6)
    with pytest.raises(RuntimeError, match=r"leaves out 0\.5% .* top-k, top-p"):
        require_same_distribution(filtered, 0.01)
    assert Ratios.of(torch.tensor([0.0, math.log(0.996)] * 500)).missing == 0, "two thousandths"
    assert Ratios.of(torch.tensor([0.2, -0.2, -0.03] * 100)).missing == 0, "tokens that scatter may be off by chance"
    assert Ratios.of(torch.tensor([-0.009, -0.01])).missing == 0, "and so may a few that do not"


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_a_mean_ratio_is_one_whatever_the_trainers_distribution(temperature: float) -> None:
    """Drawn from pi, the mean of pi' / pi is the sum of pi': noise and temperature leave it, a filter does not."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, generator=generator)
    ours = torch.log_softmax(logits, -1)
    theirs = torch.log_softmax(logits / temperature + 0.1 * torch.randn(50, generator=generator), -1)
    drawn = ours.exp().multinomial(50_000, replacement=True, generator=generator)
    assert Ratios.of((theirs - ours)[drawn]).missing == 0
    kept = ours.topk(40).indices
    mass = ours[kept].exp().sum()
    drawn = kept[(ours[kept] - mass.log()).exp().multinomial(50_000, replacement=True, generator=generator)]
    left = theirs[kept].exp().sum()
    assert Ratios.of((theirs - ours + mass.log())[drawn]).missing == pytest.approx(1 - float(left), abs=0.01)


def test_a_policy_that_is_not_its_reference_is_an_error(experience: Experience) -> None:
    same = replace(experience, ref_logps=experience.rollout.logps + 0.0005)
    require_at_reference(same, 0.001)
    other = replace(experience, ref_logps=torch.where(MASK, LOGPS + torch.tensor([0.02, -0.02, 0.0]), 0.0))
    require_at_reference(other, 0.01, rounding=lambda: 0.02)
    with pytest.raises(RuntimeError, match=r"differs from its reference by 0\.015 nats"):
        require_at_reference(other, 0.01, rounding=lambda: 0.001)
