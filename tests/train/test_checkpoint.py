"""A checkpoint gives back exactly what it was given, and a torn one is passed over."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from amenable import files
from amenable.train import checkpoint


def a_state() -> dict:
    parameter = torch.nn.Parameter(torch.randn(3, 2, generator=torch.Generator().manual_seed(1)))
    optimizer = torch.optim.AdamW([parameter], lr=0.1)
    parameter.grad = torch.ones(3, 2)
    optimizer.step()
    return {
        "weights": {"a.b": parameter.detach(), "half": torch.tensor([1.5], dtype=torch.bfloat16)},
        "optimizer": optimizer.state_dict(),
        "facts": {"best": None, "flag": True, "rate": 0.1, "names": ["x", "y"], "empty": {}, 3: "three"},
    }


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, list) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


def test_round_trip_keeps_tensors_and_facts_to_the_bit(tmp_path: Path) -> None:
    state = a_state()
    checkpoint.save(tmp_path, 7, state)
    step, result, torn = checkpoint.newest(tmp_path)
    assert (step, torn) == (7, [])
    assert same(state, result)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, {"x": torch.tensor([step])}, keep=2)
    assert sorted(checkpoint.steps(tmp_path)) == [2, 10]
    assert checkpoint.newest(tmp_path)[0] == 10


@pytest.mark.parametrize("harm", ["cut", "flip", "lose a file", "lose the manifest", "an empty manifest"])
def test_a_torn_checkpoint_is_named_and_the_one_before_is_taken(tmp_path: Path, harm: str) -> None:
    checkpoint.save(tmp_path, 1, {"x": torch.arange(100)})
    checkpoint.save(tmp_path, 2, {"x": torch.arange(100) + 1})
    victim = tmp_path / "checkpoint-2" / "state.safetensors"
    content = victim.read_bytes()
    if harm == "cut":
        victim.write_bytes(content[:-10])
    elif harm == "flip":
        victim.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "lose a file":
        victim.unlink()
    elif harm == "lose the manifest":
        (tmp_path / "checkpoint-2" / "manifest.json").unlink()
    else:
        (tmp_path / "checkpoint-2" / "manifest.json").write_text("{}")
    step, state, torn = checkpoint.newest(tmp_path)
    assert step == 1 and torn == ["checkpoint-2"]
    assert torch.equal(state["x"], torch.arange(100))


def test_a_write_that_was_interrupted_leaves_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-3.writing").mkdir()
    assert checkpoint.newest(tmp_path) is None
    checkpoint.save(tmp_path, 3, {"x": torch.zeros(1)})
    assert checkpoint.newest(tmp_path)[0] == 3
    assert not (tmp_path / ".checkpoint-3.writing").exists()


def test_what_is_not_plain_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="can't hold set at /x"):
        checkpoint.save(tmp_path, 1, {"x": {1, 2}})


def test_the_manifest_tells_size_and_hash(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path, 1, {"x": torch.zeros(1)})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest) == {"state.safetensors", "state.json"}
    for name, fact in manifest.items():
        assert fact == {"bytes": (folder / name).stat().st_size, "sha256": files.sha256(folder / name)}


def test_a_torn_one_of_a_later_step_takes_nobodys_place(tmp_path: Path) -> None:
    """A run that goes on from 5 because 10 is torn, and saves at 8: 10 is not the newest to be kept."""
    for step in (5, 10, 8):
        checkpoint.save(tmp_path, step, {"x": torch.tensor([step])}, keep=1 if step == 8 else 2)
    assert checkpoint.steps(tmp_path) == [8]
    assert checkpoint.newest(tmp_path)[0] == 8


def test_a_stop_while_it_is_written_leaves_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(file: Path) -> None:
        raise KeyboardInterrupt

    checkpoint.save(tmp_path, 1, {"x": torch.zeros(1)})
    monkeypatch.setattr(checkpoint, "size_and_hash", stopped)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 2, {"x": torch.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_bytes_are_those_of_the_tensors_and_of_the_files(tmp_path: Path) -> None:
    state = {"a": torch.zeros(3, dtype=torch.float64), "b": [torch.zeros(2), {"c": 1}], "d": "text"}
    assert checkpoint.bytes_in(state) == 24 + 8
    folder = checkpoint.save(tmp_path, 1, state)
    assert checkpoint.bytes_on_disk(tmp_path) == sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_checkpoint_is_written_without_a_copy_of_the_state(tmp_path: Path) -> None:
    """64 MB of weights, transposed ones and whole numbers among them, in a process of their own."""
    script = """
import sys, torch
from pathlib import Path
from amenable.train import checkpoint
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024
state = {"a": torch.ones(3000, 4000), "b": torch.ones(1000, 2000).t(), "c": torch.arange(9), "d": torch.tensor([True])}
before = status("VmRSS")
checkpoint.save(Path(sys.argv[1]), 1, state)
print(status("VmHWM") - before)
again = checkpoint.newest(Path(sys.argv[1]))[1]
assert all(torch.equal(again[name], state[name]) and again[name].dtype == state[name].dtype for name in state)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 25_000_000
