"""Held-out rows: whole groups, about the share, and those that were held out before this was computed on arrays."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.data.batches import shuffled
from amenable.data.splits import held_out_of_sources, held_out_rows, opening_key
from amenable.data.types import Message
from amenable.errors import InputError


def held_by_definition(keys: list[int], fraction: float, seed: int) -> list[bool]:
    """Go through the groups in a drawn order, and hold out each that still fits."""
    groups = defaultdict(list)
    for i, key in enumerate(keys):
        groups[key].append(i)
    parts = list(groups.values()) if len(groups) > 1 else [[i] for i in range(len(keys))]
    wanted = min(max(1, round(fraction * len(keys))), len(keys) - 1)
    held: set[int] = set()
    order = shuffled(len(parts), seed, 0)
    for part in (parts[i] for i in order):
        if len(held) + len(part) <= wanted:
            held.update(part)
    return [i in (held or set(parts[min(order, key=lambda i: len(parts[i]))])) for i in range(len(keys))]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.floats(0.01, 0.99), st.integers(0, 99))
def test_groups_are_held_out_whole(keys: list[int], fraction: float, seed: int) -> None:
    held = held_out_rows(np.array(keys), fraction, seed).tolist()
    assert held == held_by_definition(keys, fraction, seed)
    assert any(held) and (len(set(keys)) > 1) <= (not all(held))
    inside = {key for key, is_held in zip(keys, held) if is_held}
    assert len(set(keys)) == 1 or all(is_held == (key in inside) for key, is_held in zip(keys, held))


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(InputError, match="1 rows cannot be divided"):
        held_out_rows(np.array([1]), 0.5, 0)
    with pytest.raises(InputError, match="the held-out fraction is 1"):
        held_out_rows(np.array([1, 2]), 1.0, 0)


def test_the_held_out_fraction_is_that_of_the_option() -> None:
    held = held_out_rows(np.arange(200), 0.1, 0)
    assert held.sum() == 20 and held_out_rows(np.arange(200), 0.1, 1).tolist() != held.tolist()


def test_what_a_source_holds_out_no_other_trains_on() -> None:
    first, second = np.arange(20), np.arange(10, 30)
    for seed in range(10):
        held = held_out_of_sources([first, second], 0.2, seed)
        inside = {*first[held[0]], *second[held[1]]}
        assert not inside & {*first[~held[0]], *second[~held[1]]} and len(inside) > 4


def test_dialogues_that_open_alike_have_one_key() -> None:
    request, more = Message("user", "hi"), Message("user", "more")
    answers = [Message("assistant", text) for text in ("hello", "no")]
    assert opening_key((request, answers[0]), "a") == opening_key((request, answers[1], more, answers[0]), "b")
    assert opening_key((request,), "a") != opening_key((more,), "a")
    assert opening_key((answers[0], request), "a") != opening_key((answers[0], request), "b")
