"""Estimates pool over seeds, intervals decide, and the weakest part decides a claim."""

import math

import pytest
import torch

from amenable.claims.verdicts import FAILS, HOLDS, UNDECIDED, UNMEASURED, Curve, Estimate, Part, Verdict, paired


def test_an_estimate_is_a_mean_with_its_standard_error() -> None:
    one = Estimate.of(torch.tensor([0.0, 1.0, 1.0, 0.0]))
    assert one.value == 0.5 and one.error == pytest.approx(math.sqrt(1 / 3) / 2)
    assert Estimate.of(torch.tensor([1.0])).error == math.inf


def test_an_interval_gives_its_error_back() -> None:
    one = Estimate.between(0.7, 0.7 - 1.959964 * 0.02, 0.7 + 1.959964 * 0.02)
    assert one.error == pytest.approx(0.02)


def test_a_difference_of_separate_measurements_adds_their_variances() -> None:
    gap = Estimate(0.7, 0.03).minus(Estimate(0.5, 0.04))
    assert gap.value == pytest.approx(0.2) and gap.error == pytest.approx(0.05)


def test_what_is_paired_varies_less() -> None:
    base = torch.linspace(-3, 3, 50)
    assert paired(base + 1, base).value == pytest.approx(1) and paired(base + 1, base).error < 1e-6


def test_pooling_over_seeds_is_a_mean_with_a_smaller_error() -> None:
    pooled = Part("", (Estimate(0.6, 0.03), Estimate(0.7, 0.04), Estimate(0.8, 0.0))).pooled
    assert pooled is not None
    assert pooled.value == pytest.approx(0.7) and pooled.error == pytest.approx(0.05 / 3)


@pytest.mark.parametrize(
    ("values", "error", "verdict"),
    [
        ((0.6,), 0.02, HOLDS),
        ((0.6,), 0.1, UNDECIDED),
        ((0.4,), 0.02, FAILS),
        ((0.9, 0.9, 0.49), 0.01, UNDECIDED),  # one seed on the other side: the interval of the mean does not see it
        ((0.1, 0.1, 0.53), 0.01, FAILS),
        ((0.9, 0.9, 0.4), 0.01, FAILS),  # one seed contradicts it, surely
        ((0.9, 0.9, 0.478), 0.01, UNDECIDED),  # 2.2 standard errors are too few where there are three chances
        ((0.478,), 0.01, FAILS),
        ((0.505,), 0.005, FAILS),  # an effect, if there is one, too small to speak of
        ((0.505,), 0.01, UNDECIDED),
        ((), 0.01, UNMEASURED),
    ],
)
def test_an_interval_and_every_seed_decide(values: tuple[float, ...], error: float, verdict: str) -> None:
    assert Part("", tuple(Estimate(value, error) for value in values), null=0.5).verdict == verdict


def test_below_is_the_mirror_image() -> None:
    for value, verdict in ((-0.2, HOLDS), (0.2, FAILS), (0.01, UNDECIDED)):
        assert Part("", (Estimate(value, 0.02),), side="below").verdict == verdict


def verdict_of(*values: float | None) -> Verdict:
    parts = tuple(Part("", () if value is None else (Estimate(value, 0.1),)) for value in values)
    return Verdict("z", "a claim", "a figure", parts)


def test_the_weakest_part_decides() -> None:
    assert verdict_of(1.0, 1.0).verdict == HOLDS
    assert verdict_of(1.0, 0.1).verdict == UNDECIDED
    assert verdict_of(1.0, 0.1, None).verdict == UNMEASURED
    assert verdict_of(1.0, -1.0, None).verdict == FAILS


def test_what_is_told_beside_does_not_decide() -> None:
    beside = Part("", (Estimate(-1.0, 0.1),), decides=False)
    assert Verdict("z", "", "", (Part("", (Estimate(1.0, 0.1),)), beside)).verdict == HOLDS


def test_a_row_holds_what_the_report_shows() -> None:
    row = verdict_of(1.0, 2.0).as_row()
    assert row["measured"] == 1.0 and row["low"] == pytest.approx(0.804, abs=1e-3) and row["seeds"] == [1.0]
    lacking = verdict_of(1.0, None).as_row()
    assert lacking["measured"] is None and [part["measured"] for part in lacking["parts"]] == [1.0, None]
    assert verdict_of(1.0, -2.0).as_row()["measured"] == -2.0, "the part that settles it stands beside the claim"
    single = Part("", (Estimate.of(torch.tensor([0.3])),)).as_row()
    assert single["low"] is None and single["high"] is None, "an infinite interval is no JSON number"


def test_a_curve_is_read_between_its_steps() -> None:
    curve = Curve([0, 5, 10], torch.tensor([0.0, 2.0, 4.0]), torch.tensor([[0.0, 0.0], [2.0, 4.0], [1.0, 0.0]]))
    assert curve.at(1.0).tolist() == [1.0, 2.0] and curve.at(3.0).tolist() == [1.5, 2.0]
    assert curve.at(9.0).tolist() == [1.0, 0.0] and curve.at(0.0).tolist() == [0.0, 0.0]
    assert curve.peak(torch.tensor([0, 1])) == 1
