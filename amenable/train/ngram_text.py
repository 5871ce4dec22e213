"""Text of an n-gram model: its units, the documents that are counted, and those that are held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from amenable.data import sources
from amenable.data.mixture import parse_sources
from amenable.data.types import Text
from amenable.models.ngram.counting import BLOCK, Block
from amenable.text.tokenizer import MIN_VOCAB_SIZE, Tokenizer
from amenable.text.words import BEGIN, END, UNKNOWN, word_tokenizer
from amenable.train.examples import RejectedRows, SplitOptions, keep_usable
from amenable.train.forward import Row
from amenable.train.log import Bars
from amenable.train.text_chunks import Documents, first_rows, split_documents

Array = np.ndarray[Any, Any]
Unit = Literal["tokens", "words", "bytes"]


@dataclass(frozen=True)
class NGramText:
    """Documents to count and held-out ones, as ids of a tokenizer."""

    tokenizer: Tokenizer
    training: list[Documents]
    held_out: list[Documents]
    new_ids: Array
    """[V] the tokenizer's id of each id in the documents: rare words become <unk>"""

    @property
    def begin(self) -> int:
        """The token that every document begins with; without a bos it is the eos of the document before."""
        return self.tokenizer.eos_id if self.tokenizer.bos_id is None else self.tokenizer.bos_id

    @property
    def tokens(self) -> int:
        """Number of tokens to count."""
        return sum(
            int((part.texts.ends[part.numbers] - part.texts.starts(part.numbers)).sum()) for part in self.training
        )

    def blocks(self) -> Iterator[Block]:
        """Yield the documents to count in blocks of about BLOCK ids, each document beginning with `begin`."""
        opened = bool(self.tokenizer.opening_ids)
        for part in self.training:
            starts, ends = part.texts.starts(part.numbers), part.texts.ends[part.numbers]
            bounds = np.searchsorted(np.cumsum(ends - starts), np.arange(BLOCK, (ends - starts).sum() + BLOCK, BLOCK))
            for first, last in pairwise([0, *np.unique(np.minimum(bounds + 1, len(starts))).tolist()]):
                sizes = (ends - starts)[first:last] + (not opened)
                positions = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
                places = np.repeat(starts[first:last] - (not opened), sizes) + positions
                ids = self.new_ids[part.texts.ids[np.maximum(places, 0)]]
                yield ids if opened else np.where(positions == 0, self.begin, ids), positions

    def held_out_rows(self, context: int, tokens: int) -> tuple[list[Row], int]:
        """Return rows of the first held-out documents, of at most `tokens` tokens, and the bytes of their text."""
        parts = [first_rows(part.texts, part.numbers, context, tokens // len(self.held_out)) for part in self.held_out]
        rows = [(self.new_ids[ids].tolist(), mask) for rows, _ in parts for ids, mask in rows]
        return rows, sum(sum(sizes) for _, sizes in parts)


def read_text(
    options: SplitOptions,
    unit: Unit,
    tokenizer: Path | None,
    min_count: int,
    max_words: int,
    rejected: RejectedRows,
    bars: Bars,
    words: Tokenizer | None = None,
) -> NGramText:
    """Read texts and divide them as pretraining does: the same seed and share hold out the same documents.

    min_count, max_words: of the vocabulary of words, which the counted documents decide. words: a word-level tokenizer
    whose vocabulary is fixed.
    """
    if unit == "words" and words is None:
        every = word_tokenizer([word for word, _ in count_words(options, rejected).most_common()])
        training, held_out = split_documents(options, every, rejected, bars)
        return with_vocabulary(NGramText(every, training, held_out, np.arange(every.vocab_size)), min_count, max_words)
    if words is None:
        load = tokenizer or "runs/tokenizer"
        words = Tokenizer.train([], MIN_VOCAB_SIZE) if unit == "bytes" else Tokenizer.load(load)
    training, held_out = split_documents(options, words, rejected, bars)
    return NGramText(words, training, held_out, np.arange(words.vocab_size))


def count_words(options: SplitOptions, rejected: RejectedRows) -> Counter[str]:
    """Return how often each word is in the texts, held-out ones among them."""
    counts = Counter[str]()

    def count(text: Text) -> None:
        counts.update(text.text.split())

    for path in [*(source.path for source in parse_sources(options.data)), *filter(None, [options.validation])]:
        keep_usable(sources.read_texts(path, columns=options.columns, convert=count), rejected)
    return counts


def with_vocabulary(text: NGramText, min_count: int, max_words: int) -> NGramText:
    """Return a text whose words are those that its documents to count have `min_count` times, at most `max_words` of
    the most frequent (0: all); every other word is <unk>."""
    counts = np.zeros(len(text.new_ids), np.int64)
    for ids, _ in text.blocks():
        counts += np.bincount(ids, minlength=len(counts))
    vocabulary = text.tokenizer.spec["model"]["vocab"]
    marks = {vocabulary[name] for name in (UNKNOWN, BEGIN, END)}
    order = [token for token in np.argsort(-counts, kind="stable").tolist() if token not in marks]
    frequent = [token for token in order if counts[token] >= min_count][: max_words or None]
    names = {token: word for word, token in vocabulary.items()}
    tokenizer = word_tokenizer([names[token] for token in frequent])
    new_ids = np.zeros(len(text.new_ids), np.int64)
    for name in (UNKNOWN, BEGIN, END):
        new_ids[vocabulary[name]] = tokenizer.spec["model"]["vocab"][name]
    new_ids[frequent] = np.arange(len(frequent)) + 3
    return NGramText(tokenizer, text.training, text.held_out, new_ids)
