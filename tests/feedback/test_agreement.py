from math import nan

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amenable.data.types import Message, Ranking
from amenable.feedback.agreement import (
    agreements,
    bootstrap_interval,
    by_item,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    pair_labels,
    pairwise_agreement,
    share_of,
)
from amenable.functional.statistics import wilson

PROMPT = (Message("user", "Hello?"),)
FLEISS = [  # the published example: 10 things, 14 raters, 5 classes
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def draw():
    return torch.Generator().manual_seed(0)


def test_pairs_by_hand():
    # pairs 01, 02, 12: both say 0 before 1, they differ on 02, and the second ties 1 and 2
    assert pair_labels([[1, 2, 3], [2, 3, 3]]).tolist() == [[-1, -1], [-1, -1], [-1, 0]]
    torch.testing.assert_close(pair_labels([[3, 1], None, [1, 1]]), matrix([1, nan, 0]), equal_nan=True)
    assert pair_labels([None, None]).shape == (0, 2)
    assert agreements(pair_labels([[1, 2, 3], [2, 3, 3]])).tolist() == [1, 1]
    assert agreements(pair_labels([[1, 2, 3], None, [2, 3, 1]])).tolist() == [1, 0, 0]
    assert agreements(pair_labels([[1, 1], [1, 2]])).tolist() == []
    with pytest.raises(ValueError, match="2 and 3 answers"):
        pair_labels([[1, 2], [1, 2, 3]])


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_agreement_is_symmetric_and_complete_with_oneself(first, second):
    assert torch.equal(agreements(pair_labels([first, second])), agreements(pair_labels([second, first])))
    assert agreements(pair_labels([first, first])).tolist() == [1] * 10
    assert agreements(pair_labels([first, [-rank for rank in first]])).tolist() == [0] * 10


def agreement(items):
    return pairwise_agreement([pair_labels(item) for item in items])


def test_agreement_of_many_annotators_by_hand():
    # three annotators of one item: 12, 13 and 23 agree on 1, 0 and 0 of one pair; the second item adds one agreement
    result = agreement([[[1, 2], [1, 2], [2, 1]], [[1, 2], [1, 3]]])
    assert (result.share, result.n) == (0.5, 4)
    # items of three pairs and one are worth 4^2 / (3^2 + 1) values
    assert (result.low, result.high) == pytest.approx(wilson(0.8, 1.6))


def test_one_shared_item_says_little_and_unanimous_ones_not_everything():
    alone = agreement([[[1, 2, 3], [1, 3, 2]], [[1, 2, 3]]])
    assert alone.share == pytest.approx(2 / 3) and alone.low < 0.2 and alone.high > 0.9
    alike = agreement([[[1, 2, 3], [1, 2, 3]]] * 20)
    assert (alike.share, alike.high) == (1.0, 1.0) and alike.low == pytest.approx(20 / (20 + 1.959964**2))


def test_agreement_where_nothing_can_be_compared_is_absent():
    result = agreement([[[1, 1], [1, 2]], [[1, 2]]])
    assert (result.share, result.low, result.high, result.n) == (None, None, None, 0)
    assert result == share_of([])


def test_two_noisy_raters_agree_as_often_as_the_formula_says():
    p = 0.836  # each right with probability p: they agree with p^2 + (1 - p)^2 = 0.726
    right = torch.rand(20_000, 2, generator=draw()) < p
    items = [[[1, 2] if hit else [2, 1] for hit in row] for row in right.tolist()]
    result = agreement(items)
    assert result.share == pytest.approx(0.726, abs=0.01)
    assert result.low < 0.7258 < result.high and result.high - result.low < 0.02


def test_rankings_of_the_same_answers_are_put_together():
    rankings = [
        Ranking(PROMPT, ("b", "a"), (1.0, 2.0), annotator="anne"),
        Ranking(PROMPT, ("a", "b"), (1.0, 2.0), annotator="bert"),
        Ranking(PROMPT, ("a", "c"), (1.0, 2.0), annotator="bert"),
        Ranking(PROMPT, ("a", "b"), (2.0, 1.0), annotator="bert"),  # bert thinks again
    ]
    assert by_item(rankings) == [[(2.0, 1.0), (2.0, 1.0)], [None, (1.0, 2.0)]]
    assert agreement(by_item(rankings)).share == 1.0


def test_cohen_by_hand():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(matrix(*zip(first, second))) == pytest.approx(0.4)
    assert cohen_kappa(matrix(*zip(second, first), (0, nan), (nan, nan))) == pytest.approx(0.4)
    table = matrix([1, 1], [1, 0], [0, 1], [0, 0])
    assert cohen_kappa(table, torch.tensor([20, 5, 10, 15.0]).double()) == pytest.approx(0.4)
    assert cohen_kappa(matrix([1, 2], [2, 1])) == pytest.approx(-1.0)
    assert cohen_kappa(matrix([1, 1], [2, 2], [3, 3])) == pytest.approx(1.0)


def test_fleiss_by_hand():
    labels = [[label for label, count in enumerate(row) for _ in range(count)] for row in FLEISS]
    assert fleiss_kappa(matrix(*labels)) == pytest.approx(0.209931, abs=1e-6)
    uneven = matrix(*([nan, *row] for row in labels), [0] * 15, [1, *[nan] * 14])  # 15 labels, and 1: others have 14
    assert fleiss_kappa(uneven) == pytest.approx(0.209931, abs=1e-6)
    twice = torch.tensor([2.0] * 10 + [19.0, 50.0]).double()  # 19 items of 15 labels are fewer than 20 of 14
    assert fleiss_kappa(uneven, twice) == pytest.approx(0.209931, abs=1e-6)
    assert fleiss_kappa(matrix([0, 0], [1, 1])) == pytest.approx(1.0)


def test_kappa_is_undefined_where_one_label_is_used():
    assert cohen_kappa(matrix([1, 1], [1, 1])).isnan()
    assert fleiss_kappa(matrix([1, 1, 1], [1, 1, 1])).isnan()
    assert cohen_kappa(matrix([1, 0], [1, 0])) == 0.0  # each its own label: expected and observed are 0


def test_kappa_is_undefined_where_no_two_labelled_the_same():
    for labels in (matrix([1, 1])[:0], matrix([1, nan], [nan, 2])):
        assert cohen_kappa(labels).isnan() and fleiss_kappa(labels).isnan() and krippendorff_alpha(labels).isnan()


def test_krippendorff_alpha_is_one_minus_the_ratio_of_disagreements():
    # two raters, ten units of 0 and 1, as Krippendorff's own example of binary data: alpha = 0.095
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(matrix(*zip(first, second))) == pytest.approx(1 - 19 * 4 / (14 * 6), abs=1e-9)
    # a unit of one value says nothing; all the same is undefined
    assert krippendorff_alpha(matrix(*zip(first, second), (1, nan))) == pytest.approx(1 - 19 * 4 / (14 * 6))
    assert krippendorff_alpha(matrix([1, 1], [1, 1])).isnan()
    assert krippendorff_alpha(matrix([0, 0, nan], [1, nan, 1], [0, 0, 0])) == 1.0
    # an item of weight 2 counts as two
    assert krippendorff_alpha(matrix([0, 1], [1, 1], [0, 0]), torch.tensor([1, 2, 1.0]).double()) == pytest.approx(
        krippendorff_alpha(matrix([0, 1], [1, 1], [1, 1], [0, 0]))
    )
    # with squares, 1 and 3 are further apart than 1 and 2
    near = krippendorff_alpha(matrix([1, 2], [3, 3], [1, 1]), distance=lambda a, b: (a - b) ** 2)
    far = krippendorff_alpha(matrix([1, 3], [3, 3], [1, 1]), distance=lambda a, b: (a - b) ** 2)
    assert near > far


@pytest.mark.parametrize("statistic", [cohen_kappa, fleiss_kappa, krippendorff_alpha])
def test_weights_count_items_for_each_resample(statistic):
    labels = torch.randint(3, (40, 2), generator=draw()).double()
    labels[5, 1] = labels[6, 0] = nan
    weights = torch.randint(4, (2, 3, 40), generator=draw()).double()
    together = statistic(labels, weights)
    for i in range(2):
        for j in range(3):
            alone = statistic(labels.repeat_interleave(weights[i, j].long(), dim=0))
            assert float(together[i, j]) == pytest.approx(float(alone))


def test_the_bootstrap_interval_holds_the_value_and_needs_enough_that_are_defined():
    generator = torch.Generator().manual_seed(0)

    def mean(labels, weights):
        return weights @ labels[:, 0] / weights.sum(-1)

    # each task has its item twice, so that intervals are those of 100 tasks and not of 200 items
    tasks = [matrix([0], [0]), matrix([1], [1])] * 50
    low, high = bootstrap_interval(mean, tasks, generator)
    assert 0.35 < low < 0.45 < 0.55 < high < 0.65
    assert bootstrap_interval(lambda labels, weights: weights.sum(-1) * nan, tasks, generator) is None
    assert bootstrap_interval(mean, [], generator) is None
    assert bootstrap_interval(mean, tasks[:8], generator) is None, "too few"
    assert bootstrap_interval(mean, tasks[:1] * 50, generator) is None, "all the same"
