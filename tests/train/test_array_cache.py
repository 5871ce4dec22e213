"""Arrays of a source: what is kept beside them. Tearing, changes and memory are tested with texts and rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from amenable import hash_cache
from amenable.data import sources
from amenable.data.types import Text
from amenable.errors import InputError
from amenable.text.tokenizer import Tokenizer
from amenable.train.array_cache import ArrayFiles, Conversion, arrays_in_memory, read_arrays, tokenizer_key
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
