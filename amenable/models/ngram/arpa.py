r"""ARPA files of n-gram models, as KenLM, SRILM and others read and write them.

    \data\              number of n-grams of each order
    \1-grams:           log10 p    n-gram    log10 back-off weight
    ...
    \end\

<s> begins a text and is never predicted, </s> ends it; -99 is the logarithm of 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from amenable.errors import InputError
from amenable.models.ngram.counting import Array, look_up
from amenable.models.ngram.estimate import blocks
from amenable.models.ngram.tables import NGramTables

ZERO = -99.0
"""log10 of probability 0"""
FORM = (
    "an ARPA file is \\data\\, 'ngram ORDER=COUNT' lines, sections \\1-grams: ... of 'LOG10 WORDS [BACKOFF]', \\end\\"
)


def write_arpa(path: Path, tables: NGramTables, names: Sequence[str]) -> None:
    """Write a model as an ARPA file. names: of each token. InputError for names that the format cannot hold, and for a
    model that does not back off to shorter contexts."""
    if tables.to_uniform:
        raise InputError(
            "add-k does not back off, and an ARPA file holds models that do", path, "take another smoothing"
        )
    bad = next((name for name in names if not name or re.search(r"\s", name)), None)
    if bad is not None or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), "") if bad is None else bad
        raise InputError(f"an ARPA file cannot hold the token {twice!r}", path, "words have no white space, and differ")
    with path.open("w", encoding="utf-8") as file:
        file.write("\\data\\\n" + "".join(f"ngram {i}={size}\n" for i, size in enumerate(tables.sizes, 1)))
        for order in range(1, tables.order + 1):
            file.write(f"\n\\{order}-grams:\n")
            for part in blocks(tables.sizes[order - 1], 1 << 16):
                write_part(file, tables, names, order, part)
        file.write("\n\\end\\\n")


def write_part(file: TextIO, tables: NGramTables, names: Sequence[str], order: int, part: slice) -> None:
    """Write the lines of some n-grams of one order."""
    rows = np.arange(tables.sizes[order - 1])[part]
    words = [" ".join(names[token] for token in ngram) for ngram in tokens_of(tables, order, rows).tolist()]
    values = [log10(tables.logprobs[order - 1][part])]
    if order < tables.order:
        values.append(log10(tables.backoffs[order - 1][part]))
    for word, *numbers in zip(words, *values):
        weight = f"\t{numbers[1]:.8g}" if len(numbers) > 1 and numbers[1] else ""
        file.write(f"{numbers[0]:.8g}\t{word}{weight}\n")


def log10(natural: Array) -> list[float]:
    """Return base-10 logarithms of natural ones, ZERO for -inf."""
    return np.maximum(np.asarray(natural, float) / math.log(10), ZERO).tolist()


def tokens_of(tables: NGramTables, order: int, rows: Array) -> Array:
    """Return the tokens [m, order] of the n-grams in some rows of an order's table."""
    tokens = np.empty((len(rows), order), np.int64)
    for i in range(order - 1, 0, -1):
        rows, tokens[:, i] = np.divmod(tables.keys[i - 1][rows], tables.vocab_size)
    tokens[:, 0] = rows
    return tokens


def read_words(path: Path) -> list[str]:
    """Return the words of an ARPA file's unigrams, in its order."""
    with path.open(encoding="utf-8") as file:
        return [words[0] for order, _, words, _ in entries(path, file) if order == 1]


def read_arpa(path: Path, ids: Mapping[str, int], vocab_size: int) -> NGramTables:
    """Read an ARPA file. ids: of each word; vocab_size: V. Tokens that it lacks have probability 0.

    InputError, with the line, for what is no ARPA file, a word without an id, an n-gram that is there twice, and one
    whose context is not there.
    """
    columns: dict[int, list[tuple[list[int], tuple[float, float]]]] = {}
    with path.open(encoding="utf-8") as file:
        for order, number, words, values in entries(path, file):
            unknown = next((word for word in words if word not in ids), None)
            if unknown is not None:
                hint = "name the tokenizer that it was made with, or none for a model of words"
                raise InputError(f"the tokenizer has no token '{unknown}'", f"{path}:{number}", hint)
            columns.setdefault(order, []).append(([ids[word] for word in words], values))
    if sorted(columns) != list(range(1, len(columns) + 1)):
        raise InputError("no n-grams of order 1, or an order is missing", path, FORM)
    logprobs, backoffs = np.full(vocab_size, -np.inf, np.float32), np.zeros(vocab_size, np.float32)
    for (token,), (logp, weight) in columns[1]:
        logprobs[token], backoffs[token] = logp, weight
    tables = NGramTables(vocab_size, [], [logprobs], [])
    for order in range(2, len(columns) + 1):
        ngrams = np.array([words for words, _ in columns[order]])
        numbers = np.array([values for _, values in columns[order]], np.float32)
        contexts = ngrams[:, 0]
        for i in range(1, order - 1):
            contexts = np.where(contexts < 0, -1, look_up(tables.keys[i - 1], contexts * vocab_size + ngrams[:, i]))
        names = {token: word for word, token in ids.items()}
        if (contexts < 0).any():
            lost = " ".join(names[token] for token in ngrams[int((contexts < 0).argmax())].tolist())
            raise InputError(f"the context of '{lost}' is not among the n-grams of order {order - 1}", path, FORM)
        keys = contexts * vocab_size + ngrams[:, -1]
        sequence = np.argsort(keys)
        keys = keys[sequence]
        if (keys[1:] == keys[:-1]).any():
            twice = ngrams[sequence[int((keys[1:] == keys[:-1]).argmax())]].tolist()
            raise InputError(f"'{' '.join(names[token] for token in twice)}' is there twice", path, FORM)
        tables = NGramTables(
            vocab_size,
            [*tables.keys, keys],
            [*tables.logprobs, numbers[sequence, 0]],
            [*tables.backoffs, backoffs],
        )
        backoffs = numbers[sequence, 1]
    return tables


def entries(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, int, list[str], tuple[float, float]]]:
    """Yield (order, line, words, (log p, log back-off weight)) of every n-gram of an ARPA file, in natural logarithms.

    InputError for a line that is none, a file without an end, and other numbers of n-grams than it says.
    """
    expected, counted, order, number = dict[int, int](), dict[int, int](), 0, 0
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if header := re.fullmatch(r"ngram (\d+)\s*=\s*(\d+)", text):
            expected[int(header[1])] = int(header[2])
        elif section := re.fullmatch(r"\\(\d+)-grams:", text):
            order = int(section[1])
        elif text == "\\end\\":
            break
        elif order and text:
            logp, *rest = text.split()
            words, weight = rest[:order], rest[order:]
            try:
                numbers = natural(logp), natural(weight[0]) if weight else 0.0
            except ValueError:
                words = []
            if len(words) < order or len(weight) > 1:
                raise InputError(f"no n-gram of order {order}: {text!r:.60}", f"{path}:{number}", FORM)
            counted[order] = counted.get(order, 0) + 1
            yield order, number, words, numbers
    else:
        raise InputError("no ARPA file, or one that was cut: it has no \\end\\", path, FORM)
    wrong = next((order for order in expected if expected[order] != counted.get(order, 0)), None)
    if wrong is not None:
        problem = f"says {expected[wrong]} n-grams of order {wrong} and has {counted.get(wrong, 0)}"
        raise InputError(problem, path, "copy or write it again")


def natural(text: str) -> float:
    """Return the natural logarithm that a base-10 one is in an ARPA file; -inf for ZERO and below. ValueError for what
    is no number."""
    value = float(text)
    if math.isnan(value):
        raise ValueError(text)
    return -math.inf if value <= ZERO else value * math.log(10)
