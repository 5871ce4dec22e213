"""Folder of a run: empty, begun, unfinished, or within an input."""

from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.train import run_folder


def test_a_folder_with_only_a_lock_has_no_run(tmp_path: Path) -> None:
    assert run_folder.is_empty_run(tmp_path / "none") and run_folder.is_empty_run(tmp_path)
    (tmp_path / run_folder.LOCK).touch()
    assert run_folder.is_empty_run(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert not run_folder.is_empty_run(tmp_path)


def test_the_output_is_apart_from_what_is_read(tmp_path: Path) -> None:
    run_folder.require_no_overlap(tmp_path / "out", {"data": tmp_path / "data"})
    with pytest.raises(InputError, match="lies inside the data"):
        run_folder.require_no_overlap(tmp_path / "data" / "out", {"data": tmp_path / "data"})
    with pytest.raises(InputError, match="holds the data"):
        run_folder.require_no_overlap(tmp_path, {"data": tmp_path / "data"})


def test_an_input_is_of_a_finished_run(tmp_path: Path) -> None:
    run_folder.require_finished(tmp_path / "model.safetensors", "model")
    for name in (run_folder.OPTIONS, run_folder.LINEAGE):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="has not finished"):
        run_folder.require_finished(tmp_path / "model.safetensors", "model")


def test_what_has_begun_is_read_or_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run"):
        run_folder.read_begun(tmp_path)
    (tmp_path / run_folder.OPTIONS).write_text("command: sft", "utf-8")
    (tmp_path / run_folder.LINEAGE).write_text('{"inputs": {"data": 1}}', "utf-8")
    assert run_folder.read_begun(tmp_path) == ({"command": "sft"}, {"inputs": {"data": 1}})


def test_a_list_of_an_item_is_that_item() -> None:
    assert run_folder.is_same("a", ["a"]) and run_folder.is_same(["a"], "a") and not run_folder.is_same("a", "b")


def test_where_weights_are_held_may_change() -> None:
    whole = {"seed": 0, "optimizer": {"eps": 1.0, "fsdp": False}}
    for held in ({"fsdp": True}, {"fsdp": True, "fsdp_offload": True}):
        assert run_folder.comparable(whole) == run_folder.comparable({"seed": 0, "optimizer": {"eps": 1.0, **held}})
    assert run_folder.comparable(whole) != run_folder.comparable({"seed": 0, "optimizer": {"eps": 2.0}})
    assert run_folder.comparable({"seed": 0}) == {"seed": 0}
