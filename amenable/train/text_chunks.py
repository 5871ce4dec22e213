"""Chunks of tokenized documents, read from arrays or memory maps as they are needed, and those that are held out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from amenable.data.batches import Indices, index_type
from amenable.data.lazy import Array
from amenable.data.mixture import Mixed, parse_sources
from amenable.data.orders import BLOCK
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
        self.texts, self.documents, self.step = texts, documents, context - 1
        bounds = np.zeros(len(documents) + 1, np.int64)  # the first chunk of each document, and the end
        for start, sizes in self.sizes():
            bounds[start + 1 :][: len(sizes)] = np.maximum(-(-(sizes - 1) // self.step), 0)
        np.cumsum(bounds, out=bounds)
        count = int(bounds[-1])
        self.bounds = bounds.astype(index_type(count))
        self.lengths = np.full(count, context, np.min_scalar_type(context))
        for start, sizes in self.sizes():
            ends, counts = self.bounds[start + 1 :][: len(sizes)], np.diff(self.bounds[start:][: len(sizes) + 1])
            self.lengths[(ends - 1)[counts > 0]] = (sizes - (counts - 1) * self.step)[counts > 0]

    def sizes(self) -> Iterator[tuple[int, Array]]:
        """Yield the tokens of each document, by blocks, with the position of the block's first."""
        for start in range(0, len(self.documents), BLOCK):
            numbers = self.documents[start : start + BLOCK]
            yield start, self.texts.ends[numbers] - self.texts.starts(numbers)

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        document = bisect_right(self.bounds, index) - 1
        start = int(self.texts.starts(self.documents[document])) + (index - int(self.bounds[document])) * self.step
        return text_row(self.texts.ids[start : start + int(self.lengths[index])].tolist())


@dataclass(frozen=True)
class Documents:
    """Some documents of a source."""

    texts: TokenizedTexts
    numbers: Indices
    """of the documents, in order"""


@dataclass(frozen=True)
class TextSplits:
    """Text to train on, and held-out text."""

    training: Mixed[Row]
    """chunks by source"""
    lengths: list[Array]
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
    """Read texts as `split_documents` does, and cut them into chunks of at most `context` ids.

    eval_tokens: maximum tokens of the held-out rows, divided among the sources.
    """
    names = [source.name for source in parse_sources(options.data)]
    training, validation = split_documents(options, tokenizer, rejected, bars)
    chunks = [Chunks(part.texts, part.numbers, context) for part in training]
    rows = [first_rows(part.texts, part.numbers, context, eval_tokens // len(validation)) for part in validation]
    return TextSplits(
        training=Mixed(names, chunks),
        lengths=[part.lengths for part in chunks],
        held_out=Mixed(names if options.validation is None else [""], [part for part, _ in rows]),
        byte_counts=[size for _, sizes in rows for size in sizes],
    )


def split_documents(
    options: SplitOptions, tokenizer: Tokenizer, rejected: RejectedRows | None = None, bars: Bars = no_bars
) -> tuple[list[Documents], list[Documents]]:
    """Read and tokenize texts, or take their tokens from the cache; return the documents to train on, by source, and
    the held-out ones.

    Held out are the documents of `options.validation`, or a share of each source's, and equal ones of other sources.
    """

    def read(path: Path) -> TokenizedTexts:
        return read_texts(path, tokenizer, rejected, bars("tokenizing"), options.columns)

    texts = [read(source.path) for source in parse_sources(options.data)]
    if options.validation is None:
        held = held_out_of_sources([part.keys for part in texts], options.validation_split, options.seed)
        validation = [Documents(part, np.flatnonzero(mask)) for part, mask in zip(texts, held)]
    else:
        held = [np.zeros(len(part.ends), bool) for part in texts]
        other = read(options.validation)
        validation = [Documents(other, np.arange(len(other.ends)))]
    trained = [np.flatnonzero(~mask).astype(index_type(len(mask))) for mask in held]
    return [Documents(part, numbers) for part, numbers in zip(texts, trained)], validation


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
