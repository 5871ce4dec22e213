"""Text of n-gram models: units, blocks of whole documents, held-out ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amenable.stages import ngram
from amenable.text.tokenizer import Tokenizer
from amenable.train import ngram_text
from amenable.train.examples import RejectedRows
from amenable.train.log import no_bars
from amenable.train.text_chunks import read_chunks
from tests.conftest import write_rows


def read(config: ngram.Config) -> ngram_text.NGramText:
    sizes = config.min_count, config.vocab_size
    return ngram_text.read_text(config, config.unit, config.tokenizer, *sizes, RejectedRows(1.0), no_bars)


@pytest.fixture
def config(files: Any, tokenizer_folder: Path) -> ngram.Config:
    return ngram.Config(data=(files.text,), tokenizer=tokenizer_folder, validation_split=0.1)


def documents_of(text: ngram_text.NGramText) -> list[list[int]]:
    rows: list[list[int]] = []
    for ids, positions in text.blocks():
        rows += [part.tolist() for part in np.split(ids, np.flatnonzero(positions == 0)[1:])]
    return rows


def test_documents_are_those_of_pretraining(config: ngram.Config, tokenizer_folder: Path) -> None:
    text, splits = read(config), read_chunks(config, Tokenizer.load(tokenizer_folder), 1000, 50_000)
    assert documents_of(text) == [ids for ids, _ in splits.training]
    assert text.held_out_rows(1000, 50_000) == (list(splits.held_out), sum(splits.byte_counts))


@pytest.mark.parametrize("block", [1, 50, 333])
def test_blocks_hold_whole_documents(config: ngram.Config, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = read(config)
    whole = documents_of(text)
    monkeypatch.setattr(ngram_text, "BLOCK", block)
    blocks = list(text.blocks())
    assert documents_of(text) == whole and len(blocks) > 5
    assert all(positions[0] == 0 for _, positions in blocks)
    assert text.tokens == sum(map(len, whole))


def test_a_tokenizer_without_bos_begins_documents_with_eos(
    config: ngram.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = read(config)
    bare = [ids[1:] for ids in documents_of(text)]
    ids = np.concatenate(bare)
    texts = ngram_text.split_documents(config, text.tokenizer)[0][0].texts
    other = type(texts)(ids, np.cumsum([len(row) for row in bare]), texts.byte_counts, texts.keys)
    monkeypatch.setattr(text.tokenizer, "opening_ids", [], raising=False)
    monkeypatch.setattr(text.tokenizer, "bos_id", None)
    part = type(text.training[0])(other, np.arange(len(bare)))
    opened = documents_of(ngram_text.NGramText(text.tokenizer, [part], [part], text.new_ids))
    assert opened == [[text.tokenizer.eos_id, *row] for row in bare]


def test_words_are_those_of_the_counted_documents(config: ngram.Config, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "train.jsonl", [{"text": "a b a c"}, {"text": "b a d"}])
    held_out = write_rows(tmp_path / "held_out.jsonl", [{"text": "a new b"}])
    words = ngram.Config(data=(data,), validation=held_out, unit="words", min_count=2)
    text = read(words)
    assert text.tokenizer.vocab_size == 5, "a and b, and three of every vocabulary"
    names = [[text.tokenizer.decode([i], skip_special_tokens=False) for i in row] for row in documents_of(text)]
    assert names == [["<s>", "a", "b", "a", "<unk>", "</s>"], ["<s>", "b", "a", "<unk>", "</s>"]]
    (row,), _ = text.held_out_rows(100, 100)
    assert text.tokenizer.decode(row[0]) == "a <unk> b"
    assert read(ngram.Config(data=(data,), validation=held_out, unit="words", vocab_size=1)).tokenizer.vocab_size == 4


def test_bytes_are_the_tokens_of_no_merges(config: ngram.Config, files: Any) -> None:
    text = read(ngram.Config(data=(files.text,), unit="bytes"))
    assert text.tokenizer.vocab_size == 262
    assert text.tokenizer.decode(documents_of(text)[0]).startswith("The ")
