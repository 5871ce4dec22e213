import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.functional.statistics import (
    best_of_n_kl,
    bootstrap,
    bootstrap_mean,
    clustered_share,
    concordance,
    decisive_size,
    explained_variance,
    holm,
    mcnemar,
    mean_interval,
    pearson,
    sign_flip,
    spearman,
    t95,
    wilson,
)


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [
        (55, 100, 0.452446, 0.643855),
        (61, 100, 0.512030, 0.699831),
        (150, 256, 0.524764, 0.644570),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_by_hand(wins, n, low, high):
    assert wilson(wins, n) == pytest.approx((low, high), abs=1e-6)


@given(st.integers(1, 200), st.floats(0, 1))
def test_wilson_ends_are_where_the_normal_test_just_accepts(n, share):
    wins = share * n
    for end in wilson(wins, n):
        if 0 < end < 1:
            assert abs(wins / n - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), abs=1e-7)


def test_wilson_refuses_more_wins_than_games():
    with pytest.raises(ValueError, match="5 wins out of 4"):
        wilson(5, 4)


def test_mean_interval_by_hand():
    mean, low, high = mean_interval(torch.tensor([1.0, 2.0, 3.0]))
    assert mean == 2.0
    # the sample deviation is 1, and t with 2 degrees of freedom has its 97.5 % quantile at 4.3027
    assert high - mean == pytest.approx(4.3027 * 1.0 / math.sqrt(3)) == mean - low
    assert mean_interval(torch.tensor([4.0])) == (4.0, -math.inf, math.inf)
    with pytest.raises(ValueError, match="no values"):
        mean_interval(torch.tensor([]))


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (5, 2.571), (9, 2.262), (10, 2.228), (15, 2.131), (30, 2.042), (200, 1.972)]
)
def test_quantiles_of_student_are_those_of_the_tables(degrees, quantile):
    assert t95(degrees) == pytest.approx(quantile, abs=0.003)


def test_a_clustered_share_by_hand():
    # twelve prompts of two values, eight of them all right and four all wrong: worth 11 values, since
    # p = 2/3, V = 12/11 * sum (S - 2p)^2 / 24^2 = 12/11 * (8 (2/3)^2 + 4 (4/3)^2) / 576 = 0.020202, p (1 - p) / V = 11
    values = torch.tensor([1.0, 1.0] * 8 + [0.0, 0.0] * 4)
    result = clustered_share(values, torch.arange(12).repeat_interleave(2))
    assert result == pytest.approx((2 / 3, *wilson(11 * 2 / 3, 11)))
    # each prompt half right, but for one: worth more than 24 values, and counted as 24
    halves = clustered_share(torch.tensor([1.0, 0.0] * 11 + [1.0, 1.0]), torch.arange(12).repeat_interleave(2))
    assert halves == pytest.approx((13 / 24, *wilson(13, 24)))


@pytest.mark.parametrize(
    ("values", "worth"),
    [([[0.5]], 1), ([[1.0, 0.0]], 1), ([[1.0, 0.0]] * 5, 5), ([[1.0] * 6] * 20, 20), ([[0.0]] * 20, 20)],
)
def test_few_clusters_and_unanimous_ones_count_as_one_value_each(values, worth):
    flat = torch.tensor([value for part in values for value in part])
    owners = torch.tensor([place for place, part in enumerate(values) for _ in part])
    share, low, high = clustered_share(flat, owners)
    assert (low, high) == pytest.approx(wilson(share * worth, worth)) and high - low > 0.15


@pytest.mark.parametrize(("clusters", "alike"), [(2, False), (5, True), (10, True), (20, False), (40, True)])
@pytest.mark.parametrize("p", [0.6, 0.9])
def test_intervals_of_clustered_shares_hold_the_truth(clusters, alike, p):
    """Six values a cluster, drawn apart or all the same: a percentile bootstrap holds p in 45 % of the time for 2."""
    draw, held = torch.Generator().manual_seed(clusters), 0
    owners = torch.arange(clusters).repeat_interleave(6)
    for _ in range(100):
        hits = (torch.rand(clusters if alike else 6 * clusters, generator=draw) < p).double()
        _, low, high = clustered_share(hits.repeat_interleave(6) if alike else hits, owners)
        held += low <= p <= high
    assert held >= 88


def test_a_bootstrap_of_one_cluster_tells_nothing_and_of_few_reaches_far():
    values = torch.tensor([1.0, 2.0, 4.0])
    assert bootstrap_mean(values, torch.Generator(), clusters=torch.zeros(3)) == (values.mean(), -math.inf, math.inf)
    draw, held = torch.Generator().manual_seed(0), 0
    for _ in range(100):
        _, low, high = bootstrap_mean(torch.randn(5, generator=draw), draw, n=300)
        held += low <= 0 <= high
    assert held >= 86


def test_bootstrap_of_independent_values_agrees_with_the_normal_interval():
    values = torch.randn(400, generator=torch.Generator().manual_seed(1))
    mean, low, high = bootstrap_mean(values, torch.Generator().manual_seed(2), n=2000)
    _, normal_low, normal_high = mean_interval(values)
    assert mean == pytest.approx(float(values.double().mean()))
    assert (low, high) == pytest.approx((normal_low, normal_high), abs=0.012)
    assert (mean, low, high) == bootstrap_mean(values, torch.Generator().manual_seed(2), n=2000)


def test_bootstrap_by_cluster_is_wider_where_a_prompts_values_are_alike():
    by_prompt = torch.randn(50, generator=torch.Generator().manual_seed(3))
    values, prompts = by_prompt.repeat_interleave(8), torch.arange(50).repeat_interleave(8)
    _, low, high = bootstrap_mean(values, torch.Generator().manual_seed(4), clusters=prompts)
    _, alone_low, alone_high = bootstrap_mean(by_prompt, torch.Generator().manual_seed(4))
    assert (low, high) == pytest.approx((alone_low, alone_high))  # eight copies of a value say no more than one
    _, naive_low, naive_high = bootstrap_mean(values, torch.Generator().manual_seed(4))
    assert high - low == pytest.approx(math.sqrt(8) * (naive_high - naive_low), rel=0.15)


def test_bootstrap_weighs_clusters_by_their_size():
    values, clusters = torch.tensor([0.0, 0.0, 0.0, 1.0]), torch.tensor([5, 5, 5, 9])
    mean, low, high = bootstrap_mean(values, torch.Generator().manual_seed(0), clusters=clusters)
    assert (mean, low, high) == (0.25, 0.0, 1.0)


def test_explained_variance_by_hand():
    returns = torch.tensor([[1.0, 2.0, 3.0, math.nan]])
    mask = torch.tensor([[True, True, True, False]])

    def explained(*values):
        return explained_variance(torch.tensor([[*values, 99.0]]), returns, mask).item()

    assert explained(1.0, 2.0, 3.0) == pytest.approx(1.0)
    assert explained(11.0, 12.0, 13.0) == pytest.approx(1.0)
    assert explained(0.0, 0.0, 0.0) == pytest.approx(0.0)
    assert explained(3.0, 2.0, 1.0) == pytest.approx(-3.0)  # errors -2, 0, 2: four times the variance
    assert math.isnan(explained_variance(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool)))


@pytest.mark.parametrize(
    ("n", "nats"), [(1, 0), (2, 0.193147), (4, 0.636294), (16, 1.835089), (128, 3.859843), (60_000, 10.002117)]
)
def test_best_of_n_kl_by_hand(n, nats):
    assert best_of_n_kl(n) == pytest.approx(nats, abs=1e-6)


def test_best_of_n_kl_is_the_divergence_of_the_best_of_n_uniform_scores():
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    density = 8 * u**7  # of the largest of 8
    assert best_of_n_kl(8) == pytest.approx(float((density * density.log()).mean()), abs=1e-6)


@pytest.mark.parametrize("share", [0.55, 0.6, 0.7, 0.9, 1.0, 0.3])
def test_a_decisive_size_is_the_first_whose_interval_leaves_out_a_half(share: float) -> None:
    size = decisive_size(share)
    for n, decides in ((size - 1, False), (size, True)):
        low, high = wilson(share * n, n)
        assert (high < 0.5 or low > 0.5) == decides
    assert decisive_size(0.5) == math.inf


def test_concordance_by_hand():
    true = torch.tensor([0.0, 0.0, 1.0, 2.0])
    assert concordance(true, true) == 1 and concordance(-true, true) == 0
    assert concordance(torch.tensor([5.0, 1.0, 3.0, 3.0]), true) == pytest.approx((0 + 1 + 0 + 1 + 0.5) / 5)
    assert math.isnan(concordance(true, torch.ones(4)))


def test_spearman_by_hand():
    first, second = torch.tensor([1.0, 7.0, 7.0, 9.0]), torch.tensor([20, 10, 30, 40])
    # centred ranks -1.5 0 0 1.5 and -.5 -1.5 .5 1.5: product 3, squares 4.5 and 5
    assert spearman(first, second) == pytest.approx(3 / math.sqrt(4.5 * 5))
    assert spearman(first, first.exp()) == pytest.approx(1) and spearman(first, -first) == pytest.approx(-1)
    assert math.isnan(spearman(first, torch.ones(4)))


def test_a_bootstrap_of_any_statistic():
    """Of a mean it is near the t interval; a statistic that resamples may lack is taken from those that have it."""
    values = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    value, low, high = bootstrap(lambda rows: float(values[rows].mean()), 100, generator)
    assert (value, low, high) == pytest.approx(mean_interval(values), abs=0.03) and low < value < high
    some = bootstrap(lambda rows: 1.0 if 0 in rows else math.nan, 5, generator)
    assert some == (1.0, 1.0, 1.0)
    assert bootstrap(lambda rows: math.nan, 5, generator)[1:] == (-math.inf, math.inf)


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (1, 1, 1.0), (0, 5, 0.0625), (9, 1, 22 / 1024)])
def test_mcnemar_by_hand(first, second, p):
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(p)


def test_pearson_by_hand():
    """Deviations (-1, 0, 1) and (-1, 1, 0): 1 / 2."""
    assert pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    assert math.isnan(pearson(torch.ones(3), torch.arange(3)))


def test_sign_flips_by_hand():
    generator = torch.Generator().manual_seed(0)
    assert sign_flip(torch.zeros(5), generator) == 1.0
    # of 2^3 sums of 1, 2, 4 with signs only 7 and -7 are as large: 2 / 8
    assert sign_flip(torch.tensor([1.0, 2.0, 4.0, 0.0]), generator, 20_000) == pytest.approx(0.25, abs=0.015)
    # a mean of 1 over 1, 1, 1, 1: 2 / 16; a mean of 0 is never exceeded by chance less often than always
    assert sign_flip(torch.ones(4), generator, 20_000) == pytest.approx(0.125, abs=0.015)
    assert sign_flip(torch.tensor([1.0, -1.0]), generator) == 1.0
    assert sign_flip(torch.full((40,), 0.1), generator) < 0.001


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])  # 3 * 0.01, 2 * 0.03, then no less than that
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == [] and holm([0.2]) == [0.2]
