"""Tokenizing of text, beside `datasets.map` with the same tokenizer, and the start of a run from the token cache.

    python -m benchmarks.tokenizing                          # 100 MB, one thread each
    python -m benchmarks.tokenizing --megabytes 1000 --peer ""
    python -m benchmarks.tokenizing --data texts.jsonl       # a file of one's own

The text is made: 200,000 words of Zipf's frequencies, in sentences and paragraphs. Each row is a process of its own.
Seconds are the processor's, so that what else runs on a shared machine counts less.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from amenable import hash_cache

ROOT = Path(__file__).parent.parent
PEER = ROOT / ".venv-peers" / "bin" / "python"
WORDS, EXPONENT, DOCUMENT_WORDS = 200_000, 1.05, 400
ONSETS = ("b", "c", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "st", "tr", "ch", "sh")
SYLLABLES = [onset + vowel for onset in ONSETS for vowel in ("a", "e", "i", "o", "u", "ai", "ea")]
VOCABULARY = 8192


def make_text(file: Path, megabytes: float, seed: int = 0) -> None:
    """Write documents of made words to a .jsonl file."""
    draw = np.random.default_rng(seed)
    lengths = draw.choice([1, 2, 3, 4], WORDS, p=[0.2, 0.4, 0.3, 0.1])
    words = np.array(["".join(draw.choice(SYLLABLES, size)) for size in lengths.tolist()], dtype=object)
    weights = 1 / np.arange(1, WORDS + 1) ** EXPONENT
    bounds = np.cumsum(weights / weights.sum())
    size = 0
    with file.open("w", encoding="utf-8") as lines:
        while size < megabytes * 1e6:
            chosen = words[np.minimum(np.searchsorted(bounds, draw.random(100 * DOCUMENT_WORDS)), WORDS - 1)]
            ends = draw.random(len(chosen))
            marks = np.where(ends < 0.06, ". ", np.where(ends < 0.12, ", ", np.where(ends < 0.13, ".\n\n", " ")))
            for start in range(0, len(chosen), DOCUMENT_WORDS):
                part = slice(start, start + DOCUMENT_WORDS)
                line = json.dumps({"text": "".join((chosen[part] + marks[part]).tolist()).strip()}) + "\n"
                size += lines.write(line)


def texts_of(file: Path) -> list[str]:
    """Return the texts of a .jsonl file."""
    return [json.loads(line)["text"] for line in file.read_text("utf-8").splitlines()]


def train(file: Path, folder: Path) -> None:
    """Train the tokenizer on the first 5 MB."""
    from amenable.text.tokenizer import Tokenizer

    with file.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in islice(lines, 2000)]
    Tokenizer.train(texts, VOCABULARY).save(folder)


def library(file: Path, folder: Path) -> dict[str, float]:
    """Time `tokenizers` alone, in batches of a thousand texts that are in memory."""
    from amenable.text.tokenizer import Tokenizer

    tokenizer, texts = Tokenizer.load(folder), texts_of(file)
    begun = time.process_time()
    for start in range(0, len(texts), 1000):
        tokenizer.encode_batch(texts[start : start + 1000])
    return {"seconds": time.process_time() - begun}


def lookup(file: Path, folder: Path) -> dict[str, float]:
    """Time our tokenizing alone, of texts that are in memory."""
    from amenable.text.bulk import BulkEncoder
    from amenable.text.tokenizer import Tokenizer

    encoder, texts = BulkEncoder(Tokenizer.load(folder)), texts_of(file)
    begun = time.process_time()
    for text in texts:
        encoder.encode_document(text)
    return {"seconds": time.process_time() - begun}


def long_word(file: Path, folder: Path) -> dict[str, float]:
    """Time a word of 400,000 letters; `ratio` to one of 100,000, 4 in linear time."""
    from amenable.text.bulk import BulkEncoder
    from amenable.text.tokenizer import Tokenizer

    encoder, times = BulkEncoder(Tokenizer.load(folder)), []
    for length in (100_000, 400_000):
        begun = time.process_time()
        encoder.encode(f"It is {'re' * (length // 2)} so.")
        times.append(time.process_time() - begun)
    return {"seconds": times[1], "ratio": times[1] / times[0]}


def to_cache(file: Path, folder: Path) -> dict[str, float]:
    """Time from a file to memory maps: reading, checking of rows, tokenizing, hashes, writing."""
    from amenable.text.tokenizer import Tokenizer
    from amenable.train.token_cache import read_texts

    tokenizer = Tokenizer.load(folder)
    begun = time.process_time()
    read_texts(file, tokenizer)
    return {"seconds": time.process_time() - begun}


def shards_of(file: Path, folder: Path) -> Path:
    """Return a folder of four .jsonl.zst files with the lines of a file, written at the first call."""
    import zstandard

    shards, lines = folder.parent / "shards", file.read_bytes().splitlines(keepends=True)
    if not shards.exists():
        shards.mkdir()
        for number in range(4):
            content = b"".join(lines[number * len(lines) // 4 : (number + 1) * len(lines) // 4])
            (shards / f"{number}.jsonl.zst").write_bytes(zstandard.compress(content))
    return shards


def to_shards(file: Path, folder: Path) -> dict[str, float]:
    """Time from four .jsonl.zst files to the memory maps of each, and what is joined."""
    from amenable.text.tokenizer import Tokenizer
    from amenable.train.token_cache import read_texts

    shards, tokenizer = shards_of(file, folder), Tokenizer.load(folder)
    with patch.object(hash_cache, "LARGE", 1 << 20):  # a shard a file, though compressed ones are small here
        begun = time.process_time()
        read_texts(shards, tokenizer)
        return {"seconds": time.process_time() - begun}


def shuffled(file: Path, folder: Path) -> dict[str, float]:
    """Time an epoch of chunks of 256 tokens of the shards, in an order that is computed where it is read; `rows` are
    chunks a second."""
    from amenable.data import orders
    from amenable.data.mixture import token_batches
    from amenable.stages.pretrain import Config
    from amenable.text.tokenizer import Tokenizer
    from amenable.train.text_chunks import read_chunks

    config = Config(data=shards_of(file, folder))
    with patch.object(hash_cache, "LARGE", 1 << 20), patch.object(orders, "MAX_STORED", 1):
        texts = read_chunks(config, Tokenizer.load(folder), 256, config.eval_tokens)
        begun = time.process_time()
        steps, _ = token_batches(config.data, texts.lengths, 16384, 1.0, 0)
        rows = sum(len(texts.training[i][0]) > 0 for step in range(len(steps)) for i in steps[step])
        seconds = time.process_time() - begun
    return {"seconds": seconds, "rows": rows / seconds}


def start(file: Path, folder: Path) -> dict[str, float]:
    """Time what a run does with text that is in the cache before its first step: hashes of the lineage, chunks of 1,024
    tokens, held-out rows, the first steps."""
    from amenable.data.mixture import token_batches
    from amenable.files import hash_of
    from amenable.hash_cache import cached_sha256
    from amenable.stages.pretrain import Config
    from amenable.text.tokenizer import Tokenizer
    from amenable.train.text_chunks import read_chunks

    config = Config(data=file)
    begun = time.process_time()
    hash_of(file, cached_sha256)
    texts = read_chunks(config, Tokenizer.load(folder), 1024, config.eval_tokens)
    steps, _ = token_batches(file, texts.lengths, 16384, 1.0, 0)
    rows = [texts.training[i] for i in steps[0]]
    return {"seconds": time.process_time() - begun, "tokens": float(steps.lengths.sum()), "rows": len(rows)}


ROWS: dict[str, tuple[Callable[[Path, Path], dict[str, float]], str]] = {
    "library": (library, "`tokenizers`, `encode_batch_fast`"),
    "lookup": (lookup, "looking up words"),
    "long_word": (long_word, "a word of 400,000 letters, times as long as one of 100,000:"),
    "to_cache": (to_cache, "file to memory maps"),
    "to_shards": (to_shards, "four `.jsonl.zst` files to memory maps"),
    "shuffled": (shuffled, "an epoch in random order, rows a second:"),
    "start": (start, "start from the cache, first time"),
    "start_again": (start, "start from the cache"),
}


def measure(name: str, file: Path, folder: Path, cache: Path) -> dict[str, float]:
    """Run one row in a process of its own with one thread; return its figures and its peak of memory in MB."""
    single_thread = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **single_thread, "AMENABLE_CACHE": str(cache)}
    command = [sys.executable, "-m", "benchmarks.tokenizing", "--row", name, "--data", str(file), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_peer(python: Path, file: Path, folder: Path, cache: Path) -> dict[str, float]:
    """Run `datasets.map` in the peers' environment with one thread."""
    single_thread = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **single_thread, "HF_HOME": str(cache / "hf")}
    environment.pop("PYTHONPATH", None)
    script = [str(python), str(Path(__file__).with_name("peer_datasets.py"))]
    command = [*script, str(file), str(folder / "tokenizer.json"), str(cache / "datasets")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"datasets: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(megabytes: float, figures: dict[str, dict[str, float]]) -> list[str]:
    """Return the figures as lines of a table."""
    lines = [f"| {megabytes:,.0f} MB, one thread each | processor seconds | MB/s | peak, MB |", "|---|--:|--:|--:|"]
    names = {name: words for name, (_, words) in ROWS.items()}
    for name, row in figures.items():
        seconds = row.get("seconds", row.get("load", 0.0) + row.get("map", 0.0))
        words = names.get(name, "`datasets.load_dataset` and `map`")
        speed = "" if name.startswith(("start", "long", "shuffled")) else f"{megabytes / seconds:.1f}"
        words += f" {row['ratio']:.1f}" if "ratio" in row else ""
        words += f" {row['rows']:,.0f}" if name == "shuffled" else ""
        lines.append(f"| {words} | {seconds:.2f} | {speed} | {row.get('peak', 0) or ''} |")
    if "datasets" in figures:
        lines.append(
            f"| `map` alone | {figures['datasets']['map']:.2f} | {megabytes / figures['datasets']['map']:.1f} | |"
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Measure every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--data", type=Path, help="a .jsonl file of texts, instead of made ones")
    parser.add_argument("--peer", default=str(PEER), help="python with datasets and tokenizers; '' for none")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options: Any = parser.parse_args(arguments)
    if options.row:
        row = ROWS[options.row][0](options.data, options.out)
        print(json.dumps({**row, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        folder, file = Path(scratch), options.data or Path(scratch) / "texts.jsonl"
        if options.data is None:
            make_text(file, options.megabytes)
        train(file, folder / "tokenizer")
        figures = {}
        for name in ROWS:
            if file.stat().st_size < 1e9 or name not in (
                "library",
                "lookup",
                "to_shards",
                "shuffled",
            ):  # these hold all texts in memory
                figures[name] = measure(name, file, folder / "tokenizer", folder / "cache")
        if options.peer:
            figures["datasets"] = measure_peer(Path(options.peer), file, folder / "tokenizer", folder / "cache")
        lines = table(file.stat().st_size / 1e6, figures)
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
