"""Arrays of a source, of one shard or many: those of memory, made once, by one process or several at a time.

Tearing, changes and memory are tested with texts and rows.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amenable import hash_cache
from amenable.data import sources
from amenable.data.sharded_array import ShardedArray
from amenable.data.types import Text
from amenable.errors import InputError
from amenable.text.tokenizer import Tokenizer
from amenable.train import array_cache
from amenable.train.array_cache import arrays_in_memory, divide, read_arrays, tokenizer_key
from amenable.train.array_folder import ArrayFiles, Conversion
from amenable.train.examples import RejectedRows


class Lengths:
    """The length of each text."""

    def add(self, text: Text, files: ArrayFiles) -> int:
        files.write_int("ids", len(text.text))
        return len(text.text)


LENGTHS = Conversion(sources.read_texts, Lengths, {"ids": "int64", "none": "uint8"}, "texts", ["lengths"])


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hash_cache, "LARGE", 1)
    file = tmp_path / "texts.jsonl"
    rows = [{"text": "a" * i, "note": i} for i in range(1, 9)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"txt": 1}]), "utf-8")
    return file


def test_what_was_read_is_kept_beside_the_arrays(source: Path, capsys: pytest.CaptureFixture) -> None:
    reports, lines = list[RejectedRows](), list[list[str]]()
    for _ in range(2):
        reports.append(RejectedRows())
        arrays = read_arrays(source, LENGTHS, reports[-1])
        assert isinstance(arrays["ids"], np.memmap) and arrays["ids"].tolist() == [*range(1, 9)]
        assert arrays["none"].tolist() == [], "an empty file cannot be mapped"
        lines.append([line for line in capsys.readouterr().err.splitlines() if "tokenizes" not in line])
    assert lines[0] == lines[1] and "8 texts; column text used; not used: note" in lines[0][0]
    assert reports[0].rows == reports[1].rows and [row.line for row in reports[0].rows] == [9]


def test_memory_has_the_same_arrays(source: Path) -> None:
    small = arrays_in_memory(source, LENGTHS)
    assert {name: array.tolist() for name, array in small.items()} == {
        name: array.tolist() for name, array in read_arrays(source, LENGTHS).items()
    }


def test_what_makes_other_arrays_has_another_folder(source: Path, words: Tokenizer, tmp_path: Path) -> None:
    read_arrays(source, LENGTHS)
    read_arrays(source, Conversion(LENGTHS.read, Lengths, LENGTHS.types, "texts", ["lengths", 2]))
    read_arrays(source, LENGTHS, columns=("text=text",))
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 3
    plain = Tokenizer(words._backend, bos=words.bos, eos=words.eos, pad=words.pad)
    assert tokenizer_key(plain) != tokenizer_key(words), "a chat template decides the ids of conversations"


def test_a_limit_of_bad_rows_holds_for_the_cache_too(source: Path) -> None:
    read_arrays(source, LENGTHS)
    with pytest.raises(InputError, match="1 of 9 rows cannot be used"):
        read_arrays(source, LENGTHS, RejectedRows(0.0))


class Letters:
    """The letters of each text, and their end; its length, where a test writes what was converted."""

    converted: list[str] = []  # noqa: RUF012

    def __init__(self) -> None:
        self.end = 0

    def add(self, text: Text, files: ArrayFiles) -> int:
        Letters.converted.append(text.text)
        if text.text == "stop":
            raise KeyboardInterrupt
        self.end += len(text.text)
        files.write("ids", text.text.encode())
        files.write_int("ends", self.end)
        files.write_int("sizes", len(text.text))
        return len(text.text)


LETTERS = Conversion(
    *(sources.read_texts, Letters, {"ids": "uint8", "ends": "int64", "sizes": "int64"}, "texts", ["letters"]),
    counted={"ends": "ids"},
)


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    """A folder of three files of texts, each a shard."""
    path = tmp_path / "shards"
    for name, texts in (("a", ["one", "two"]), ("b", ["three"]), ("c", ["", "four", "five"])):
        write_texts(path / name / "part.jsonl", texts)
    Letters.converted.clear()
    return path


def write_texts(file: Path, texts: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")


def plain(arrays: dict[str, Any]) -> dict[str, list[int]]:
    return {name: array[:].tolist() for name, array in arrays.items()}


def test_shards_are_read_like_one_source(folder: Path, capsys: pytest.CaptureFixture) -> None:
    small, reports = arrays_in_memory(folder, LETTERS), [RejectedRows(), RejectedRows()]
    arrays = read_arrays(folder, LETTERS, reports[0])
    assert plain(arrays) == plain(small) and arrays["ends"].tolist()[-1] == 19
    assert isinstance(arrays["ids"], ShardedArray) and isinstance(arrays["ends"], np.memmap)
    lines = capsys.readouterr().err
    assert "3 of 3 shards) once" in lines and "19 tokens from 3 shards in" in lines
    Letters.converted.clear()
    assert plain(read_arrays(folder, LETTERS, reports[1])) == plain(small) and Letters.converted == []
    assert reports[0].rows == reports[1].rows and [row.line for row in reports[0].rows] == [1]
    assert Path(reports[0].rows[0].file) == folder / "c" / "part.jsonl"
    assert lines.count("part.jsonl: ") == 3, "each has a line, for its own folder"


def test_a_file_that_is_added_or_changed_is_converted_alone(folder: Path) -> None:
    read_arrays(folder, LETTERS)
    Letters.converted.clear()
    write_texts(folder / "d" / "part.jsonl", ["six"])
    write_texts(folder / "b" / "part.jsonl", ["seven"])
    assert bytes(read_arrays(folder, LETTERS)["ids"][:]) == b"onetwosevenfourfivesix"
    assert Letters.converted == ["seven", "six"]


def test_a_start_after_a_stop_makes_what_is_missing(folder: Path, capsys: pytest.CaptureFixture) -> None:
    write_texts(folder / "c" / "part.jsonl", ["stop"])
    with pytest.raises(KeyboardInterrupt):
        read_arrays(folder, LETTERS)
    write_texts(folder / "c" / "part.jsonl", ["go"])
    Letters.converted.clear()
    assert bytes(read_arrays(folder, LETTERS)["ids"][:]) == b"onetwothreego" and Letters.converted == ["go"]
    assert "1 of 3 shards) once" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["shard", "joined"])
def test_a_damaged_shard_is_made_anew_alone(folder: Path, tmp_path: Path, damage: str) -> None:
    expected = plain(read_arrays(folder, LETTERS))
    Letters.converted.clear()
    files = [*(tmp_path / "cache" / "tokens").glob("*/sizes.bin")]
    joined = max(files, key=lambda file: file.stat().st_size)
    (joined if damage == "joined" else min(files, key=lambda file: file.stat().st_size)).write_bytes(b"12345678")
    assert plain(read_arrays(folder, LETTERS)) == expected
    assert Letters.converted == ([] if damage == "joined" else ["three"])


def test_files_whose_rows_are_checked_against_each_other_are_one_shard(folder: Path) -> None:
    arrays = read_arrays(folder, replace(LETTERS, whole=True))
    assert isinstance(arrays["ids"], np.memmap) and bytes(arrays["ids"]) == b"onetwothreefourfive"


def test_small_files_share_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_cache, "LARGE", 100)
    assert divide([60, 50, 200, 3]) == [range(0, 2), range(2, 3), range(3, 4)]
    assert divide([60, 50, 200, 3, 4]) == [range(0, 2), range(2, 3), range(3, 5)], "the first ones stay"
    monkeypatch.setattr(array_cache, "MAX_SHARDS", 4)
    assert divide([100] * 4) == [range(i, i + 1) for i in range(4)]
    assert divide([100] * 9) == [range(0, 4), range(4, 8), range(8, 9)]


OWNER = """
import sys
from pathlib import Path
from amenable.train.lock import Lock

Lock(Path(sys.argv[1]), sys.argv[2]).acquire()
print("taken", flush=True)
sys.stdin.read()
"""


def test_a_shard_that_another_process_makes_is_left_to_it_until_it_ends(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, locks = array_cache.key_of([folder / "a" / "part.jsonl"], LETTERS, ()), tmp_path / "cache" / "locks"
    locks.mkdir(parents=True)
    left = tmp_path / "cache" / "tokens" / f".{key}.123.writing"
    left.mkdir(parents=True)
    command = [sys.executable, "-c", OWNER, str(locks), key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "taken\n"

        def kill(name: str, path: Path) -> None:
            assert name.startswith(f"process {owner.pid} on ") and path == folder
            assert Letters.converted == ["three", "four", "five"] and left.exists()
            owner.kill()

        monkeypatch.setattr(array_cache, "say_waits", kill)
        assert bytes(read_arrays(folder, LETTERS)["ids"][:]) == b"onetwothreefourfive"
    assert Letters.converted[-2:] == ["one", "two"] and not left.exists(), "nothing of the killed process is left"


def test_a_wait_is_a_line(capsys: pytest.CaptureFixture) -> None:
    array_cache.say_waits("process 7 on node", Path("texts"))
    assert capsys.readouterr().err == "data  waits for process 7 on node, which tokenizes texts\n"
