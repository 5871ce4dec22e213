"""Shares, means, groups and right choices of task rows."""

import pytest

from amenable.evaluation.tasks.form import Form, by_group, mean, mean_by_group, metrics_of, share, text
from amenable.functional.statistics import wilson


def test_true_and_false_give_a_share_and_numbers_a_mean() -> None:
    hits = metrics_of("acc", [True, False, True, True], {"other": (1.0, 0.0, 2.0)})
    assert (hits["accuracy"], hits["low"], hits["high"]) == (0.75, *wilson(3, 4))
    assert hits["right"] == [True, False, True, True] and hits["n"] == 4
    assert hits["metrics"] == {"acc": (0.75, *wilson(3, 4)), "other": (1.0, 0.0, 2.0)}
    numbers = metrics_of("mc2", [0.25, 0.75], {})
    assert numbers["accuracy"] == 0.5 and numbers["values"] == [0.25, 0.75] and "right" not in numbers


def test_intervals_hold_their_values() -> None:
    value, low, high = mean([0.1, 0.2, 0.3, 0.2])
    assert low is not None and high is not None and low < value < high and value == pytest.approx(0.2)
    assert mean([0.1, 0.2, 0.3, 0.2]) == (value, low, high) and mean([0.5]) == (0.5, None, None)
    assert share([False, False])[0] == 0.0


def test_groups_are_named_where_there_are_several() -> None:
    assert by_group(["a", "b", "a"], [True, False, False]) == {"a": share([True, False]), "b": share([False])}
    assert by_group(["a", "a"], [True, False]) == {}
    assert mean_by_group(["b", "a", "b"], [1.0, 3.0, 2.0]) == {"a": (3.0, None, None), "b": mean([1.0, 2.0])}


def test_columns_are_texts_and_all_there() -> None:
    form = Form("f", ("a", "b"), lambda columns: [], lambda examinee, rows: {}, lambda columns: columns["b"] != "no")
    assert form.matches({"a": "x", "b": 1}) and not form.matches({"a": "x", "b": None})
    assert not form.matches({"a": "x", "b": "no"})
    assert text({"a": "x", "b": "y"}, "b", "a") == ["y", "x"]
    with pytest.raises(ValueError, match="a must be text"):
        text({"a": 1}, "a")
