"""Chunks of tokenized documents, read from arrays or memory maps as they are needed, and those that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from amenable.data.batches import Indices
from amenable.data.mixture import Mixed, parse_sources
from amenable.data.splits import held_out_of_sources
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import RejectedRows, SplitOptions, text_row
from amenable.train.forward import Row
from amenable.train.log import Bars, no_bars
from amenable.train.token_cache import TokenizedTexts, read_texts


class Chunks(Sequence[Row]):
    """Rows of some documents, cut into chunks of at most `context` ids as by `batches.chunk_documents`."""

    def __init__(self, texts: TokenizedTexts, documents: Indices, context: int):
        """documents: numbers of the documents, in order."""
        if context < 2:
            raise ValueError(f"a context of {context} tokens leaves nothing to predict")
        self.ids, step = texts.ids, context - 1
        starts, ends = texts.starts[documents], texts.ends[documents]
        counts = np.maximum(-(-(ends - starts - 1) // step), 0)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        self.starts = np.repeat(starts, counts) + (np.arange(counts.sum()) - first) * step
        self.lengths = np.minimum(np.repeat(ends, counts) - self.starts, context).astype(np.int32)

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self.starts[index]
        return text_row(self.ids[start : start + self.lengths[index]].tolist())


@dataclass(frozen=True)
class TextSplits:
    """Text to train on, and held-out text."""

    training: Mixed[Row]
    """chunks by source"""
    lengths: list[Indices]
    """tokens of each chunk, by source"""
    held_out: Mixed[Row]
    byte_counts: list[int]
    """bytes of text of each held-out row, counted in a document's first"""


def read_chunks(
    options: SplitOptions,
    tokenizer: Tokenizer,
    context: int,
    eval_tokens: int,
    rejected: RejectedRows | None = None,
    bars: Bars = no_bars,
) -> TextSplits:
    """Read and tokenize texts, or take their tokens from the cache, and divide them.

    Held out are the documents of `options.validation`, or a share of each source's, and equal ones of other sources.
    eval_tokens: maximum tokens of the held-out rows, divided among the sources.
    """

    def read(path: Path) -> TokenizedTexts:
        return read_texts(path, tokenizer, rejected, bars("tokenizing"), options.columns)

    mixture = parse_sources(options.data)
    names, texts = [source.name for source in mixture], [read(source.path) for source in mixture]
    if options.validation is None:
        held = held_out_of_sources([part.keys for part in texts], options.validation_split, options.seed)
        validation = [(part, np.flatnonzero(mask)) for part, mask in zip(texts, held)]
    else:
        held = [np.zeros(len(part.ends), bool) for part in texts]
        other = read(options.validation)
        validation = [(other, np.arange(len(other.ends)))]
    chunks = [Chunks(part, np.flatnonzero(~mask), context) for part, mask in zip(texts, held)]
    rows = [first_rows(part, documents, context, eval_tokens // len(validation)) for part, documents in validation]
    return TextSplits(
        training=Mixed(names, chunks),
        lengths=[part.lengths for part in chunks],
        held_out=Mixed(names if options.validation is None else [""], [part for part, _ in rows]),
        byte_counts=[size for _, sizes in rows for size in sizes],
    )


def first_rows(texts: TokenizedTexts, documents: Indices, context: int, tokens: int) -> tuple[list[Row], list[int]]:
    """Return rows of the first whole documents, together at most `tokens` tokens (at least one document), and the bytes
    of text of each row, counted in a document's first."""
    rows: list[Row] = []
    sizes: list[int] = []
    total = 0
    for document in documents.tolist():
        chunks = Chunks(texts, np.array([document]), context)
        total += int(chunks.lengths.sum())
        if rows and total > tokens:
            break
        rows += chunks
        sizes += [int(texts.byte_counts[document]), *[0] * (len(chunks) - 1)][: len(chunks)]
    return rows, sizes
