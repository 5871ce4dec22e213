"""Chunks of documents are those of `chunk_documents`, and what is held out is trained on in no source."""

import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.data.batches import chunk_documents
from amenable.data.mixture import token_batches
from amenable.data.orders import MAX_STORED
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import text_row
from amenable.train.text_chunks import Chunks, first_rows, read_chunks
from amenable.train.token_cache import TokenizedTexts


def texts_of(documents: list[list[int]]) -> TokenizedTexts:
    ids = np.array([i for document in documents for i in document], np.uint16)
    ends = np.cumsum([len(document) for document in documents]).astype(np.int64)
    return TokenizedTexts(ids, ends, np.full(len(documents), 7), np.arange(len(documents), dtype=np.uint64))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 60000), min_size=1, max_size=25), min_size=1, max_size=8), st.integers(2, 9))
def test_chunks_are_those_of_lists(documents: list[list[int]], context: int) -> None:
    chosen = np.arange(0, len(documents), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amenable.train.text_chunks.BLOCK", 3)
        chunks = Chunks(texts_of(documents), chosen, context)
    expected = [text_row(chunk) for chunk in chunk_documents([documents[i] for i in chosen], context)]
    assert list(chunks) == expected and chunks.lengths.tolist() == [len(ids) for ids, _ in expected]
    assert chunks[1:3] == expected[1:3]


@pytest.mark.parametrize("documents", [20_000, pytest.param(3_400_000, marks=pytest.mark.slow)])
def test_memory_is_a_few_bytes_a_chunk(documents: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 GB of text are tens of millions of chunks, each of which every array of their number pays for."""
    for module in ("data.orders", "data.mixture", "train.text_chunks"):
        monkeypatch.setattr(f"amenable.{module}.BLOCK", 4096)
    ends = np.arange(1, documents + 1) * 2551  # 10 chunks of 256
    texts = TokenizedTexts(np.empty(0, np.uint16), ends, ends, ends)
    tracemalloc.start()
    chunks = Chunks(texts, np.arange(len(ends)), 256)
    steps, _ = token_batches("text", [chunks.lengths], 2048, 3.0, 0)
    largest, of_last_epoch = steps.largest(64), steps[len(steps) - 1]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(chunks) == 10 * documents and len(largest) == 64 and of_last_epoch
    order = getattr(steps.order.indices(0), "nbytes", 0)  # torch's memory, which is not traced; none above MAX_STORED
    print(f"{len(chunks):,} chunks: {peak + order >> 20:,} MiB, {(peak + order) / len(chunks):.1f} bytes a chunk")
    assert order == (4 * len(chunks) if len(chunks) < MAX_STORED else 0) and peak + order < 16 * len(chunks)


def test_a_context_of_one_predicts_nothing() -> None:
    with pytest.raises(ValueError, match="leaves nothing to predict"):
        Chunks(texts_of([[1, 2]]), np.array([0]), 1)


def test_held_out_rows_are_whole_documents_within_a_budget() -> None:
    texts = texts_of([[1] * 10, [2] * 10, [3] * 10])
    rows, sizes = first_rows(texts, np.array([1, 2]), 6, 11)
    assert rows == [text_row([2] * 6), text_row([2] * 5)] and sizes == [7, 0]
    assert len(first_rows(texts, np.array([0, 1, 2]), 6, 1)[0]) == 2, "one document is always taken"
    assert len(first_rows(texts, np.array([0, 1, 2]), 6, 99)[0]) == 6


@dataclass
class Options:
    data: list[Path]
    validation: Path | None = None
    validation_split: float = 0.2
    seed: int = 0
    columns: tuple[str, ...] = ()


def test_a_document_that_is_held_out_is_trained_on_in_no_source(words: Tokenizer, tmp_path: Path) -> None:
    names = ("first.txt", "second.txt")
    for number, name in enumerate(names):
        lines = [f"document {i}" for i in range(5 * number, 5 * number + 20)]
        (tmp_path / name).write_text("\n<|endoftext|>\n".join(lines), "utf-8")
    splits = read_chunks(Options([tmp_path / name for name in names]), words, 64, 10_000)
    held, trained = ({tuple(ids) for ids, _ in part} for part in (splits.held_out, splits.training))
    assert not held & trained and len(held | trained) == 25
    assert splits.training.names == splits.held_out.names == ["first", "second"]
    assert all(len(part) >= 4 for part in splits.held_out.parts) and len(splits.byte_counts) == len(splits.held_out)
    own = read_chunks(Options([tmp_path / names[0]], validation=tmp_path / names[1]), words, 64, 10_000)
    assert len(own.training) == len(own.held_out) == 20 and own.held_out.names == [""]
