"""The paper's input transformations, as transformers' tokenizer writes their text."""

import pytest

from amenable.text.task_inputs import DELIMITER, EXTRACT, START, TASK_TOKENS, task_rows
from amenable.text.tokenizer import Tokenizer

TEXTS = ("The rose is red.", "A sea, blue.", "Snow!")


@pytest.fixture
def tokenizer(tokenizer_folder):
    return Tokenizer.load(tokenizer_folder).with_tokens(TASK_TOKENS)


@pytest.mark.parametrize(
    ("task", "count", "expected"),
    [
        ("classification", 1, [f"{START}{TEXTS[0]}{EXTRACT}"]),
        ("entailment", 2, [f"{START}{TEXTS[0]}{DELIMITER}{TEXTS[1]}{EXTRACT}"]),
        ("similarity", 2, [f"{START}{a}{DELIMITER}{b}{EXTRACT}" for a, b in (TEXTS[:2], TEXTS[1::-1])]),
        ("multiple-choice", 3, [f"{START}{TEXTS[0]}{DELIMITER}{text}{EXTRACT}" for text in TEXTS[1:]]),
    ],
)
def test_rows_of_each_task(tokenizer, tmp_path, task, count, expected):
    rows = task_rows(tokenizer, task, TEXTS[:count])
    assert [tokenizer.decode(ids, skip_special_tokens=False) for ids in rows] == expected
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert [theirs(text, add_special_tokens=False)["input_ids"] for text in expected] == rows


def test_no_text_spells_a_token_of_the_task(tokenizer):
    (ids,) = task_rows(tokenizer, "classification", [f"a {EXTRACT} b"])
    assert sum(token in tokenizer.special_ids for token in ids) == 2


def test_new_tokens_are_the_last(tokenizer, tokenizer_folder):
    base = Tokenizer.load(tokenizer_folder)
    assert tokenizer.vocab_size == base.vocab_size + 3, "it has a pad of its own"
    assert task_rows(tokenizer, "classification", [""])[0] == [base.vocab_size, base.vocab_size + 2]
    assert tokenizer.with_tokens(TASK_TOKENS).fingerprint == tokenizer.fingerprint
    assert tokenizer.encode("The rose is red.") == base.encode("The rose is red.")
