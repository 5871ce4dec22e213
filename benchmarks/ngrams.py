"""Counting of n-grams, beside nltk's counter on the same tokens.

    python -m benchmarks.ngrams                     # 1 MB of made text, orders 1 to 3 and 1 to 5
    python -m benchmarks.ngrams --megabytes 20 --peer-megabytes 1

The text is that of benchmarks/tokenizing.py, as words. Each side is given documents that are ids, or words, in memory,
and counts all orders; nltk also makes its n-grams (`everygrams`), which is how it is used. Seconds are the processor's,
medians of three, one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.machine import machine_line
from benchmarks.tokenizing import make_text, texts_of

ORDERS = (3, 5)
TRIES = 3


def seconds(work: Callable[[], object], tries: int = TRIES) -> float:
    """Return the median of the processor's seconds of some work."""
    times = []
    for _ in range(tries):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return median(times)


def documents_of(texts: list[str]) -> tuple[list[list[str]], list[np.ndarray[Any, Any]], int]:
    """Return the words of each text between <s> and </s>, the same as ids, and the number of different words."""
    words = [["<s>", *text.split(), "</s>"] for text in texts]
    ids = {word: number for number, word in enumerate(dict.fromkeys(word for row in words for word in row))}
    return words, [np.array([ids[word] for word in row]) for row in words], len(ids)


def count_ours(rows: list[np.ndarray[Any, Any]], vocab_size: int, order: int) -> int:
    """Count n-grams of all orders; return how many different ones there are."""
    from amenable.models.ngram.counting import count_ngrams

    block = np.concatenate(rows), np.concatenate([np.arange(len(row)) for row in rows])
    return sum(map(len, count_ngrams(lambda: [block], order, vocab_size, int(rows[0][0])).keys))


def smooth_ours(rows: list[np.ndarray[Any, Any]], vocab_size: int, order: int) -> object:
    """Count n-grams and estimate modified Kneser-Ney."""
    from amenable.models.ngram.counting import count_ngrams
    from amenable.models.ngram.estimate import estimate

    block = np.concatenate(rows), np.concatenate([np.arange(len(row)) for row in rows])
    return estimate(count_ngrams(lambda: [block], order, vocab_size, int(rows[0][0])), "modified-kneser-ney")


def count_nltk(words: list[list[str]], order: int) -> object:
    """Count n-grams of all orders with nltk."""
    from nltk.lm import NgramCounter
    from nltk.util import everygrams

    return NgramCounter(everygrams(row, max_len=order) for row in words)


def table(sizes: tuple[int, int], figures: dict[int, tuple[float, float, float]]) -> list[str]:
    """Return the figures as lines of a table.

    sizes: tokens counted here and by nltk. figures: of each order, seconds of counting, of counting and smoothing, and
    of nltk.
    """
    head = f"orders 1 to n, {sizes[0]:,} words (nltk {sizes[1]:,})"
    lines = [f"| {head} | counting, words/s | with modified Kneser-Ney | nltk | ratio |"]
    lines.append("|---|--:|--:|--:|--:|")
    for order, (counting, smoothing, theirs) in figures.items():
        rates = sizes[0] / counting, sizes[0] / smoothing, sizes[1] / theirs
        numbers = " | ".join(f"{rate:,.0f}" for rate in rates)
        lines.append(f"| n = {order} | {numbers} | **{rates[0] / rates[2]:.1f}** |")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=1.0)
    parser.add_argument("--peer-megabytes", type=float, default=1.0, help="as much of it is counted by nltk")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "texts.jsonl"
        make_text(file, options.megabytes)
        texts = texts_of(file)
    words, rows, vocab_size = documents_of(texts)
    share = words[: max(1, round(len(words) * options.peer_megabytes / options.megabytes))]
    sizes = sum(map(len, rows)), sum(map(len, share))
    figures = {
        order: (
            seconds(lambda order=order: count_ours(rows, vocab_size, order)),  # type: ignore[misc]
            seconds(lambda order=order: smooth_ours(rows, vocab_size, order)),  # type: ignore[misc]
            seconds(lambda order=order: count_nltk(share, order)),  # type: ignore[misc]
        )
        for order in ORDERS
    }
    print(machine_line(1))
    print("\n".join(table(sizes, figures)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
