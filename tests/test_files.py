"""Files are written atomically; disk errors become one line."""

import errno
import json
from pathlib import Path

import pytest

from amenable import files
from amenable.errors import InputError


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write_text(path, "old\u2028")
    assert path.read_bytes() == "old\u2028".encode()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(InputError, match=r"a\.json: cannot be written \(No space left"):
        patch.setattr(files.os, "fsync", full)
        files.write_text(path, "new")
    assert path.read_text() == "old\u2028" and [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_missing_folder_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory"):
        files.write_text(tmp_path / "none" / "a", "x")


def test_only_temporaries_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-3.writing").mkdir()
    (tmp_path / ".checkpoint-3.writing" / "state.json").write_text("{")
    for name in (".model.safetensors.writing", ".labels.db.writing-wal", ".lock", "writing.txt"):
        (tmp_path / name).write_text("x")
    files.remove_temporaries(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "writing.txt"}


def test_a_manifest_lists_every_file_below(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "passing").mkdir()
    for name in ("a", "text/b", "passing/c", "finished.json"):
        (tmp_path / name).write_text(name)
    files.write_manifest(tmp_path, {"passing", "finished.json"})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest == {name: {"bytes": len(name), "sha256": files.sha256(tmp_path / name)} for name in ("a", "text/b")}
    assert manifest["a"]["sha256"] == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    files.write_manifest(tmp_path, {"passing", "finished.json"})  # the old one is no part of the new one
    assert json.loads((tmp_path / "manifest.json").read_text()) == manifest


def test_a_changed_or_missing_file_does_not_match_the_manifest(tmp_path: Path) -> None:
    assert not files.matches_manifest(tmp_path)
    (tmp_path / "inner").mkdir()
    for name in ("a.txt", "inner/b.txt"):
        (tmp_path / name).write_text("abc")
    files.write_manifest(tmp_path)
    (tmp_path / "later.txt").write_text("a later file is not listed")
    assert files.matches_manifest(tmp_path)
    (tmp_path / "inner" / "b.txt").write_text("abd")
    assert not files.matches_manifest(tmp_path)
    (tmp_path / "inner" / "b.txt").unlink()
    assert not files.matches_manifest(tmp_path)
    for broken in ("{}", "[1]", '{"a.txt": 3}', '{"a.txt": {"bytes": 3}}', "not json"):
        (tmp_path / files.MANIFEST).write_text(broken)
        assert not files.matches_manifest(tmp_path)


def test_hash_of_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    first = files.hash_of(tmp_path)
    (tmp_path / "x").rename(tmp_path / "y")
    assert files.hash_of(tmp_path) != first


def test_hash_of_a_model_is_that_of_every_file_it_computes_with(tmp_path: Path) -> None:
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    tokenizer = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"]
    decisive = [*shards, "model.safetensors.index.json", "config.json", "generation_config.json", *tokenizer]
    for name in (*decisive, "README.md", "metrics.jsonl"):
        (tmp_path / name).write_text("old")
    first = files.hash_of(tmp_path)
    for name in decisive:
        (tmp_path / name).write_text("new")
        assert files.hash_of(tmp_path) != first, name
        (tmp_path / name).write_text("old")
    for name in ("README.md", "metrics.jsonl", "finished.json"):
        (tmp_path / name).write_text("new")
    assert files.hash_of(tmp_path) == first
