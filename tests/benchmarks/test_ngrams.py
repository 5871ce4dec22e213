"""The benchmark of n-gram counting counts the same n-grams on both sides, and prints their ratio."""

from pathlib import Path

import pytest

from benchmarks import ngrams, tokenizing

pytest.importorskip("nltk.lm")


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(tokenizing, "WORDS", 5_000)
    tokenizing.make_text(tmp_path / "texts.jsonl", 0.02)
    return tokenizing.texts_of(tmp_path / "texts.jsonl")


def test_both_count_the_same_ngrams(texts: list[str]) -> None:
    words, rows, vocab_size = ngrams.documents_of(texts)
    theirs = ngrams.count_nltk(words, 3)
    distinct = [sum(len(followers) for followers in theirs[order].values()) for order in (2, 3)]
    assert ngrams.count_ours(rows, vocab_size, 3) == vocab_size + sum(distinct)


def test_the_table_has_ratios(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(tokenizing, "WORDS", 5_000)
    monkeypatch.setattr(ngrams, "TRIES", 1)
    assert ngrams.main(["--megabytes", "0.01", "--peer-megabytes", "0.005"]) == 0
    assert "| n = 5 |" in capsys.readouterr().out
    lines = ngrams.table((1000, 100), {3: (1.0, 2.0, 4.0)})
    assert lines[-1] == "| n = 3 | 1,000 | 500 | 25 | **40.0** |"
