"""Mixtures: the grammar of `--data`, shares within a few draws anywhere, every row of a source once an epoch of it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.data.batches import shuffled
from amenable.data.mixture import (
    GOLDEN_STEP,
    MODULUS,
    DataSource,
    Mixed,
    MixtureOrder,
    count_below,
    data_inputs,
    describe,
    floor_sum,
    order_of,
    parse_sources,
    token_batches,
)
from amenable.data.orders import Draws, EpochBatches, EpochOrder
from amenable.errors import InputError
from amenable.seeds import derive_seed

FEW = settings(max_examples=60, deadline=None)
SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=4)


def test_a_path_is_one_source_and_several_are_a_concatenation_or_a_mixture() -> None:
    assert parse_sources(Path("data/a.jsonl")) == (DataSource("a", Path("data/a.jsonl")),)
    assert parse_sources("texts/") == (DataSource("texts", Path("texts")),)
    plain = parse_sources(["a.jsonl", "b.parquet"])
    assert [(source.name, source.weight) for source in plain] == [("a", None), ("b", None)]
    mixed = parse_sources([Path("a.jsonl=2"), "b.jsonl.gz=0.5", "c"])
    assert [(source.name, source.path.name, source.weight) for source in mixed] == [
        ("a", "a.jsonl", 2.0),
        ("b", "b.jsonl.gz", 0.5),
        ("c", "c", 1.0),
    ]


def test_a_file_that_is_named_like_a_weight_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lr=2"
    file.write_text("text")
    assert parse_sources([file])[0] == DataSource("lr=2", file)
    assert parse_sources([f"{file}=3"])[0] == DataSource("lr=2", file, 3.0)
    assert parse_sources("a=b.jsonl")[0].path == Path("a=b.jsonl")


def test_names_are_as_short_as_they_can_be() -> None:
    names = [source.name for source in parse_sources(["x/books/train.jsonl", "x/talks/train.jsonl", "other.txt"])]
    assert names == ["books/train", "talks/train", "other"]
    assert data_inputs("a.jsonl=2") == {"data": Path("a.jsonl")}
    assert data_inputs(["a.jsonl=2", "b.jsonl"]) == {"data 1": Path("a.jsonl"), "data 2": Path("b.jsonl")}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (["a=0", "b"], "'a=0' has the weight 0; write SOURCE=WEIGHT with a number above 0"),
        (["a=-1"], "'a=-1' has the weight -1"),
        (["a=nan"], "has the weight nan"),
        (["=2"], "'=2' has the weight 2"),
        (["a.jsonl=2", "./a.jsonl=1"], "a.jsonl: is given twice; give a source once"),
        (["texts", "texts/a.jsonl"], "texts/a.jsonl: lies in texts, which is given too"),
        ([], "no data is given"),
    ],
)
def test_what_is_no_mixture_is_refused_in_a_line(data: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        parse_sources(data)
    assert "\n" not in str(caught.value)


@FEW
@given(st.integers(0, 300), st.integers(0, MODULUS), st.integers(0, MODULUS - 1))
def test_draws_below_a_bound_are_counted_without_drawing_them(count: int, bound: int, shift: int) -> None:
    assert count_below(count, bound, shift) == sum((p * GOLDEN_STEP + shift) % MODULUS < bound for p in range(count))
    assert floor_sum(count, 7, 5, 3) == sum((5 * i + 3) // 7 for i in range(count))


@FEW
@given(SIZES, st.data(), st.integers(0, 2**40))
def test_every_prefix_has_the_shares_and_every_epoch_of_a_source_each_row_once(
    sizes: list[int], data: st.DataObject, seed: int
) -> None:
    shares = data.draw(st.lists(st.floats(0.05, 5), min_size=len(sizes), max_size=len(sizes)))
    order = MixtureOrder(sizes, shares, seed)
    drawn = Draws(order).range(0, 5 * order.n)
    mixed = Mixed([f"s{i}" for i in range(len(sizes))], [range(size) for size in sizes])
    owners = [mixed.source_of(row) for row in drawn]
    for number, (share, size) in enumerate(zip(shares, sizes)):
        for end in range(1, len(drawn) + 1, 7):
            count = owners[:end].count(number)
            assert abs(count - end * share / sum(shares)) < 4, "a share is kept among any first draws"
            assert order.drawn(end)[number] == count
        own = [row - mixed.starts[number] for row, owner in zip(drawn, owners) if owner == number]
        for epoch in range(len(own) // size):
            assert own[epoch * size :][:size] == shuffled(size, derive_seed(seed, "source", number), epoch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amenable.data.mixture.BLOCK", 5)
        assert order.indices(1).tolist() == drawn[order.n : 2 * order.n], "the size of blocks changes no row"
    assert order.indices(3).tolist() == drawn[3 * order.n : 4 * order.n], "an epoch can be had without those before"


def test_the_order_of_a_mixture_is_a_function_of_seed_and_step() -> None:
    order = MixtureOrder([30, 10], [1, 1], 0)
    steps = EpochBatches(40, 7, 3, 0, order)
    every = list(steps)
    assert [steps[i] for i in reversed(range(len(steps)))] == every[::-1]
    assert [len(step) for step in every] == [7, 7, 7, 7, 7, 5] * 3
    longer = EpochBatches(40, 7, 9, 0, MixtureOrder([30, 10], [1, 1], 0))
    assert longer[: len(every)] == every, "a longer run has the same first steps"
    assert list(EpochBatches(40, 7, 3, 1, MixtureOrder([30, 10], [1, 1], 1))) != every


def test_without_weights_an_epoch_has_every_row_once() -> None:
    plain = parse_sources(["a", "b"])
    order = order_of(plain, [3, 4], 5)
    assert isinstance(order, EpochOrder) and order.indices(2).tolist() == shuffled(7, 5, 2)
    assert describe(plain, [3, 1], order_of(plain, [3, 1], 0), 8) == [
        "mixture by rows: a 75.0%, 2.00 epochs of 3; b 25.0%, 2.00 epochs of 1"
    ]
    assert describe(parse_sources("a"), [3], order_of(parse_sources("a"), [3], 0), 8) == []
    (none,) = describe(plain, [3, 1], order_of(plain, [3, 1], 0), 0)
    assert "0.0%, 0.00 epochs of 3" in none


def test_weights_are_shares_of_tokens_where_rows_have_lengths() -> None:
    mixed = parse_sources(["a=3", "b=1"])
    means = [10.0, 40.0]
    order = order_of(mixed, [500, 500], 0, means)
    (line,) = describe(mixed, [500, 500], order, 100_000, means)
    assert line == "mixture by tokens: a 75.0%, 184.61 epochs of 500; b 25.0%, 15.39 epochs of 500"
    assert describe(mixed, [500, 500], order_of(mixed, [500, 500], 0), 1000) == [
        "mixture by rows: a 75.0%, 1.50 epochs of 500; b 25.0%, 0.50 epochs of 500"
    ]


def test_a_source_that_has_nothing_left_is_named() -> None:
    with pytest.raises(InputError, match=r"^b\.jsonl: nothing of it is left to train on"):
        order_of(parse_sources(["a.jsonl=1", "b.jsonl=1"]), [3, 0], 0)


def test_rows_of_sources_are_one_sequence() -> None:
    rows = Mixed(["a", "b"], [[1, 2], [3]])
    assert list(rows) == [1, 2, 3] and rows[-1] == 3 and rows[1:] == [2, 3] and len(rows) == 3
    assert rows.sources_of([2, 0]) == ["b", "a"] and Mixed(["a"], [[1]]).sources_of([0]) is None
    assert rows.map(lambda part: [10 * row for row in part])[:] == [10, 20, 30]
    with pytest.raises(IndexError):
        rows[3]


def steps_of(lengths: list[int], budget: int, length: float, seed: int = 0) -> list[list[int]]:
    return list(token_batches("text", [np.array(lengths)], budget, length, seed)[0])


@FEW
@given(st.lists(st.integers(2, 40), min_size=1, max_size=30), st.integers(1, 90), st.integers(1, 4))
def test_every_chunk_is_taken_once_an_epoch(lengths: list[int], budget: int, epochs: int) -> None:
    steps = steps_of(lengths, budget, 120)
    assert len(steps) == 120
    order = [chunk for step in steps for chunk in step]
    for epoch in range(epochs):
        assert sorted(order[epoch * len(lengths) : (epoch + 1) * len(lengths)]) == list(range(len(lengths)))
    assert all(len(step) == 1 or sum(lengths[i] for i in step) <= budget for step in steps)


def test_epochs_decide_the_steps_where_no_number_is_given() -> None:
    assert len(steps_of([20] * 50, 100, 2.5)) == 25
    assert len(steps_of([20] * 50, 100, 7)) == 7
    assert steps_of([20] * 50, 100, 10) == steps_of([20] * 50, 100, 1.0) != steps_of([20] * 50, 100, 10, seed=1)


def test_shares_of_tokens_are_those_of_the_steps() -> None:
    lengths = [np.full(400, 5), np.full(100, 50)]
    steps, (line,) = token_batches(["a=1", "b=3"], lengths, 1000, 40, 0)
    drawn = [i for step in steps for i in step]
    tokens = [5 * sum(i < 400 for i in drawn), 50 * sum(i >= 400 for i in drawn)]
    assert tokens[0] / sum(tokens) == pytest.approx(0.25, abs=0.01)
    assert line.startswith("mixture by tokens: a 25.")
