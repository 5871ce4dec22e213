"""Rows of labelled completions, and the mismatched completions that the KL is estimated with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amenable.data.types import LabeledCompletion
from amenable.errors import InputError
from amenable.text.tokenizer import Tokenizer
from amenable.train.row_cache import LABELED, Examples, read_examples
from amenable.train.unpaired import LabeledRow, label_balance, lazy_rows, mismatch, split_prompt


def read(folder: Path, words: Tokenizer, *rows: tuple[str, str, bool], **columns: Any) -> Examples[LabeledCompletion]:
    file = folder / "labelled.jsonl"
    names = ("prompt", "completion", "label")
    file.write_text("".join(json.dumps(dict(zip(names, row)) | columns) + "\n" for row in rows), "utf-8")
    return read_examples(file, LABELED, words)


def test_a_completion_ends_in_eos_unless_it_was_cut(words: Tokenizer, tmp_path: Path) -> None:
    whole, cut = (
        read(tmp_path, words, ("name a rose", "lime", True), ended=ended).rows(0)[0] for ended in (True, False)
    )
    assert split_prompt(whole)[1] == [*split_prompt(cut)[1], words.end_of_turn_id]


def partners(prompts: list[int], before: list[int], after: list[int], context: int) -> list[int]:
    return mismatch(np.array(prompts), np.array(before), np.array(after), context)


def test_a_mismatched_completion_is_the_next_of_another_prompt() -> None:
    assert partners([1, 1, 2], [1, 1, 1], [1, 2, 1], 10) == [2, 2, 0]
    assert partners([1, 3, 2], [1, 2, 1], [1, 2, 1], 3) == [1, 2, 0]


def test_mismatched_completions_need_two_prompts() -> None:
    with pytest.raises(InputError, match="no completion of another prompt"):
        partners([1, 1], [1, 1], [1, 1], 10)
    assert partners([], [], [], 10) == []


def test_rows_have_the_completion_of_another_prompt(words: Tokenizer, tmp_path: Path) -> None:
    examples = read(tmp_path, words, ("name a rose", "lime", True), ("name a sea", "plum plum", False))
    rows = lazy_rows("train", examples, 64, tmp_path)
    assert [each.label for each in rows] == rows.columns["label"].tolist() == [True, False]
    assert split_prompt(rows[0].mismatched) == (split_prompt(rows[0].row)[0], split_prompt(rows[1].row)[1])
    assert rows.columns["tokens"].tolist() == [len(each.row[0]) + len(each.mismatched[0]) for each in rows]


def test_held_out_rows_of_one_prompt_are_left_out(
    words: Tokenizer, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    examples = read(tmp_path, words, ("name a rose", "lime", True), ("name a rose", "plum", False))
    assert not lazy_rows("validation", examples, 64)
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
    report = label_balance([LabeledRow(([1], [True]), label) for label in labels], weight, 1.0)
    assert report.endswith(line)
