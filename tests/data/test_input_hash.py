"""Hashes of inputs: those of files and folders as ever; of a pattern, of the files that it matches now."""

from pathlib import Path

import pytest

from amenable.data.input_hash import count_files, describe_change, hash_of_input, input_facts
from amenable.data.readers import list_files
from amenable.data.urls import to_path
from amenable.errors import InputError
from amenable.files import hash_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("web/a.jsonl", "web/deep/b.jsonl.gz", "web/c.txt", "web/notes.md", "web/.hidden/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}")
    return tmp_path / "web"


def test_a_pattern_has_the_data_files_that_it_matches(folder: Path) -> None:
    for pattern, names in (
        ("*", ["a.jsonl", "c.txt"]),
        ("**/*", ["a.jsonl", "c.txt", "b.jsonl.gz"]),
        ("[a-b]*", ["a.jsonl"]),
        ("?.txt", ["c.txt"]),
    ):
        assert [file.name for file in list_files(folder / pattern)] == names
    with pytest.raises(InputError, match=r"web/\*.md: no data files match this pattern; data files end in .jsonl"):
        list_files(folder / "*.md")
    (folder / "x[1].txt").write_text("a file's own name")
    assert list_files(folder / "x[1].txt") == [folder / "x[1].txt"]


def test_files_and_folders_have_the_hash_of_their_content(folder: Path) -> None:
    assert hash_of_input(folder) == hash_of(folder) and count_files(folder) == 5
    assert hash_of_input(folder / "c.txt") == hash_of(folder / "c.txt") and count_files(folder / "c.txt") == 1
    with pytest.raises(InputError, match="no such file or folder"):
        hash_of_input(folder / "none")


def test_a_pattern_has_a_hash_of_names_and_contents_wherever_they_lie(folder: Path) -> None:
    pattern, before = folder / "**" / "*.jsonl*", hash_of_input(folder / "**" / "*.jsonl*")
    assert count_files(pattern) == 2
    moved = folder.rename(folder.with_name("moved"))
    assert hash_of_input(moved / "**" / "*.jsonl*") == before
    (moved / "a.jsonl").write_text("another content")
    changed = hash_of_input(moved / "**" / "*.jsonl*")
    (moved / "a.jsonl").rename(moved / "e.jsonl")
    assert len({before, changed, hash_of_input(moved / "**" / "*.jsonl*")}) == 3


def test_urls_have_a_hash_of_addresses_and_states() -> None:
    fs = pytest.importorskip("fsspec").filesystem("memory")
    fs.pipe({"/hashes/a.txt": b"one", "/hashes/b.txt": b"two"})
    folder = to_path("memory://hashes")
    before = hash_of_input(folder)
    assert hash_of_input(folder) == before != hash_of_input(folder / "a.txt") and count_files(folder) == 2
    fs.pipe("/hashes/c.txt", b"three")
    assert hash_of_input(folder) != before and count_files(folder) == 3
    fs.rm("/hashes", recursive=True)


def test_a_lineage_has_paths_hashes_and_numbers_of_files(folder: Path) -> None:
    facts = input_facts({"data": folder}, {"judge": "http://host"})
    assert facts["inputs"]["data"] == {"path": str(folder), "sha256": hash_of(folder)}
    assert facts["inputs"]["judge"] == {"path": "http://host", "sha256": None} and facts["files"] == {"data": 5}


def test_another_number_of_files_is_named() -> None:
    assert describe_change(["model", "data"], {"data": 8}, {"data": 9, "model": 3}) == (
        "was begun with other files: data had 8 and has 9"
    )
    assert describe_change(["data"], {"data": 9}, {"data": 9}) == "was begun with other data: the content has changed"
    assert describe_change(["data"], {}, {"data": 9}) == "was begun with other data: the content has changed"
