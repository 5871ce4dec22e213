from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.data.batches import (
    MAX_REPEATS,
    Batch,
    chunk_documents,
    collate,
    group_by_prompt,
    loss_groups,
    microbatches,
    minibatches,
    order_by_length,
    permutation,
    shared_prefix_lengths,
    shuffled,
    shuffled_groups,
    targets,
    unique_tokens,
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


def test_a_permutation_is_the_same_in_four_bytes_and_in_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    short = permutation(100_000, 3, 1)
    monkeypatch.setattr("amenable.data.batches.index_type", lambda n: np.dtype(np.int64))
    long = permutation(100_000, 3, 1)
    assert (short.dtype, long.dtype) == (np.int32, np.int64) and np.array_equal(short, long)


def test_epochs_and_seeds_are_unrelated():
    orders = [tuple(shuffled(30, seed, epoch)) for seed in range(10) for epoch in range(10)]
    assert len(set(orders)) == 100, "seed 1 epoch 0 is not seed 0 epoch 1"


def test_batches_by_hand():
    rows = [([7] * 5, [False] + [True] * 4)] * 3
    assert [(part.rows, part.tokens) for part in microbatches(rows, 10)] == [([0, 1], 10), ([2], 5)]
    assert microbatches([], 10) == []


def test_rows_of_a_group_stay_together_in_an_order_of_groups():
    order = shuffled_groups(20, 3, seed=5, epoch=1)
    assert order[::3] == [3 * group for group in shuffled(20, 5, 1)]
    assert all(later == before + 1 for start in range(0, 60, 3) for before, later in pairwise(order[start : start + 3]))
    assert shuffled_groups(20, 1, 5, 1) == shuffled(20, 5, 1)


def test_minibatches_pass_over_every_row_once_an_epoch():
    batches = minibatches(6, 4, 3, 2, seed=5)
    assert [len(rows) for rows in batches] == [8] * 6
    assert flat(batches[:3]) == shuffled_groups(6, 4, 5, 0) and flat(batches[3:]) == shuffled_groups(6, 4, 5, 1)


def test_sizes_below_1_are_errors():
    with pytest.raises(ValueError, match="0 tokens"):
        microbatches([([1], [False])], 0)


def test_pieces_of_a_document_overlap_by_a_token():
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
    assert batch.loss_mask.tolist() == [False, True, False, False, True]
    index, tokens = targets(batch)
    assert index.tolist() == [0, 3] and tokens.tolist() == [11, 21]
    moved = batch.to("meta")
    assert isinstance(moved, Batch) and moved.ids.device.type == moved.loss_mask.device.type == "meta"
    assert moved.lengths == (3, 2)


@FEW
@given(rows=st.lists(st.lists(st.tuples(st.integers(0, 99), st.booleans()), min_size=1, max_size=9), min_size=1))
def test_targets_are_the_trained_tokens_row_by_row(rows):
    rows = [[(row[0][0], False), *row[1:]] for row in rows]
    batch = collate([([i for i, _ in row], [counts for _, counts in row]) for row in rows])
    index, tokens = targets(batch)
    expected, start = [], 0
    for row in rows:
        expected += [(start + position - 1, i) for position, (i, counts) in enumerate(row) if counts]
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
    with pytest.raises(ValueError, match="row 0 has 2 ids and a loss mask of 1"):
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
    batch = collate(rows, shared_prefix_lengths(rows))
    assert batch.prefix_lengths == (0, 10, 10, 0, 0), "3 tokens are too few; trained ones are never shared"
    assert batch.ids.tolist() == [*PROMPT, 7, 8, 7, 9, 9, 9, *other, 5, *other, 6]
    assert batch.lengths == (12, 11, 13, 4, 4) and len(batch.ids) == unique_tokens(rows)
    before, tokens = targets(batch)
    assert tokens.tolist() == [7, 8, 7, 9, 9, 9, 5, 6]
    assert before.tolist() == [9, 10, 9, 9, 13, 14, 18, 22], "a first own token is predicted from the end of its prefix"
    assert collate(rows[3:], shared_prefix_lengths(rows[3:])).prefix_lengths == (), "nothing to share"


def test_what_prompts_begin_with_is_shared() -> None:
    longer = answer_row(8, prompt=[*PROMPT, 3])
    assert shared_prefix_lengths([answer_row(7), longer, longer]) == [0, 0, 11], "a prompt that is repeated begins anew"
    assert shared_prefix_lengths([longer, answer_row(7), answer_row(9)]) == [0, 0, 10]
    assert shared_prefix_lengths([answer_row(7), longer, answer_row(9)]) == [0, 10, 10], "of one that is not, a part"
    assert shared_prefix_lengths([answer_row(7), answer_row(8, prompt=[*PROMPT[:9], 3])]) == [0, 9]
    assert shared_prefix_lengths([answer_row(7), answer_row(8, prompt=[*PROMPT[:7], 3])]) == [0, 0], "too few"
    untrained = (PROMPT, [False] * 10)
    assert shared_prefix_lengths([untrained, untrained]) == [0, 9], "a row keeps a token of its own"
    assert shared_prefix_lengths([answer_row(7), answer_row(8, prompt=PROMPT[::-1]), answer_row(9)]) == [0, 0, 0]
    assert shared_prefix_lengths([answer_row(8)], leader=answer_row(7)) == [10]
    assert shared_prefix_lengths([longer], answer_row(7), [longer]) == [0], "the next row repeats it"
    assert shared_prefix_lengths([longer], answer_row(7), [answer_row(7)]) == [10]
    assert shared_prefix_lengths([]) == []


def test_a_system_prompt_is_computed_once_a_pass() -> None:
    rows = [answer_row(7, 7, prompt=[*PROMPT, 50 + i]) for i in range(6)]
    parts = microbatches(rows, 25, share=True)
    assert [(part.rows, part.tokens, part.row_tokens) for part in parts] == [
        ([0, 1, 2, 3, 4], 10 + 5 * 3, 5 * 13),
        ([5], 13, 13),
    ]
    assert [part.prefix_lengths for part in parts] == [(0, 10, 10, 10, 10), (0,)]


@FEW
@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 9), min_size=1, max_size=5)), min_size=1, max_size=9)
)
def test_sharing_changes_no_target(drawn):
    prompts = [PROMPT, [*PROMPT[:8], 1, 1], [3, 4]]
    rows = [answer_row(*answer, prompt=prompts[index]) for index, answer in drawn]
    _, plain = targets(collate(rows))
    batch = collate(rows, shared_prefix_lengths(rows))
    before, tokens = targets(batch)
    assert torch.equal(tokens, plain)
    expected = [token for ids, mask in rows for token, counts in zip(ids[:-1], mask[1:]) if counts]
    assert batch.ids[before].tolist() == expected, "the token before each trained token is the same"


def test_neighbours_with_a_prompt_in_common_are_grouped():
    other = answer_row(5, prompt=[1, 2, 3])
    assert group_by_prompt([answer_row(7), answer_row(8), other, answer_row(9), other]) == [[0, 1], [2], [3], [4]]
    assert group_by_prompt([]) == []


def test_rows_in_order_of_length_stay_with_their_prompt() -> None:
    long, short = answer_row(*range(20)), answer_row(5, prompt=[1, 2, 3])
    assert order_by_length([answer_row(7), long, short, answer_row(9)]) == [2, 3, 0, 1]


def test_a_coupled_element_over_the_budget_is_a_group_of_several_passes() -> None:
    """Four answers of 3 to a prompt of 10 are 22 tokens; two of them 16."""
    wide, narrow = [answer_row(i, i, i) for i in range(4)], [answer_row(5, prompt=[1, 2, 3])]
    groups = loss_groups([narrow, wide, narrow, narrow], 18, share=True)
    assert [group.elements for group in groups] == [[0], [1], [2, 3]]
    assert [[(part.rows, part.tokens) for part in group.microbatches] for group in groups] == [
        [([0], 4)],
        [([1, 2], 16), ([3, 4], 16)],
        [([5, 6], 8)],
    ]
    assert [group.elements for group in loss_groups([narrow, wide, narrow], 30, share=True)] == [[0, 1, 2]]


def test_equal_prompts_of_neighbouring_elements_are_counted_once() -> None:
    pairs = [[answer_row(1, 1), answer_row(2, 2)], [answer_row(3, 3), answer_row(4, 4)]]
    (group,) = loss_groups(pairs, 18, share=True)
    assert group.microbatches[0].tokens == 18
    assert [group.elements for group in loss_groups(pairs, 17, share=True)] == [[0], [1]]


def test_many_answers_to_a_long_prompt_are_divided() -> None:
    """64 answers of 100 to a prompt of 2,000: 8,400 tokens, which attention would read as 134,400."""
    rows = [answer_row(*[i] * 100, prompt=list(range(2000))) for i in range(64)]
    parts = microbatches(rows, 8192, share=True)
    assert flat([part.rows for part in parts]) == list(range(64))
    assert [len(part.rows) for part in parts] == [15, 15, 15, 15, 4]
    assert parts[0].tokens == 2000 + 15 * 100 and parts[0].row_tokens == 15 * 2100
    assert len(microbatches(rows, 2099, share=True)) == 64, "a row over the budget is alone"
    assert sum(part.tokens for part in parts) < sum(part.tokens for part in microbatches(rows, 8192)) / 5


SYSTEM = list(range(200, 220))
FEW_SHOT = [*SYSTEM, *range(220, 260)]
OPENINGS = st.sampled_from([[], SYSTEM, FEW_SHOT, FEW_SHOT[:-3], [*FEW_SHOT, 1, 2, 3]])


@st.composite
def elements_of_rows(draw: st.DrawFn) -> list[list[tuple[list[int], list[bool]]]]:
    """Elements of answers to a prompt or to several, with a system prompt or shots in common, nested, cut, repeated."""
    prompts = [draw(OPENINGS) + draw(st.lists(st.integers(0, 3), min_size=1, max_size=12)) for _ in range(4)]
    answers = st.lists(st.integers(4, 9), min_size=1, max_size=30)
    rows = st.builds(lambda prompt, answer: answer_row(*answer, prompt=prompt), st.sampled_from(prompts), answers)
    same_prompt = st.sampled_from(prompts).flatmap(
        lambda prompt: st.lists(answers.map(lambda answer: answer_row(*answer, prompt=prompt)), min_size=1, max_size=9)
    )
    return draw(st.lists(st.lists(rows, min_size=1, max_size=4) | same_prompt, max_size=8))


@settings(max_examples=300, deadline=None)
@given(elements_of_rows(), st.integers(1, 400), st.booleans())
def test_planned_tokens_are_those_of_the_batch_and_within_the_budget(elements, budget, share):
    rows = [row for element in elements for row in element]
    groups = loss_groups(elements, budget, share)
    assert flat([group.elements for group in groups]) == list(range(len(elements)))
    assert all(len(group.microbatches) == 1 or len(group.elements) == 1 for group in groups)
    coupled = [part for group in groups for part in group.microbatches]
    alone = microbatches(rows, budget, share)
    for parts in (coupled, alone):
        assert flat([part.rows for part in parts]) == list(range(len(rows))), "every row once, in order"
        for part in parts:
            batch = collate([rows[i] for i in part.rows], part.prefix_lengths)
            assert part.tokens == len(batch.ids) and part.row_tokens == sum(batch.lengths)
            assert len(part.rows) == 1 or (part.tokens <= budget and part.row_tokens <= MAX_REPEATS * budget)
        apart = sum(len(ids) for ids, _ in rows)
        assert sum(part.tokens for part in parts) <= apart, "sharing never computes more"
