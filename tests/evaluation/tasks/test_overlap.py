"""Rows of tests that training files hold."""

import json
from pathlib import Path

from amenable.evaluation.tasks.overlap import contaminated, grams, strings, words_of

LONG = "The old miller of the town by the river sold his white horse to a baker in May"


def test_thirteen_words_in_a_row_are_an_overlap(tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    inside = "Yes: THE old miller, of the town by the river; sold his white horse. And so on."
    short = "She has eight words here and no more"
    rows = [{"messages": [{"role": "user", "content": inside}]}, {"text": f"x {short} y"}]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [LONG, " ".join(LONG.split()[3:]), short, "Only four words here", "x " * 20]
    assert contaminated(texts, [train]) == [True, False, True, False, False]
    assert contaminated(texts, [tmp_path, train])[0]


def test_plain_text_is_compared_too(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(f"Once.\n{LONG}.\n")
    assert contaminated([LONG, "another " * 13], [tmp_path / "book.txt"]) == [True, False]


def test_words_grams_and_strings() -> None:
    assert words_of("A b, C-d.") == ["a", "b", "c", "d"]
    assert len(list(grams(list("abcd"), 3))) == 2 and list(grams(["a"], 3)) == []
    assert list(strings({"a": ["x", {"b": "y"}], "c": 1})) == ["x", "y"]
