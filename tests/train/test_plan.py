"""The arithmetic of a run: schedules, counts, and options that are refused."""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.errors import InputError
from amenable.functional.preference_losses import dpo_losses
from amenable.models.decoder import Decoder
from amenable.models.lora import LoraOptions, add_adapters
from amenable.train import plan
from tests.models.adapted import GPT


def test_warm_up_rises_in_equal_parts_and_the_cosine_follows() -> None:
    schedule = plan.cosine_with_warmup(total=14, warmup_steps=4, floor=0.2)
    assert [schedule(step) for step in (1, 2, 3, 4, 5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    # steps 5 to 14 are places 0 to 9 of a cosine of 10
    expected = [0.2 + 0.8 * (1 + math.cos(math.pi * place / 10)) / 2 for place in range(10)]
    assert [schedule(step) for step in range(5, 15)] == pytest.approx(expected)
    assert schedule(15) == pytest.approx(0.2)


@given(st.integers(1, 60), st.integers(0, 59), st.floats(0, 1))
def test_a_schedule_stays_between_0_and_the_peak_and_falls_after_the_warm_up(
    total: int, warm: int, floor: float
) -> None:
    schedule = plan.cosine_with_warmup(total, warm, floor)
    warm = schedule.warmup_steps
    values = [schedule(step) for step in range(1, total + 1)]
    assert all(0 < value <= 1 for value in values)
    assert values[:warm] == sorted(values[:warm])
    assert values[warm:] == sorted(values[warm:], reverse=True)
    assert min(values[warm:], default=1) >= floor - 1e-12


@given(st.integers(1, 200), st.one_of(st.none(), st.integers(0, 200)), st.integers(1, 30))
def test_a_warm_up_shrinks_where_it_does_not_fit_and_says_so(total: int, given: int | None, usual: int) -> None:
    schedule = plan.cosine_with_warmup(total, given, 0.1, usual)
    used = schedule.warmup_steps
    assert used == min(usual, max(1, total // 8)) if given is None else used == given or given >= total >= used
    assert used <= total and max(schedule(step) for step in range(1, total + 1)) == 1
    shrunk = used < (usual if given is None else given)
    assert shrunk == ("(" in str(schedule))
    assert str(schedule).startswith(f"{total} steps, {used or 'none'} of them warm-up")


def test_a_warm_up_that_was_given_shrinks_with_a_word() -> None:
    assert str(plan.cosine_with_warmup(16, 20, 0.1)) == "16 steps, 2 of them warm-up (the 20 given do not fit)"
    assert str(plan.cosine_with_warmup(16, 15, 0.1)) == "16 steps, 15 of them warm-up"
    assert str(plan.cosine_with_warmup(1, 1, 0.1)) == "1 steps, 1 of them warm-up"
    assert str(plan.cosine_with_warmup(40, 0, 0.1)) == "40 steps, none of them warm-up"


@pytest.mark.parametrize(
    ("warm", "floor", "what"), [(-1, 0.1, "warmup_steps is -1"), (0, 1.5, "is 1.5"), (0, -0.1, "-0.1")]
)
def test_schedules_that_mean_nothing_are_refused(warm: int, floor: float, what: str) -> None:
    with pytest.raises(InputError, match=what):
        plan.cosine_with_warmup(10, warm, floor)


def test_counts_are_told_in_words_that_can_be_read() -> None:
    module = torch.nn.Linear(1999, 1)
    assert plan.parameters(module) == "2k parameters"
    module.weight.requires_grad_(False)
    assert plan.parameters(module) == "2k parameters, 1 training"
    assert [plan.human_count(n) for n in (12, 43_210, 124_439_808, 1_557_611_200)] == ["12", "43.2k", "124M", "1.56B"]


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_count_as_the_numbers_that_they_are(bits: int) -> None:
    counts = []
    for stored in (0, bits):
        decoder = Decoder(GPT)
        add_adapters(decoder, LoraOptions(rank=2, bits=stored), seed=0)
        counts.append(plan.parameters(decoder))
    assert counts[0] == counts[1]


@dataclass(frozen=True)
class Options:
    count: float = 1
    share: float = 0.5


@pytest.mark.parametrize("value", [0, -3, math.inf, math.nan])
def test_options_below_the_least_are_named(value: float) -> None:
    with pytest.raises(InputError, match=rf"count is {value}; it must be 1 or more"):
        plan.require_at_least(1, Options(count=value), "count")


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_shares_lie_between_0_and_1(value: float) -> None:
    with pytest.raises(InputError, match=rf"share is {value}; it must lie in"):
        plan.require_share(Options(share=value), "share")


def test_good_options_pass() -> None:
    plan.require_at_least(1, Options(), "count", "count")
    plan.require_share(Options(share=1.0), "share")


def test_at_the_bounds_of_beta_the_loss_is_constant_or_at_its_end() -> None:
    """log 2 within 1 % where the policy has moved by 100 nats; nothing is left of it at .01 nats."""
    low, high = plan.BETAS
    gaps, nothing = torch.tensor([100.0, 0.01]), torch.zeros(1)
    assert float(dpo_losses(gaps[:1], nothing, low)) == pytest.approx(math.log(2), rel=0.01)
    assert float(dpo_losses(gaps[1:], nothing, high)) < 1e-4
    for beta in (low, 0.1, high):
        plan.require_beta(SimpleNamespace(beta=beta))
    for beta, problem in ((low / 2, "nothing is learned"), (2 * high, "nothing is learned"), (0.0, "above 0")):
        with pytest.raises(InputError, match=problem):
            plan.require_beta(SimpleNamespace(beta=beta))


def test_what_a_step_of_rollouts_does() -> None:
    options = SimpleNamespace(
        max_steps=40, prompts_per_step=128, num_generations=2, num_mini_batches=4, num_ppo_epochs=3
    )
    report = plan.rollouts(options, plan.cosine_with_warmup(40, 5, 0.1), prompts=2000)
    assert report == (
        "128 prompts x 2 samples a step; 3 epochs x 4 minibatches; "
        "2.56 epochs of prompts in 40 steps, 5 of them warm-up"
    )


@pytest.mark.parametrize(("given", "total", "steps"), [(7, 1000, 7), (None, 1000, 50), (None, 40, 10), (None, 3, 1)])
def test_steps_between_evaluations(given: int | None, total: int, steps: int) -> None:
    assert plan.eval_steps(given, total) == steps
