"""The benchmark of tokenizing runs, and its text is text: words of Zipf's frequencies, the same for a seed."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks import tokenizing


def test_the_made_text_has_frequent_and_rare_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "WORDS", 20_000)
    tokenizing.make_text(tmp_path / "a.jsonl", 0.3)
    tokenizing.make_text(tmp_path / "b.jsonl", 0.3)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    counts = Counter(word.strip(".,") for text in tokenizing.texts_of(tmp_path / "a.jsonl") for word in text.split())
    assert counts.most_common(1)[0][1] > 500 and sum(count == 1 for count in counts.values()) > 1000


def test_every_row_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokenizing, "VOCABULARY", 400)
    monkeypatch.setattr(tokenizing, "WORDS", 20_000)
    file = tmp_path / "texts.jsonl"
    tokenizing.make_text(file, 0.3)
    tokenizing.train(file, tmp_path / "tokenizer")
    figures = {name: row(file, tmp_path / "tokenizer") for name, (row, _) in tokenizing.ROWS.items()}
    assert all(row["seconds"] > 0 for row in figures.values()) and figures["start"]["tokens"] > 50_000
    lines = tokenizing.table(0.3, {**figures, "datasets": {"load": 1.0, "map": 2.0}})
    assert len(lines) == 2 + len(figures) + 2 and "| `map` alone | 2.00 | 0.1 | |" in lines
