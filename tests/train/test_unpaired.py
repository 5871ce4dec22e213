"""Rows of labelled completions, and the mismatched completions that the KL is estimated with."""

from typing import Any

import pytest

from amenable.data.mixture import Mixed
from amenable.data.types import LabeledCompletion, Message
from amenable.errors import InputError
from amenable.text.tokenizer import Tokenizer
from amenable.train.unpaired import LabeledRow, label_balance, mismatch, split_prompt, tokenize, tokenize_splits


def labelled(prompt: str, completion: str, label: bool = True, **meta: Any) -> LabeledCompletion:
    return LabeledCompletion((Message("user", prompt),), completion, label, prompt, meta)


def row(prompt: list[int], completion: list[int]) -> LabeledRow:
    return LabeledRow((prompt + completion, [False] * len(prompt) + [True] * len(completion)), True)


def test_a_completion_ends_in_eos_unless_it_was_cut(words: Tokenizer) -> None:
    whole, cut = (tokenize(labelled("name a rose", "lime", ended=ended), words, 64) for ended in (True, False))
    assert whole is not None and cut is not None
    assert split_prompt(whole.row)[1] == [*split_prompt(cut.row)[1], words.end_of_turn_id]
    assert tokenize(labelled("name a rose", "lime " * 80), words, 64) is None


def test_a_mismatched_completion_is_the_next_of_another_prompt() -> None:
    rows = mismatch([row([1], [5]), row([1], [6, 7]), row([2], [8])], 10)
    assert [each.mismatched[0] for each in rows] == [[1, 8], [1, 8], [2, 5]]
    assert rows[2].mismatched[1] == [False, True]
    assert [each.mismatched[0] for each in mismatch([row([1], [5]), row([1, 3], [6, 7]), row([2], [8])], 3)] == [
        [1, 6, 7],
        [1, 3, 8],
        [2, 5],
    ]


def test_mismatched_completions_need_two_prompts() -> None:
    with pytest.raises(InputError, match="no completion of another prompt"):
        mismatch([row([1], [5]), row([1], [6])], 10)
    assert mismatch([], 10) == []


def test_rows_too_long_are_left_out_before_completions_are_mismatched(words: Tokenizer) -> None:
    part = [labelled("name a rose", "lime"), labelled("a sea", "lime " * 80), labelled("name a sea", "plum", False)]
    rows = tokenize_splits({"validation": Mixed(["one"], [part])}, words, 64, ())["validation"]
    assert [each.label for each in rows] == [True, False]
    assert split_prompt(rows[0].mismatched) == (split_prompt(rows[0].row)[0], split_prompt(rows[1].row)[1])


def test_held_out_rows_of_one_prompt_are_left_out(words: Tokenizer, capsys: pytest.CaptureFixture) -> None:
    part = [labelled("name a rose", "lime"), labelled("name a rose", "plum", False)]
    assert not tokenize_splits({"validation": Mixed(["one"], [part])}, words, 64, ())["validation"]
    assert "validation: all of one prompt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("labels", "weight", "line"),
    [
        ([True, True, False, False], 1.0, "2 desirable and 2 undesirable completions, weighted 1.00 to 1"),
        ([True, False, False], 1.0, "weighted 0.50 to 1 (best in 1 to 1.5: --desirable-weight, --undesirable-weight)"),
        ([True, False, False], 2.0, "weighted 1.00 to 1"),
        ([True], 1.0, "1 desirable and 0 undesirable completions"),
    ],
)
def test_the_balance_of_labels(labels: list[bool], weight: float, line: str) -> None:
    told = label_balance([LabeledRow(([1], [True]), label) for label in labels], weight, 1.0)
    assert told.endswith(line)
