"""Sequences whose elements are made when they are read, with numbers of all elements in arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import numpy as np

from amenable.data.mixture import Mixed

T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")
Array = np.ndarray[Any, Any]


class Lazy(Sequence[T_co]):
    """n elements; the i-th is `make(i)`, each time that it is read."""

    def __init__(self, make: Callable[[int], T_co], tokens: Array, **columns: Array):
        """tokens [n]: tokens of each element. columns [n]: further numbers of each element, by name."""
        self.make, self.columns = make, {"tokens": tokens, **columns}

    def __len__(self) -> int:
        return len(self.columns["tokens"])

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> list[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | list[T_co]:
        numbers = range(len(self))[index]
        return self.make(numbers) if isinstance(numbers, int) else [self.make(i) for i in numbers]


def column(elements: Sequence[Any], name: str) -> Array:
    """Return a number of each element, [n]: out of arrays where the elements have them, else their attribute."""
    if isinstance(elements, Mixed):
        return np.concatenate([column(part, name) for part in elements.parts])
    return (
        elements.columns[name] if isinstance(elements, Lazy) else np.array([getattr(each, name) for each in elements])
    )


def changed(elements: Mixed[R], change: Callable[[R, int], R]) -> Mixed[R]:
    """Return the elements as `change`, called with (element, its index among all), makes them when they are read."""

    def change_part(part: Sequence[R], start: int) -> Sequence[R]:
        if isinstance(part, Lazy):
            return Lazy(lambda i: change(part[i], start + i), **part.columns)
        return [change(element, start + i) for i, element in enumerate(part)]

    return Mixed(elements.names, [change_part(*each) for each in zip(elements.parts, elements.starts)])
