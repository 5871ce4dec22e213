"""Hashes of large files are read from the cache until the file changes, however it changes."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from amenable import hash_cache
from amenable.files import disk_errors
from amenable.hash_cache import cache_folder, cached_sha256, model_hash


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large, and has not been changed for a while as far as the clock tells."""
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hash_cache, "HASHED", 1000)
    now = time.time
    monkeypatch.setattr(hash_cache.time, "time", lambda: now() + 10)
    path = tmp_path / "data.bin"
    path.write_bytes(bytes(range(256)) * 2000)
    return path


def test_the_hash_of_a_model_is_of_weights_and_tokenizer_and_of_what_an_adapter_is_on(tmp_path: Path) -> None:
    model, adapter = tmp_path / "model", tmp_path / "adapter"
    for folder in (model, adapter):
        folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "notes.txt"):
        (model / name).write_text("{}", "utf-8")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(model)}), "utf-8")
    first = model_hash(model), model_hash(adapter)
    (model / "notes.txt").write_text("read", "utf-8")
    assert (model_hash(model), model_hash(adapter)) == first and first[0] != first[1]
    (model / "tokenizer.json").write_text("[]", "utf-8")
    assert model_hash(model) != first[0] and model_hash(adapter) != first[1]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    read: list[Path] = []
    whole = hash_cache.sha256
    monkeypatch.setattr(hash_cache, "sha256", lambda path: read.append(path) or whole(path))
    return read


def test_a_file_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = counted(monkeypatch)
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    assert [cached_sha256(file) for _ in range(3)] == [expected] * 3 and len(read) == 1
    for entry in cache_folder().glob("hashes/*.json"):
        entry.write_text("torn")
    assert cached_sha256(file) == expected and len(read) == 2


def test_a_changed_file_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_sha256(file)
    facts, content = file.stat(), bytearray(file.read_bytes())
    content[300_000] ^= 1  # in no block of the sample
    file.write_bytes(content)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert cached_sha256(file) == hashlib.sha256(content).hexdigest(), "ctime tells, though size and mtime are the same"
    content[:4096] = bytes(4096)
    state = hash_cache.file_state(file)
    file.write_bytes(content)
    assert hash_cache.file_state(file)["sample"] != state["sample"]
    assert cached_sha256(file) == hashlib.sha256(content).hexdigest()


def test_a_file_that_has_just_changed_is_not_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_cache.time, "time", lambda: file.stat().st_mtime + 1)
    read = counted(monkeypatch)
    assert cached_sha256(file) == cached_sha256(file) and len(read) == 2


def test_a_cache_that_cannot_be_written_only_costs_time(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMENABLE_CACHE", str(file))
    assert cached_sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_an_entry_that_another_process_renames_first_costs_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename_first(path: Path, text: str) -> None:
        with disk_errors(path):
            path.with_name("gone").rename(path)

    monkeypatch.setattr(hash_cache, "write_text", rename_first)
    assert cached_sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMENABLE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "amenable"
    monkeypatch.setenv("AMENABLE_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_an_entry_names_its_file(file: Path) -> None:
    cached_sha256(file)
    (entry,) = cache_folder().glob("hashes/*.json")
    assert json.loads(entry.read_text("utf-8"))["path"] == str(file.resolve())
