from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.data.batches import (
    Batch,
    by_rows,
    by_tokens,
    chunk_documents,
    collate,
    distinct,
    families,
    microbatches,
    shuffled,
    shuffled_groups,
    stems,
    targets,
)

LENGTHS = st.lists(st.integers(1, 50), max_size=60)
SEEDS = st.integers(0, 2**40)
FEW = settings(max_examples=100, deadline=None)


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


@FEW
@given(n=st.integers(0, 200), seed=SEEDS, epoch=st.integers(0, 9))
def test_an_order_is_a_permutation_that_seed_and_epoch_decide(n, seed, epoch):
    order = shuffled(n, seed, epoch)
    assert sorted(order) == list(range(n))
    torch.manual_seed(1)  # the global state has no part in it
    assert shuffled(n, seed, epoch) == order


def test_epochs_and_seeds_are_unrelated():
    orders = [tuple(shuffled(30, seed, epoch)) for seed in range(10) for epoch in range(10)]
    assert len(set(orders)) == 100, "seed 1 epoch 0 is not seed 0 epoch 1"


@FEW
@given(n=st.integers(0, 100), size=st.integers(1, 20), seed=SEEDS)
def test_by_rows_covers_each_row_once_in_full_batches(n, size, seed):
    batches = by_rows(n, size, seed, 3)
    assert flat(batches) == shuffled(n, seed, 3)
    assert [len(batch) for batch in batches] == [size] * (n // size) + [n % size] * (n % size > 0)


@FEW
@given(lengths=LENGTHS, budget=st.integers(1, 120), seed=SEEDS)
def test_token_budgets_are_kept_and_each_row_comes_once(lengths, budget, seed):
    order = shuffled(len(lengths), seed, 0)
    in_order = by_tokens(lengths, budget, order)
    assert flat(in_order) == order
    parts = microbatches(lengths, budget)
    assert flat(parts) == list(range(len(lengths)))
    for batch in [*in_order, *parts]:
        assert batch and (sum(lengths[row] for row in batch) <= budget or len(batch) == 1)
    for first, second in pairwise(in_order):
        assert sum(lengths[row] for row in first) + lengths[second[0]] > budget, "as full as the order allows"


def test_batches_by_hand():
    assert by_tokens([3, 3, 3, 9, 1], 6, [0, 1, 2, 3, 4]) == [[0, 1], [2], [3], [4]]
    assert by_tokens([3, 3, 3, 9, 1], 6, [4, 2]) == [[4, 2]]
    assert microbatches([5, 5, 5], 10) == [[0, 1], [2]]
    assert microbatches([], 10) == []


def test_rows_of_a_group_stay_together_in_an_order_of_groups():
    order = shuffled_groups(20, 3, seed=5, epoch=1)
    assert order[::3] == [3 * group for group in shuffled(20, 5, 1)]
    assert all(later == before + 1 for start in range(0, 60, 3) for before, later in pairwise(order[start : start + 3]))
    assert shuffled_groups(20, 1, 5, 1) == shuffled(20, 5, 1)


def test_sizes_below_one_are_errors():
    with pytest.raises(ValueError, match="0 rows"):
        by_rows(3, 0, 0, 0)
    with pytest.raises(ValueError, match="0 tokens"):
        microbatches([1], 0)


def test_documents_are_cut_with_one_token_in_common():
    assert chunk_documents([[1, 2, 3, 4, 5, 6, 7]], 3) == [[1, 2, 3], [3, 4, 5], [5, 6, 7]]
    assert chunk_documents([[1, 2, 3, 4], [5, 6]], 3) == [[1, 2, 3], [3, 4], [5, 6]]
    assert chunk_documents([[1, 2, 3]], 3) == [[1, 2, 3]]
    assert chunk_documents([[1]], 3) == [], "nothing to predict"
    with pytest.raises(ValueError, match="nothing to predict"):
        chunk_documents([[1, 2]], 1)


@FEW
@given(documents=st.lists(st.lists(st.integers(0, 9), max_size=40), max_size=5), context=st.integers(2, 12))
def test_each_token_but_a_documents_first_is_predicted_once(documents, context):
    pieces = chunk_documents(documents, context)
    assert all(2 <= len(piece) <= context for piece in pieces)
    predicted = [token for piece in pieces for token in piece[1:]]
    assert predicted == [token for document in documents for token in document[1:]]


def test_a_batch_by_hand():
    batch = collate([([10, 11, 12], [False, True, False]), ([20, 21], [False, True])])
    assert batch.ids.tolist() == [10, 11, 12, 20, 21] and batch.ids.dtype == torch.long
    assert batch.lengths == (3, 2)
    assert batch.trained.tolist() == [False, True, False, False, True]
    index, tokens = targets(batch)
    assert index.tolist() == [0, 3] and tokens.tolist() == [11, 21]
    moved = batch.to("meta")
    assert isinstance(moved, Batch) and moved.ids.device.type == moved.trained.device.type == "meta"
    assert moved.lengths == (3, 2)


@FEW
@given(rows=st.lists(st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=9), min_size=1))
def test_targets_are_the_trained_tokens_row_by_row(rows):
    rows = [[(row[0][0], False), *row[1:]] for row in rows]
    batch = collate([([i for i, _ in row], [counts for _, counts in row]) for row in rows])
    index, tokens = targets(batch)
    expected, start = [], 0
    for row in rows:
        expected += [(start + place - 1, i) for place, (i, counts) in enumerate(row) if counts]
        start += len(row)
    assert list(zip(index.tolist(), tokens.tolist())) == expected


def test_the_first_token_of_a_row_has_nothing_before_it():
    first = collate([([1, 2], [True, True])])
    second = collate([([1, 2], [False, True]), ([3, 4], [True, False])])
    for batch in (first, second):
        with pytest.raises(ValueError, match="first token of a row"):
            targets(batch)


def test_rows_that_are_no_rows():
    with pytest.raises(ValueError, match="row 1 has 0 ids"):
        collate([([1], [False]), ([], [])])
    with pytest.raises(ValueError, match="row 0 has 2 ids and 1 marks"):
        collate([([1, 2], [True])])


PROMPT = list(range(100, 110))


def answer_row(*answer: int, prompt: list[int] = PROMPT) -> tuple[list[int], list[bool]]:
    return [*prompt, *answer], [False] * len(prompt) + [True] * len(answer)


def test_a_prompt_of_several_answers_is_in_the_batch_once():
    other = [1, 2, 3]
    rows = [
        answer_row(7, 8),
        answer_row(7),
        answer_row(9, 9, 9),
        answer_row(5, prompt=other),
        answer_row(6, prompt=other),
    ]
    batch = collate(rows, share=True)
    assert batch.shared == (0, 10, 10, 0, 0), "three tokens are not worth sharing; trained ones never are shared"
    assert batch.ids.tolist() == [*PROMPT, 7, 8, 7, 9, 9, 9, *other, 5, *other, 6]
    assert batch.lengths == (12, 11, 13, 4, 4) and len(batch.ids) == distinct(rows)
    before, tokens = targets(batch)
    assert tokens.tolist() == [7, 8, 7, 9, 9, 9, 5, 6]
    assert before.tolist() == [9, 10, 9, 9, 13, 14, 18, 22], "a first own token is predicted from the end of its stem"
    assert collate(rows[3:], share=True).shared == (), "nothing to share"


def test_a_stem_ends_where_rows_part_and_leaves_a_row_a_token_of_its_own():
    assert stems([answer_row(7), answer_row(8, prompt=[*PROMPT[:9], 3])]) == [0, 9]
    untrained = (PROMPT, [False] * 10)
    assert stems([untrained, untrained]) == [0, 9]
    assert stems([answer_row(7), answer_row(8, prompt=PROMPT[::-1]), answer_row(9)]) == [0, 0, 0]
    assert stems([]) == []


@FEW
@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 9), min_size=1, max_size=5)), min_size=1, max_size=9)
)
def test_sharing_changes_no_target(drawn):
    prompts = [PROMPT, [*PROMPT[:8], 1, 1], [3, 4]]
    rows = [answer_row(*answer, prompt=prompts[which]) for which, answer in drawn]
    _, plain = targets(collate(rows))
    batch = collate(rows, share=True)
    before, tokens = targets(batch)
    assert torch.equal(tokens, plain)
    expected = [token for ids, trained in rows for token, mark in zip(ids[:-1], trained[1:]) if mark]
    assert batch.ids[before].tolist() == expected, "what comes before each trained token is what came before it apart"


def test_families_are_neighbours_that_share():
    other = answer_row(5, prompt=[1, 2, 3])
    assert families([answer_row(7), answer_row(8), other, answer_row(9), other]) == [[0, 1], [2], [3], [4]]
    assert families([]) == []
