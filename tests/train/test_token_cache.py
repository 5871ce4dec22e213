"""Token cache: tokenized once, the same numbers as in memory, made anew where it or the source has changed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amenable import hash_cache
from amenable.errors import InputError
from amenable.stages import pretrain
from amenable.text.chat import render_document
from amenable.text.tokenizer import Tokenizer
from amenable.train import token_cache
from amenable.train.array_cache import arrays_in_memory
from amenable.train.array_folder import ArrayFiles
from amenable.train.examples import RejectedRows
from amenable.train.token_cache import TokenizedTexts, read_texts


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, for sources of any size."""
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hash_cache, "LARGE", 1)
    monkeypatch.setattr(hash_cache, "HASHED", 1)
    monkeypatch.setattr(hash_cache, "SETTLED_SECONDS", -3600.0)
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "text.jsonl"
    rows = [{"text": f"The rose is red. {i}\n\nA plum  is blue."} for i in range(50)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"txt": "bad"}, rows[0]]), "utf-8")
    return file


def in_memory(source: Path, words: Tokenizer) -> TokenizedTexts:
    return TokenizedTexts(**arrays_in_memory(source, token_cache.conversion(words)))


def equal(first: TokenizedTexts, second: TokenizedTexts) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(vars(first).values(), vars(second).values()))


def test_a_source_is_tokenized_once(
    cache: Path, source: Path, words: Tokenizer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    rejected = RejectedRows()
    texts = read_texts(source, words, rejected)
    assert isinstance(texts.ids, np.memmap) and texts.ids.dtype == np.uint16
    lines = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
    documents = [row["text"] for row in lines if "text" in row]
    assert [ids.tolist() for ids in np.split(texts.ids, texts.ends[:-1])] == [
        render_document(words, text) for text in documents
    ]
    assert texts.byte_counts.tolist() == [len(text.encode()) for text in documents]
    assert texts.keys[0] == texts.keys[-1] and len(set(texts.keys.tolist())) == 50
    first = capsys.readouterr().err
    assert "tokenizes" in first and "1 rejected" in first and "51 texts; column text used" in first

    monkeypatch.setattr(token_cache.BulkEncoder, "encode", None)
    again = RejectedRows()
    assert equal(read_texts(source, words, again), texts) and again.rows == rejected.rows
    second = capsys.readouterr().err
    assert "tokenizes" not in second and "1 rejected" in second and "51 texts; column text used" in second


def test_in_memory_and_in_the_cache_are_the_same(cache: Path, source: Path, words: Tokenizer) -> None:
    cached = read_texts(source, words)
    assert equal(in_memory(source, words), cached)


def test_another_content_or_tokenizer_is_tokenized_apart(cache: Path, source: Path, words: Tokenizer) -> None:
    before = read_texts(source, words)
    with source.open("a", encoding="utf-8") as file:
        file.write('{"text": "one more"}\n')
    after = read_texts(source, words)
    assert len(after.ends) == len(before.ends) + 1
    read_texts(source, Tokenizer.train(["other words"], 290))
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("name", ["ids.bin", "ends.bin", "keys.bin", "arrays.json"])
@pytest.mark.parametrize("damage", ["torn", "altered", "removed"])
def test_a_damaged_cache_is_made_anew(
    cache: Path, source: Path, words: Tokenizer, capsys: pytest.CaptureFixture, name: str, damage: str
) -> None:
    expected = in_memory(source, words)
    read_texts(source, words)
    (folder,) = cache.iterdir()
    content = (folder / name).read_bytes()
    if damage == "removed":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content[:-3] if damage == "torn" else content[:9] + b"\x07" + content[10:])
    capsys.readouterr()
    assert equal(read_texts(source, words), expected)
    assert f"{folder} is torn or altered: tokenizes {source} anew" in capsys.readouterr().err
    assert [folder.name for folder in cache.iterdir()] == [folder.name], "no temporary folder is left"


def test_a_source_that_changes_while_it_is_read_is_refused(
    cache: Path, source: Path, words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = token_cache.Writer.add

    def adding(writer: token_cache.Writer, text: Any, files: ArrayFiles) -> int:
        if " 10\n" in text.text:
            with source.open("a", encoding="utf-8") as file:
                file.write('{"text": "late"}\n')
        return add(writer, text, files)

    monkeypatch.setattr(token_cache.Writer, "add", adding)
    with pytest.raises(InputError, match="has changed while it was read; repeat the command"):
        read_texts(source, words)
    assert not list(cache.iterdir())


def test_a_cache_without_room_is_a_line(source: Path, words: Tokenizer, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder would be")
    with pytest.raises(InputError, match=r"cannot be written .*set AMENABLE_CACHE"):
        read_texts(source, words)


def test_a_run_from_the_cache_is_the_run_from_memory(
    cache: Path,
    pretrain_config: pretrain.Config,
    run_in_two: Callable,
    outcome: Callable,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    short = replace(pretrain_config, max_steps=6, eval_steps=3)
    from_cache = outcome(run_in_two(pretrain, replace(short, out=tmp_path / "cached"), 3))
    assert list(cache.iterdir())
    monkeypatch.setattr(hash_cache, "LARGE", 1 << 40)
    assert outcome(pretrain.run(replace(short, out=tmp_path / "memory"))) == from_cache


def test_time_stands_in_no_key(cache: Path, source: Path, words: Tokenizer) -> None:
    read_texts(source, words)
    time.sleep(0.01)
    source.touch()
    read_texts(source, words)
    assert len(list(cache.iterdir())) == 1


@pytest.mark.slow
def test_text_larger_than_memory_trains_in_two_gibibytes(tokenizer_folder: Path, tmp_path: Path) -> None:
    """LARGE_TEXT_MB of text (2,000 by default): the peak of a run that tokenizes it, and of the run that goes on."""
    from benchmarks.tokenizing import make_text

    data = tmp_path / "large.jsonl"
    megabytes, piece = int(os.environ.get("LARGE_TEXT_MB", "2000")), tmp_path / "piece"
    make_text(piece, min(megabytes, 200))
    with data.open("wb") as file:
        for _ in range(-(-megabytes // 200)):
            file.write(piece.read_bytes())
    options = ["--data", str(data), "--tokenizer", str(tokenizer_folder), "--model", "nano", "--context", "256"]
    options += ["--eval-tokens", "2000", "--save-steps", "2", "--final-lr-frac", "1", "--out", str(tmp_path / "run")]
    code = "import resource, sys; from amenable.cli import main; status = main(sys.argv[1:]); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    environment = {**os.environ, "AMENABLE_CACHE": str(tmp_path / "cache")}
    for steps in ("4", "6"):
        command = [sys.executable, "-c", code, "pretrain", *options, "--max-steps", steps]
        begun = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert ("tokenizes" in done.stderr) == (steps == "4"), "it is tokenized once"
        peak = int(done.stdout.split()[-1])
        print(
            f"{data.stat().st_size / 1e6:,.0f} MB, {steps} steps: {time.monotonic() - begun:,.0f} s, {peak >> 10:,} MiB"
        )
        assert peak < 2 * 2**20, "KiB"


LIMITED = """
import resource
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet

from amenable import hash_cache
from amenable.data import orders, sharded_array
from amenable.data.mixture import token_batches
from amenable.stages.pretrain import Config
from amenable.text.tokenizer import Tokenizer
from amenable.train.text_chunks import read_chunks

hash_cache.LARGE, orders.MAX_STORED, sharded_array.MAX_MAPS = 1 << 20, 1 << 10, 4
data, room = sys.argv[1], int(sys.argv[3])
tokenizer = Tokenizer.load(Path(sys.argv[2]))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
try:
    np.ones(room)
    sys.exit("the limit does not hold")
except MemoryError:
    texts = read_chunks(Config(data=data), tokenizer, 256, 2000)
steps, _ = token_batches(data, texts.lengths, 65536, 1.0, 0)
tokens = sum(len(texts.training[i][0]) for step in range(len(steps)) for i in steps[step])
print(tokens, int(texts.lengths[0].sum(dtype=np.int64)), type(steps.indices).__name__)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_shards_larger_than_the_memory_are_tokenized_and_read_in_random_order(tmp_path: Path) -> None:
    """LIMITED_TEXT_MB of text, 600 by default, .jsonl.zst and .parquet, in an address space with room for a half,
    and four shards mapped at a time."""
    from benchmarks.tokenizing import make_text, train

    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    zstandard = pytest.importorskip("zstandard")
    megabytes, piece, shards = int(os.environ.get("LIMITED_TEXT_MB", "600")), tmp_path / "piece", tmp_path / "shards"
    shards.mkdir()
    make_text(piece, megabytes / 12)
    train(piece, tmp_path / "tokenizer")
    rows = [json.loads(line) for line in piece.read_text("utf-8").splitlines()]
    for number in range(6):
        (shards / f"{number}.jsonl.zst").write_bytes(zstandard.compress(piece.read_bytes()))
        parquet.write_table(arrow.Table.from_pylist(rows), shards / f"{number}.parquet", row_group_size=1000)
    room = megabytes * 1_000_000 // 2
    command = [sys.executable, "-c", LIMITED, f"{shards}/*", str(tmp_path / "tokenizer"), str(room)]
    alone = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
    environment = {**os.environ, **alone, "AMENABLE_CACHE": str(tmp_path / "cache")}
    environment["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # others take a gigabyte of addresses at once
    for again in (False, True):
        begun = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert ("12 of 12 shards) once" in done.stderr) != again, "it is tokenized once"
        print(f"{megabytes} MB, room for {room:,} bytes: {time.monotonic() - begun:,.0f} s, {done.stdout.strip()}")
        read, tokens, order = done.stdout.split()
        assert order == "Computed" and 0.9 * int(tokens) < int(read) <= int(tokens)
