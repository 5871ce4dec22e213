"""Lazy elements are those of a list, computed when they are read."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from amenable.data.lazy import Lazy, changed, column
from amenable.data.mixture import Mixed


@dataclass(frozen=True)
class Element:
    tokens: int
    weight: float = 0.0


def lazy(sizes: list[int], computed: list[int] | None = None) -> Lazy[Element]:
    def make(index: int) -> Element:
        if computed is not None:
            computed.append(index)
        return Element(sizes[index], index / 2)

    return Lazy(make, np.array(sizes), weight=np.arange(len(sizes)) / 2)


def test_elements_are_made_when_they_are_read() -> None:
    computed = list[int]()
    elements = lazy([5, 6, 7], computed)
    assert len(elements) == 3 and column(elements, "tokens").sum() == 18 and not computed
    assert elements[-1] == Element(7, 1.0) and elements[1:] == [Element(6, 0.5), Element(7, 1.0)]
    assert computed == [2, 1, 2] and list(elements) == elements[:]
    with pytest.raises(IndexError):
        elements[3]


def test_a_column_is_that_of_all_parts() -> None:
    mixed = Mixed(["a", "b"], [lazy([5, 6]), [Element(9, 4.0)]])
    assert column(mixed, "weight").tolist() == [0.0, 0.5, 4.0]
    assert column([], "tokens").tolist() == []


def test_elements_are_changed_as_they_are_read() -> None:
    computed = list[int]()
    mixed = Mixed(["a", "b"], [[Element(9)], lazy([5, 6], computed)])
    after = changed(mixed, lambda element, index: replace(element, weight=10.0 + index))
    assert not computed and [each.weight for each in after] == [10.0, 11.0, 12.0]
    assert [each.tokens for each in after] == column(after, "tokens").tolist() == [9, 5, 6]
