"""Smoothings of one order: numbers worked by hand."""

import numpy as np
import pytest

from amenable.models.ngram.smoothing import (
    NAMES,
    Contexts,
    absolute_discounts,
    good_turing_ratios,
    modified_discounts,
    smoothing_of,
)

# after the first context a was counted twice and b once, after the second c three times; p(a b c) = .5 .3 .2 before
TWO = Contexts(np.array([2.0, 1, 3]), np.array([0, 2]), np.array([0.5, 0.3, 0.2]), np.ones(2))


def estimates(name, **options):
    smooth, _ = smoothing_of(name, [0, 4, 2, 1, 1, 1, 1], 3, **options)
    return smooth(TWO)


def test_maximum_likelihood_is_relative_frequency():
    result = estimates("mle")
    np.testing.assert_allclose(result.probabilities, [2 / 3, 1 / 3, 1])
    np.testing.assert_allclose(result.backoffs, [0, 0])


def test_add_k_adds_to_every_count():
    """(2 + 1/2) / (3 + 3/2), and c, which was not counted after the first context, has (1/2) / (9/2) = 1/9."""
    result = estimates("add-k", k=0.5)
    np.testing.assert_allclose(result.probabilities, [2.5 / 4.5, 1.5 / 4.5, 3.5 / 4.5])
    np.testing.assert_allclose(result.backoffs / 3, [1 / 9, 1 / 9])


def test_stupid_backoff_divides_by_the_sum_of_the_scores():
    """Scores after the first context: 2/3, 1/3 and 0.4 x 0.2 for c: 1.08 in all."""
    result = estimates("stupid-backoff")
    np.testing.assert_allclose(result.probabilities[:2] * 1.08, [2 / 3, 1 / 3])
    np.testing.assert_allclose(result.backoffs[0] * 0.2 * 1.08, 0.08)
    np.testing.assert_allclose(result.scale, [1.08, 1 + 0.4 * 0.8])


def test_discounts_of_chen_and_goodman():
    """n = 4, 2, 1, 1: Y = 4/8; D1 = 1 - 2/2 x 2/4 = 1/2, D2 = 2 - 3/2 x 1/2 = 5/4, D3 = 3 - 4/2 x 1/1 = 1."""
    np.testing.assert_allclose(modified_discounts([0, 4, 2, 1, 1]), [0, 0.5, 1.25, 1])
    np.testing.assert_allclose(absolute_discounts([0, 4, 2]), [0, 0.5, 0.5, 0.5])
    assert modified_discounts([0, 4, 0, 1, 1]) is None
    assert modified_discounts([0, 1, 1, 9, 1]) is None, "D2 = 2 - 3 Y 9 is below 0"
    assert absolute_discounts([9, 0, 3]) is None


def test_kneser_ney_interpolates():
    """First context: (2 - 5/4)/3 + b 0.5 with b = (5/4 + 1/2)/3 = 7/12."""
    result = estimates("modified-kneser-ney")
    np.testing.assert_allclose(result.backoffs, [7 / 12, 1 / 3])
    np.testing.assert_allclose(result.probabilities, [0.25 + 3.5 / 12, 0.5 / 3 + 0.3 * 7 / 12, 2 / 3 + 0.2 / 3])


def test_good_turing_ratios_of_katz():
    """n = 10, 4, 1 and k = 2: r* = 2 x 4/10 = 0.8 and 3 x 1/4 = 0.75, A = 3 x 1/10 = 0.3;
    d1 = (0.8 - 0.3) / 0.7, d2 = (0.375 - 0.3) / 0.7."""
    np.testing.assert_allclose(good_turing_ratios([0, 10, 4, 1, 0, 0, 0]), [1, 5 / 7, 0.075 / 0.7])
    assert good_turing_ratios([0, 1, 5, 1, 0, 0, 0]).tolist() == [1, 1], "one token that is there once says nothing"


def test_katz_gives_what_it_takes_off_to_the_rest():
    smooth, note = smoothing_of("katz", [0, 10, 4, 1, 0, 0, 0], 3)
    assert note == ""
    result = smooth(TWO)
    expected = [0.15 / 0.7 / 3, 5 / 7 / 3]
    np.testing.assert_allclose(result.probabilities[:2], expected)
    np.testing.assert_allclose(result.backoffs[0] * 0.2, 1 - sum(expected))
    assert result.probabilities[2] < 1, "something is left where all counts are large"


def test_katz_takes_nothing_off_where_every_token_was_counted():
    every = Contexts(np.array([2.0, 1]), np.array([0]), np.array([0.6, 0.4]), np.ones(1))
    result = smoothing_of("katz", [0, 10, 4, 1, 0, 0, 0], 2)[0](every)
    np.testing.assert_allclose(result.probabilities, [2 / 3, 1 / 3])


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_estimated_is_noted(name):
    _, note = smoothing_of(name, [0, 0, 0, 0, 0, 0, 0], 3)
    assert bool(note) == (name in ("katz", "kneser-ney", "modified-kneser-ney"))
