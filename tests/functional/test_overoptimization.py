"""Scaling laws of over-optimization: fits that give back what made the points, peaks, draws of whole prompts."""

import math

import pytest
import torch

from amenable.functional.overoptimization import bootstrap_gains, fit_law, law_at, peak_distance

DISTANCES = torch.tensor([0.5, 1.0, 1.5, 2.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize("law, alpha, beta", [("best-of-n", 1.2, 0.3), ("rl", 0.8, 0.5), ("rl", -0.2, -0.1)])
def test_a_fit_gives_back_the_law_of_its_points(law, alpha, beta):
    gains = torch.tensor([[law_at(float(d), alpha, beta, law) for d in DISTANCES]], dtype=torch.float64)
    alphas, betas = fit_law(DISTANCES, torch.cat([gains, 2 * gains]), law)
    assert alphas.tolist() == pytest.approx([alpha, 2 * alpha]) and betas.tolist() == pytest.approx([beta, 2 * beta])


def test_laws_by_hand():
    assert law_at(2.0, 1.0, 0.25, "best-of-n") == pytest.approx(1.0)  # 2 (1 - 0.5)
    assert law_at(math.e, 1.0, 0.25, "rl") == pytest.approx(0.75 * math.e)


def test_the_fit_has_the_least_squared_error():
    gains = torch.tensor([[0.3, 0.6, 0.4, 0.5, -0.1]], dtype=torch.float64)
    for law in ("best-of-n", "rl"):
        (alpha,), (beta,) = fit_law(DISTANCES, gains, law)

        def error(a, b, law=law):
            fitted = torch.tensor([law_at(float(d), float(a), float(b), law) for d in DISTANCES])
            return float((fitted - gains[0]).square().sum())

        best = error(alpha, beta)
        assert all(error(alpha + a, beta + b) > best for a, b in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01)))


@pytest.mark.parametrize("law, alpha, beta", [("best-of-n", 1.2, 0.3), ("rl", 0.8, 0.5)])
def test_the_peak_is_where_the_law_is_highest(law, alpha, beta):
    peak = peak_distance(alpha, beta, law)
    assert law_at(peak, alpha, beta, law) > max(law_at(peak * factor, alpha, beta, law) for factor in (0.99, 1.01))


def test_what_never_falls_has_no_peak():
    assert peak_distance(1.0, 0.0, "rl") == peak_distance(1.0, -0.5, "best-of-n") == math.inf
    assert peak_distance(-1.0, 0.5, "best-of-n") == 0.0
    assert peak_distance(1.0, 1e-6, "rl") == math.inf  # beyond what a float holds


def test_draws_take_whole_prompts_with_all_their_settings():
    values = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    gains = bootstrap_gains(values, 200, torch.Generator().manual_seed(0))
    assert gains.shape == (201, 2) and gains[0].tolist() == [2.0, 20.0]
    assert (
        torch.allclose(gains[:, 1], 10 * gains[:, 0]) and float(gains.min()) >= 1.0 and float(gains[:, 0].std()) > 0.2
    )


@pytest.mark.parametrize("distances", [[1.0], [1.0, 1.0], [0.0, 1.0]])
def test_too_few_distances_are_refused(distances):
    with pytest.raises(ValueError, match="two or more distances"):
        fit_law(torch.tensor(distances), torch.zeros(1, len(distances)), "rl")
