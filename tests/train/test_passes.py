"""Sizes of passes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from amenable.data.lazy import Lazy
from amenable.train import passes
from amenable.train.forward import Row
from amenable.train.passes import full_row, largest_inference_pass, largest_pass, pass_of


def whole(*lengths: int) -> list[Row]:
    return [([7] * length, [False] + [True] * (length - 1)) for length in lengths]


def test_the_largest_pass_of_any_step() -> None:
    """Steps of 8, 30 and 20 tokens; 30 are passes of 14 and 16, for at most 20 tokens at once."""
    rows = [[row] for row in whole(3, 5, 4, 10, 16, 20)]
    steps = [rows[:2], rows[2:5], rows[5:]]
    work = largest_pass(steps, limit=20)
    assert (work.tokens, work.trained, work.rows, work.accumulates, work.summed) == (20, 19, 1, True, False)
    work = largest_pass(steps, limit=100, summed=True)
    assert (work.tokens, work.rows, work.accumulates, work.summed) == (30, 3, False, True)


def test_a_row_over_the_limit_is_a_pass() -> None:
    assert largest_pass([[[row] for row in whole(30, 70, 30)]], limit=60).tokens == 70


def test_a_shared_context_is_computed_once_and_attended_by_each() -> None:
    prompt = list(range(10, 30))
    pair = [(prompt + [answer] * 4, [False] * 20 + [True] * 4) for answer in (1, 2)]
    work = largest_pass([[pair]], limit=100, share=True)
    assert (work.tokens, work.slots, work.trained) == (28, 48, 8)
    assert largest_pass([[pair]], limit=100).tokens == 48
    assert largest_inference_pass(pair, 100) == work
    assert largest_inference_pass(pair, 24).tokens == 24


def test_slots_are_padded() -> None:
    work = pass_of(whole(200, 190, 30))
    assert work.tokens == 420 and work.slots == 2 * 200 + 30


def test_a_full_row_trains_its_completion() -> None:
    assert full_row([5, 6], 3) == ([5, 6, 0, 0, 0], [False, False, True, True, True])


def test_of_many_elements_the_longest_are_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [3, 9, 4, 9, 8]
    elements = Lazy(lambda i: ([i] * lengths[i], [True] * lengths[i]), np.array(lengths))
    assert passes.longest_rows(elements, lambda row: [row]) == list(elements)
    monkeypatch.setattr(passes, "PLANNED", 3)
    assert passes.longest_rows(elements, lambda row: [row]) == [elements[1], elements[3], elements[4]]
