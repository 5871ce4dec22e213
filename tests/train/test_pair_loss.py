"""The loss on pairs that options choose: of sums or means, with or without a reference, and what contradicts it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.models.decoder import Decoder
from amenable.stages.dpo import DPO, Config
from amenable.train.objective import accumulate
from amenable.train.pair_loss import PAIR_LOSSES, SMOOTHED, PairLossOptions, describe, pair_loss, parse_losses
from amenable.train.rankings import Pair
from amenable.train.runtime import Runtime

IDS = [5, 6, 7, 8, 9, 10, 11]


def options(loss: str | tuple[str, ...], **changes: Any) -> PairLossOptions:
    needed: dict[str, dict[str, Any]] = {"exo": {"label_smoothing": 0.1}, "orpo": {"reference": "none"}}
    return PairLossOptions(loss=loss, **{**needed.get(str(loss), {}), **changes})


def pair(chosen: int, rejected: int, *refs: float, margin: float = 0.0) -> Pair:
    """A pair of completions of these lengths after one token."""
    better, worse = ((IDS[: length + 1], [False] + [True] * length) for length in (chosen, rejected))
    return Pair(better, worse, margin, *refs)


PAIRS = [pair(2, 4, -11.0, -12.0), pair(1, 2, -3.0, -9.0, margin=0.5)]
SUMS = torch.tensor([-10.0, -14.0, -5.0, -8.0])  # log-ratios 1 and -2, -2 and 1


BY_HAND = [
    (options("sigmoid"), (0.554355 + 1.171101) / 2),  # h = 0.3 and -0.3 - 0.5
    (options("sigmoid", margin=0.5), (0.798139 + 1.541008) / 2),  # h = -0.2 and -1.3, of 0.3 - 0.5 and -0.8 - 0.5
    (options("hinge"), (0.7 + 1.8) / 2),
    (options("sppo"), (16 + 9 + 49 + 36) / 2),
    (options("ipo", beta=0.5), (0.0 + 12.25) / 2),  # means .5 and -.5, -2 and .5: 1 - 1 and -2.5 - 1
    (options("apo_zero", length_normalization=True), (1 - 0.512497 + 0.487503 + 1 - 0.450166 + 0.512497) / 2),
    (options("aot"), (0.598139 + 0.798139) / 2),  # gaps 4 and 3, the reference's 1 and 6: 0.1 (3 - 1), 0.1 (4 - 6)
    (
        options("sigmoid", reference="none", rpo_alpha=2.0),
        (0.513015 + 0.554355) / 2 + 2 * 5.0,
    ),  # CPO: h = .4 and .3
]


@pytest.mark.parametrize(("chosen", "expected"), BY_HAND)
def test_the_mean_of_two_pairs_by_hand(chosen: PairLossOptions, expected: float) -> None:
    pairs = PAIRS if chosen.reference == "model" else [pair(2, 4), pair(1, 2)]
    loss, stats = pair_loss(chosen, pairs, SUMS)
    assert loss.item() == stats["loss"].item() == pytest.approx(expected, abs=1e-5)
    assert stats["logps/chosen"].item() == -7.5 and stats["logps/rejected"].item() == -11.0
    of_reference = {"logratios/chosen": -0.5} if chosen.reference == "model" else {"nll_loss": 5.0}
    assert {name: stats[name].item() for name in ("logratios/chosen", "nll_loss") if name in stats} == of_reference


def test_orpo_is_the_nll_and_beta_times_the_odds_ratio_term() -> None:
    sums = torch.tensor([-1.0, -2.24])  # means -0.5 and -0.56
    loss, stats = pair_loss(options("orpo", beta=0.1), [pair(2, 4)], sums)
    assert loss.item() == pytest.approx(0.5 + 0.1 * 0.622825, abs=1e-6) and stats["nll_loss"].item() == 0.5
    assert stats["rewards/margins"].item() == pytest.approx(0.1 * 0.06, abs=1e-6)


@pytest.mark.parametrize("loss", [loss for loss in PAIR_LOSSES if loss != "apo_down"])
def test_a_step_along_the_gradient_prefers_the_chosen(loss: str) -> None:
    """apo_down may let both fall, and is left out."""
    chosen = options(loss)
    pairs = [pair(2, 4)] if chosen.reference == "none" else PAIRS[:1]
    sums = SUMS[:2].clone().requires_grad_()
    pair_loss(chosen, pairs, sums)[0].backward()
    assert sums.grad is not None and sums.grad[0] < sums.grad[1] and sums.grad[1] >= 0


def test_apo_down_lets_the_rejected_fall_faster() -> None:
    sums = torch.tensor([-11.0, -12.0], requires_grad=True)  # at the reference
    pair_loss(options("apo_down", beta=1.0), PAIRS[:1], sums)[0].backward()
    assert sums.grad is not None and sums.grad.tolist() == pytest.approx([0.0, 0.25])  # 1/4 - 1/4, 1/4


@pytest.mark.parametrize("loss", ["aot", "orpo"])
def test_passes_do_not_change_the_loss_even_if_it_couples_the_pairs(
    make_decoder: Callable[..., Decoder], runtime: Runtime, loss: str
) -> None:
    policy, config = make_decoder(), Config(loss=loss, reference="none" if loss == "orpo" else "model", beta=0.5)
    pairs = [pair(n, 6 - n, -8.0 * n, -7.0 * (6 - n)) for n in (1, 2, 3, 4, 5)]
    results = []
    for max_tokens in (1000, 12):
        stats = accumulate(DPO(policy, config), pairs, runtime, max_tokens)
        results.append((stats, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])))
        policy.zero_grad(set_to_none=True)
    (whole, gradient), (parts, same) = results
    assert parts == pytest.approx(whole, rel=1e-4) and gradient.norm() > 0.01
    assert torch.allclose(gradient, same, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss": "ipo", "label_smoothing": 0.1}, "label_smoothing is 0.1 and loss is ipo; it is defined for sigmoid"),
        ({"loss": "exo"}, "label_smoothing is 0.0 and loss is exo"),
        ({"loss": "nca", "margin": 1.0}, "margin is 1.0 and loss is nca"),
        ({"loss": "bco", "reference": "none"}, "reference is none and loss is bco"),
        ({"loss": "orpo"}, "loss is orpo with a reference model; give --reference none"),
        ({"loss": "orpo", "reference": "none", "rpo_alpha": 1.0}, "rpo_alpha is 1.0 and loss is orpo"),
        ({"rpo_alpha": -1.0}, "rpo_alpha is -1.0"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"loss": ("sigmoid", "sigmod")}, "loss is sigmod; known are sigmoid, ipo"),
        ({"loss": ("sigmoid=1", "sigmoid=2")}, "loss has a name twice"),
        ({"loss": ("sigmoid=0",)}, "loss sigmoid has the weight 0.0"),
        ({"loss": ("sft",)}, "loss has no loss on pairs"),
        ({"loss": ("sigmoid", "sft"), "rpo_alpha": 1.0}, "rpo_alpha is 1.0 and loss is sigmoid sft"),
        ({"loss": ("sigmoid", "ipo"), "margin": 1.0}, "margin is 1.0 and loss is ipo"),
        ({"loss": "ipo", "f_divergence_type": "forward_kl"}, "f_divergence_type is forward_kl and loss is ipo"),
        ({"reference": "none", "f_divergence_type": "forward_kl"}, "forward_kl without a reference model"),
        ({"loss": "aot", "use_weighting": True}, "use_weighting is True and loss is aot"),
        ({"ld_alpha": 1.5}, "ld_alpha is 1.5"),
    ],
)
def test_options_that_contradict_a_loss_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PairLossOptions(**wrong)


def test_the_plan_names_the_loss_and_what_is_left_out() -> None:
    assert describe(options("sigmoid"), PAIRS) == []
    assert describe(options("ipo"), PAIRS) == [
        "loss ipo, of mean log-probabilities",
        "the margins of the data are not used: --loss ipo has none",
    ]
    lines = describe(options("sigmoid", reference="none", rpo_alpha=1.0), PAIRS)
    assert lines[0] == "loss sigmoid, plus 1 times the NLL of the chosen" and "no KL is measured" in lines[1]
    assert set(SMOOTHED) < set(PAIR_LOSSES)


def test_losses_are_named_with_weights() -> None:
    assert parse_losses("ipo") == {"ipo": 1.0}
    assert parse_losses(("sigmoid", "sft=.1")) == {"sigmoid": 1.0, "sft": 0.1}
    line = describe(options(("sigmoid=2", "sft=.1"), ld_alpha=0.5, use_weighting=True), [pair(2, 4)])
    text = "loss 2 sigmoid + 0.1 sft, tokens beyond the shorter completion x 0.5, pairs weighted by the policy's own"
    assert line == [f"{text} likelihood"]


def test_a_mixture_is_the_weighted_sum() -> None:
    losses = [pair_loss(options(loss), PAIRS, SUMS)[0] for loss in ("sigmoid", "hinge", "ipo")]
    mixed, stats = pair_loss(options(("sigmoid=2", "hinge", "ipo=.5", "sft=.1")), PAIRS, SUMS)
    nll = (10 / 2 + 5 / 1) / 2
    assert mixed.item() == pytest.approx((2 * losses[0] + losses[1] + 0.5 * losses[2]).item() + 0.1 * nll, abs=1e-5)
    assert stats["nll_loss"].item() == nll


def test_another_divergence_by_hand() -> None:
    """Ratios e and e^-2 of the first pair: under forward KL 1 - e^-1 and 1 - e^2, beta .1."""
    loss, stats = pair_loss(options("hinge", f_divergence_type="forward_kl"), PAIRS[:1], SUMS[:2])
    assert loss.item() == pytest.approx(1 - 0.1 * (7.389056 - 0.367879), abs=1e-5)
    assert stats["rewards/margins"].item() == pytest.approx(0.3)  # of log-ratios, whatever the divergence


def test_tokens_beyond_the_shorter_completion_by_hand() -> None:
    """Of the rejected one's -14 the first two tokens have -6, of the reference's -12 they have -4; alpha .25."""
    chosen = pair(2, 4, -11.0, -12.0, -4.0)
    outputs = torch.tensor([-10.0, -14.0, -6.0])
    loss, _ = pair_loss(options("hinge", ld_alpha=0.25), [chosen], outputs)
    log_ratio = (-6 - 0.25 * 8) - (-4 - 0.25 * 8)
    assert loss.item() == pytest.approx(1 - 0.1 * (1 - log_ratio), abs=1e-6)
    assert chosen.front == (IDS[:3], [False, True, True]) == pair(2, 2).rejected
    assert len(chosen.rows()) == 2 and chosen.rows(front=True)[2] == chosen.front


def test_pairs_weigh_what_the_policy_makes_of_them_by_hand() -> None:
    """Collisions as likely as the tokens weigh 1; of the second pair e^(-5 + 3) x e^((-8 + 7) / 2)."""
    outputs = torch.stack([SUMS, torch.tensor([-10.0, -14.0, -3.0, -7.0])], dim=1).requires_grad_()
    loss, stats = pair_loss(options("hinge", use_weighting=True), PAIRS, outputs)
    loss.backward()
    assert loss.item() == pytest.approx((0.7 + 1.8 * 0.082085) / 2, abs=1e-5)
    assert stats["weight"].item() == pytest.approx((1 + 0.082085) / 2, abs=1e-5)
    assert outputs.grad is not None and not outputs.grad[:, 1].any()


@pytest.mark.parametrize(
    "changes", [{"ld_alpha": 0.3}, {"use_weighting": True}, {"ld_alpha": 0.0, "loss": ("ipo", "sft")}]
)
def test_passes_do_not_change_a_loss_that_reads_more_of_a_row(
    make_decoder: Callable[..., Decoder], runtime: Runtime, changes: dict[str, Any]
) -> None:
    policy, config, results = make_decoder(), Config(beta=0.5, **changes), []
    pairs = [pair(n, 6 - n, -8.0 * n, -7.0 * (6 - n), -6.0) for n in (1, 2, 3, 4, 5)]
    for max_tokens in (1000, 5):
        stats = accumulate(DPO(policy, config), pairs, runtime, max_tokens)
        results.append((stats, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])))
        policy.zero_grad(set_to_none=True)
    (whole, gradient), (parts, same) = results
    assert parts == pytest.approx(whole, rel=1e-4) and gradient.norm() > 0.01
    assert torch.allclose(gradient, same, atol=1e-5)
