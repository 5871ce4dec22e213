"""Checkpoints written in a thread: a copy of the state, one at a time, and errors that are raised later."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable.errors import InputError
from amenable.train import checkpoint
from amenable.train.checkpoint_writer import CheckpointWriter


def test_the_checkpoint_is_of_the_state_when_it_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, write = threading.Event(), checkpoint.write

    def slow(folder: Path, snapshot: checkpoint.Snapshot) -> dict[str, Any]:
        assert go_on.wait(30)
        return write(folder, snapshot)

    monkeypatch.setattr(checkpoint, "write", slow)
    writer, weight = CheckpointWriter(tmp_path, 2, in_thread=True), torch.ones(3)
    writer.save(1, {"x": weight})
    weight.zero_()
    writer.poll()
    assert checkpoint.steps(tmp_path) == []
    go_on.set()
    writer.wait()
    step, state, _ = checkpoint.newest(tmp_path)
    assert step == 1 and state["x"].tolist() == [1, 1, 1]


def test_the_next_write_waits_for_the_one_before(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, 2, in_thread=True)
    for step in (1, 2, 3):
        writer.save(step, {"x": torch.tensor([step])})
    assert checkpoint.steps(tmp_path) != [3]
    writer.wait()
    writer.wait()
    assert sorted(checkpoint.steps(tmp_path)) == [2, 3]


def test_a_write_that_failed_is_an_error_of_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = CheckpointWriter(tmp_path, 2, in_thread=True)
    writer.save(1, {"x": torch.ones(1)})
    writer.wait()

    def full(file: Path) -> dict[str, Any]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "size_and_hash", full)
    writer.save(2, {"x": torch.ones(1)})
    with pytest.raises(InputError, match=r"checkpoint-2: cannot be written \(No space left on device\); earlier"):
        writer.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"] and writer.pending is None


def test_at_once_nothing_is_pending(tmp_path: Path) -> None:
    writer = CheckpointWriter(tmp_path, 1)
    writer.save(4, {"x": torch.ones(1)})
    assert writer.pending is None and checkpoint.steps(tmp_path) == [4]
