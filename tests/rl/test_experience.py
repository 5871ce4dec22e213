"""The numbers that users of PPO watch, worked out by hand for two answers of unequal length."""

import math
from dataclasses import replace

import pytest
import torch

from amenable.errors import InputError
from amenable.generation.rollout import Rollout
from amenable.rl.experience import (
    Experience,
    Ratios,
    mean_of,
    objective_metrics,
    require_at_reference,
    require_near,
    require_same_distribution,
    sample_rows,
    scores_by_source,
)

MASK = torch.tensor([[True, True, True], [True, False, False]])
LOGPS = torch.tensor([[-1.0, -2.0, -0.5], [-3.0, 0.0, 0.0]])
REF = torch.tensor([[-1.5, -1.0, -0.5], [-3.2, 0.0, 0.0]])


@pytest.fixture
def experience() -> Experience:
    rollout = Rollout([[1, 4], [1, 5]], [[6, 7, 2], [8]], torch.tensor([True, False]), MASK, LOGPS.clone())
    values = torch.tensor([[0.1, 0.2, 0.3], [0.5, 9.0, 9.0]])
    columns = {
        "ref_logps": REF.clone(),
        "values": values,
        "returns": torch.tensor([[1.1, 1.2, 1.3], [1.5, 0.0, 0.0]]),
        "rewards": torch.tensor([[-0.05, 0.1, 2.0], [-0.52, 0.0, 0.0]]),
        "advantages": torch.tensor([[1.0, 2.0, 3.0], [6.0, 0.0, 0.0]]),
    }
    return Experience(rollout, torch.tensor([2.0, 0.5]), torch.tensor([2.0, -0.5]), columns)


def test_scores_of_a_source_are_those_of_its_prompts_answers() -> None:
    scores = torch.tensor([1.0, 2.0, 5.0, 7.0, 0.0, 3.0])
    assert scores_by_source(scores, ["b", "a", "b"]) == {"objective/scores/a": 6.0, "objective/scores/b": 1.5}
    assert scores_by_source(scores, None) == {}


def test_objective_metrics_by_hand(experience: Experience) -> None:
    result = objective_metrics(experience, kl_coef=0.1)
    gaps = [[0.5, -1.0, 0.0], [0.2]]  # log pi - log ref
    k1 = (sum(gaps[0]) + sum(gaps[1])) / 2
    assert result["objective/kl"] == pytest.approx(k1)
    assert result["objective/kl_k2"] == pytest.approx((0.125 + 0.5 + 0.02) / 2)
    k3 = [sum(math.exp(-gap) - 1 + gap for gap in row) for row in gaps]
    assert result["objective/kl_k3"] == pytest.approx(sum(k3) / 2)
    assert result["objective/kl_coef"] == 0.1
    assert result["objective/entropy"] == pytest.approx((3.5 + 3.0) / 2)
    assert result["objective/non_score_reward"] == pytest.approx(-0.1 * k1)
    assert result["objective/scores"] == pytest.approx(1.25)  # as the scorer gave them
    assert result["objective/rlhf_reward"] == pytest.approx((2.05 - 0.52) / 2)
    assert result["value/explained_variance"] == pytest.approx(1.0)  # off by a constant within the mask
    assert result["objective/advantages_std"] == pytest.approx((14 / 4) ** 0.5)
    assert result["completions/mean_length"] == 2.0 and result["completions/clipped_ratio"] == 0.5


def test_what_lies_outside_the_mask_changes_nothing(experience: Experience) -> None:
    before = objective_metrics(experience, 0.1)
    for tensor in (experience.rollout.logps, *experience.columns.values()):
        tensor[1, 1:] = 77.0
    assert objective_metrics(experience, 0.1) == pytest.approx(before)


def test_the_tokens_of_chosen_answers_lie_one_after_another(experience: Experience) -> None:
    columns = experience.flat([1, 0], torch.device("cpu"))
    assert columns["sampler_logps"].tolist() == [-3.0, -1.0, -2.0, -0.5] and columns["advantages"].tolist() == [
        6.0,
        1.0,
        2.0,
        3.0,
    ]
    assert torch.equal(columns["values"], torch.tensor([0.5, 0.1, 0.2, 0.3]))
    assert columns["returns"].tolist() == pytest.approx([1.5, 1.1, 1.2, 1.3])


def test_updates_are_averaged_and_counted() -> None:
    history = [
        {"sampling/logp_difference": 0.1, "loss/policy_avg": 1.0},
        {"sampling/logp_difference": 0.5, "loss/policy_avg": 2.0},
    ]
    assert mean_of(history) == {"sampling/logp_difference": 0.1, "loss/policy_avg": 1.5, "updates": 2}


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
    stored = ours.topk(40).indices
    mass = ours[stored].exp().sum()
    drawn = stored[(ours[stored] - mass.log()).exp().multinomial(50_000, replacement=True, generator=generator)]
    left = theirs[stored].exp().sum()
    assert Ratios.of((theirs - ours + mass.log())[drawn]).missing == pytest.approx(1 - float(left), abs=0.01)


def test_a_policy_that_is_not_its_reference_is_an_error(experience: Experience) -> None:
    same = replace(experience, columns={"ref_logps": experience.rollout.logps + 0.0005})
    require_at_reference(same, 0.001)
    gaps = torch.where(MASK, LOGPS + torch.tensor([0.02, -0.02, 0.0]), 0.0)
    other = replace(experience, columns={"ref_logps": gaps})
    require_at_reference(other, 0.01, rounding=lambda: 0.02)
    with pytest.raises(RuntimeError, match=r"differs from its reference by 0\.015 nats"):
        require_at_reference(other, 0.01, rounding=lambda: 0.001)


def test_a_sampler_outside_is_near_or_weighed_or_an_error_of_one_line() -> None:
    require_near(gap_of(0.005), 0.01, corrected=False, rounding=lambda: pytest.fail("not needed"))
    require_near(gap_of(0.05), 0.01, corrected=False, rounding=lambda: 0.03)
    with pytest.raises(InputError, match=r"by 0\.07 nats a token; weigh by it: --sampler-correction truncate"):
        require_near(gap_of(0.07), 0.01, corrected=False, rounding=lambda: 0.03)
    require_near(gap_of(0.07), 0.01, corrected=True)
    with pytest.raises(InputError, match=r"by 0\.2 nats a token; is it another model"):
        require_near(gap_of(0.2), 0.01, corrected=True)
    with pytest.raises(InputError, match=r"never draws 0\.5% .* without top-k"):
        require_near(Ratios.of(torch.tensor([0.0, math.log(0.99)] * 500)), 0.01, corrected=True)


def test_the_age_of_answers_is_in_metrics_and_rows(experience: Experience) -> None:
    assert "sampling/staleness" not in objective_metrics(experience, 0.1) and not experience.is_stale
    experience.staleness = torch.tensor([1, 0])
    assert experience.is_stale and objective_metrics(experience, 0.1)["sampling/staleness"] == 0.5
    assert [row["staleness"] for row in sample_rows(experience, str)] == [1, 0]
