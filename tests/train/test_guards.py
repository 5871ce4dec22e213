"""Every guard by itself on rows made up for it: it fires when it should, is silent otherwise, and forgets nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.train import guards
from amenable.train.guards import CRITIC_GRACE_STEPS, MAX_KL_STEPS, Guards, lines

WELL: dict[str, float] = {
    "loss": 1.0,
    "grad_norm": 0.5,
    "policy/grad_norm": 0.5,
    "objective/kl": 1.0,
    "objective/kl_coef": 0.3,
    "objective/scores": 0.2,
    "objective/scores_std": 0.5,
    "objective/advantages_std": 0.4,
    "policy/entropy_avg": 0.35,
    "policy/clipfrac_avg": 0.05,
    "completions/clipped_ratio": 0.03,
    "completions/mean_length": 15.0,
    "value/explained_variance": 0.4,
    "sampling/logp_difference": 0.002,
    "eval_rm/score": 0.1,
    "rewards/margins": 0.5,
    "logratios/chosen": -3.0,
    "eval/empty_below": 0.97,
}


def after(rows: list[dict[str, Any]], max_kl: float = 0.0) -> tuple[Guards, list[str]]:
    """Guards that have looked at these rows, and all that they said."""
    watch = Guards(max_kl)
    return watch, [line for step, row in enumerate(rows, 1) for line in watch.observe(step, row)]


def warned(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {warning["check"]: warning for warning in after(rows)[0].health()["warnings"]}


def wavering(steps: int, **start_and_end: tuple[float, float]) -> list[dict[str, float]]:
    """Rows in which some metrics go from one value to another, with a little scatter."""
    return [
        WELL | {key: a + (b - a) * i / (steps - 1) + 0.01 * (-1) ** i for key, (a, b) in start_and_end.items()}
        for i in range(steps)
    ]


def test_a_healthy_run_has_no_warning_and_every_check_is_told_as_fine() -> None:
    watch, reply = after([WELL] * 30)
    health = watch.health()
    assert reply == [] and health["warnings"] == []
    assert len(health["fine"]) == len(guards.checks())
    assert watch.fatal(30, WELL) is None


def test_what_a_stage_does_not_measure_is_not_told() -> None:
    watch, _ = after([{"loss": 1.0, "eval/bpb": None, "note": "text"}] * 30)
    assert watch.health() == {"fine": ["no jump of the loss"], "warnings": []}
    assert after([{"answered": "all"}])[0].health() == {"fine": [], "warnings": []}


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        ("scores differ", {"objective/scores_std": 1e-5}),
        ("advantages differ", {"objective/advantages_std": 1e-6}),
        ("KL", {"objective/kl": 11.8}),
        ("empty answers", {"eval/empty_below": 0.6}),
        ("answers end", {"completions/clipped_ratio": 0.7}),
        ("EOS is produced", {"completions/clipped_ratio": 1.0}),
        ("answers are not empty", {"completions/mean_length": 1.0}),
        ("clipping", {"policy/clipfrac_avg": 0.7}),
        ("ratio", {"sampling/logp_difference": 0.3}),
        ("loss is steady", {"loss": 11.0}),
        ("gradient is steady", {"grad_norm": 6.0}),
        ("policy's gradient is steady", {"policy/grad_norm": 6.0}),
    ],
)
def test_one_wrong_step_is_warned_of_by_its_own_check_alone(check: str, wrong: dict[str, float]) -> None:
    result = warned([WELL] * 15 + [WELL | wrong] + [WELL] * 5)
    assert list(result) == [check]
    assert (result[check]["steps"], result[check]["first_step"], result[check]["of"]) == (1, 16, 21)


def test_an_older_policys_answers_are_no_gap_of_the_sampler() -> None:
    apart = {"sampling/logp_difference": 0.3}
    assert warned([WELL | apart] * 3) and not warned([WELL | apart | {"sampling/staleness": 1.0}] * 3)


def test_a_warning_is_said_once_and_counted() -> None:
    watch, reply = after([WELL] * 12 + [WELL | {"completions/clipped_ratio": 1.0}] * 7)
    assert len(reply) == 1 and reply[0].startswith("step 13: no answer ends") and "--max-new-tokens" in reply[0]
    ((good, fine), (bad, warning)) = lines(watch.health())
    assert good and "entropy holds" in fine and "EOS is produced" not in fine
    assert not bad and "7 of 19 steps, first at 13" in warning


def test_entropy_may_fall_by_a_third_but_not_to_a_third() -> None:
    assert not warned(wavering(40, **{"policy/entropy_avg": (0.36, 0.24)}))
    assert list(warned(wavering(40, **{"policy/entropy_avg": (0.36, 0.12)}))) == ["entropy"]


def test_a_critic_may_be_blind_at_first() -> None:
    blind = WELL | {"value/explained_variance": -0.5}
    assert not warned([blind] * (CRITIC_GRACE_STEPS - 1) + [WELL] * 20)
    result = warned([blind] * (CRITIC_GRACE_STEPS + 2) + [WELL] * 20)
    assert list(result) == ["critic"] and result["critic"]["steps"] == 3


@pytest.mark.parametrize(
    ("scores", "watching", "parts"),
    [
        ((0.0, 1.0), (0.5, 0.0), True),
        ((0.0, 1.0), (0.5, 0.9), False),
        ((0.0, 1.0), (0.5, 0.5), False),
        ((1.0, 0.0), (0.5, 0.0), False),
    ],
)
def test_two_reward_models_part(scores: tuple[float, float], watching: tuple[float, float], parts: bool) -> None:
    rows = wavering(30, **{"objective/scores": scores, "eval_rm/score": watching})
    assert (list(warned(rows)) == ["reward models agree"]) == parts


@pytest.mark.parametrize("key", ["loss", "loss/policy_avg", "loss/value_avg", "loss/ptx"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_fatal(key: str, value: float) -> None:
    result = after([WELL])[0].fatal(7, WELL | {key: value})
    assert result is not None and f"{key} is {value} at step 7" in result[0] and "learning rate" in result[1]


def test_kl_is_fatal_when_it_stays_above_the_limit() -> None:
    high = WELL | {"objective/kl": 9.0}
    assert after([high] * (MAX_KL_STEPS - 1), 5.0)[0].fatal(2, high) is None
    assert after([high, WELL] * MAX_KL_STEPS, 5.0)[0].fatal(6, WELL) is None
    result = after([high] * MAX_KL_STEPS, 5.0)[0].fatal(3, high)
    assert result is not None and "--max-kl 5" in result[0] and "--kl-coef" in result[1]
    assert after([high] * 20)[0].fatal(20, high) is None, "0 is no limit"


def test_a_stage_that_measures_kl_now_and_then_is_stopped_by_its_first_measurement_above_the_limit() -> None:
    watch, high = Guards(5.0, max_kl_steps=1), {"loss": 1.0, "objective/kl": 9.0}
    watch.observe(1, high)
    result = watch.fatal(1, high)
    assert result is not None and "above --max-kl 5 up to step 1" in result[0] and "--beta" in result[1]


def test_long_answers_may_be_further_from_the_reference() -> None:
    far = {"objective/kl": 20.0}
    assert list(warned([WELL | far | {"completions/mean_length": 190.0}] * 3)) == ["KL"]
    assert not warned([WELL | far | {"completions/mean_length": 210.0}] * 3)


def test_rows_without_kl_are_no_measurement_below_the_limit() -> None:
    high, between = {"loss": 1.0, "objective/kl": 9.0}, {"loss": 1.0}
    assert after([high, between] * MAX_KL_STEPS, 5.0)[0].fatal(6, between) is not None
    assert after([high, between] * (MAX_KL_STEPS - 1), 5.0)[0].fatal(4, between) is None


def test_displaced_likelihood_is_warned_of_where_margins_rise_and_chosen_answers_fall() -> None:
    fallen = wavering(20, **{"logratios/chosen": (0.0, -18.0), "rewards/margins": (0.0, 1.0)})
    assert list(warned(fallen)) == ["chosen answers"]
    assert "likelihood displacement" in warned(fallen)["chosen answers"]["what"]
    assert not warned(wavering(20, **{"logratios/chosen": (0.0, -9.0), "rewards/margins": (0.0, 1.0)}))
    assert not warned(wavering(20, **{"logratios/chosen": (0.0, 18.0), "rewards/margins": (0.0, 1.0)}))


@pytest.mark.parametrize("coefficient", [-0.18, 0.0, float("nan")])
def test_a_price_on_kl_that_is_gone_is_fatal(coefficient: float) -> None:
    row = WELL | {"objective/kl_coef": coefficient}
    result = after([WELL, row])[0].fatal(2, row)
    assert (
        result is not None
        and f"objective/kl_coef is {coefficient} at step 2" in result[0]
        and "--kl-horizon" in result[1]
    )


def test_no_price_on_kl_from_the_start_is_no_fault() -> None:
    free = WELL | {"objective/kl_coef": 0.0}
    assert after([free] * 3)[0].fatal(3, free) is None
    paid = WELL | {"objective/kl_coef": -0.1}
    assert after([paid])[0].fatal(1, paid) is not None, "a bonus for leaving the reference is one at once"


ENDS = ("answers end", "EOS is produced", "answers are not empty")


@given(st.integers(1, 64), st.data())
def test_how_answers_end_is_told_in_one_true_word(limit: int, data: st.DataObject) -> None:
    """Answers as (tokens, ended): those cut by the limit have as many tokens as it allows, and did not end."""
    cut, ending = st.just((limit, False)), st.tuples(st.integers(1, limit), st.just(True))
    answers = data.draw(st.lists(st.one_of(cut, ending), min_size=1, max_size=12))
    row = {
        "completions/mean_length": sum(tokens for tokens, _ in answers) / len(answers),
        "completions/clipped_ratio": sum(not ended for _, ended in answers) / len(answers),
    }
    report = [name for name in warned([WELL | row]) if name in ENDS]
    assert len(report) <= 1
    empty = sum(answer == (1, True) for answer in answers)
    true = {
        "answers end": 0.5 < row["completions/clipped_ratio"] < 1,
        "EOS is produced": not any(ended for _, ended in answers),
        "answers are not empty": empty >= len(answers) / 2,
    }
    assert all(true[name] for name in report)
    assert report or (not true["EOS is produced"] and empty < len(answers))


def test_one_token_that_is_not_eos_is_not_an_empty_answer() -> None:
    one = {"completions/mean_length": 1.0, "completions/clipped_ratio": 1.0}
    assert list(warned([WELL | one])) == ["EOS is produced"]
    assert list(warned([WELL | one | {"completions/clipped_ratio": 0.0}])) == ["answers are not empty"]


def test_the_past_is_bounded() -> None:
    watch, _ = after([WELL] * 500)
    assert all(len(values) <= guards.MEMORY for values in watch.history.last.values())
    assert all(len(values) == guards.START for values in watch.history.first.values())
