"""Trackers: real ones get metrics, samples, options and summary of a run, once a step; a broken one stops nothing."""

import importlib.util
import json
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amenable import cli
from amenable.errors import InputError
from amenable.stages import dpo, pretrain, reward, rloo, sft
from amenable.train import trackers
from amenable.train.log import Log
from amenable.train.runtime import DeviceOptions
from amenable.train.trackers import TrackedRun, Trackers, cell, require_installed, start


class Recorder:
    """A tracker that keeps what it gets, and fails from a step on."""

    def __init__(self, first: int = 1, fails: int = 99):
        self.first, self.fails = first, fails
        self.calls: list[tuple[Any, ...]] = []

    def metrics(self, step: int, values: Any) -> None:
        if step >= self.fails:
            raise ConnectionError("no network")
        self.calls.append(("metrics", step, values))

    def samples(self, step: int, columns: Any, rows: Any) -> None:
        self.calls.append(("samples", step, columns, rows))

    def finish(self, step: int, summary: Any) -> None:
        self.calls.append(("finish", step, summary))


def test_the_log_hands_on_rows_and_files_have_them_anyway(tmp_path: Path) -> None:
    log, fine, broken, warnings = Log(tmp_path, "sft"), Recorder(2), Recorder(1, fails=2), list[str]()
    log.trackers = Trackers({"fine": fine, "broken": broken}, warnings.append)
    for step in (1, 2, 3):
        log.row(step, {"loss": 1.0 / step, "done": True, "gap": float("nan"), "name": "x"})
    log.samples(3, [{"prompt": "a\nb", "score": 1.5}, {"prompt": "c", "rewards": {"ends": 1}}])
    log.trackers.finish({"loss": 0.3})
    assert broken.calls == [("metrics", 1, {"loss": 1.0})]
    assert warnings == ["broken fails and gets no more rows, which metrics.jsonl has: ConnectionError: no network"]
    assert fine.calls == [
        ("metrics", 2, {"loss": 0.5}),
        ("metrics", 3, {"loss": pytest.approx(1 / 3)}),
        ("samples", 3, ["prompt", "score", "rewards"], [["a\\nb", 1.5, "null"], ["c", "null", '{"ends": 1}']]),
        ("finish", 3, {"loss": 0.3}),
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3 and log.last_step() == 3
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    assert log.last_step() == 3


def test_a_tracker_that_cannot_be_begun_is_left_with_a_warning(tmp_path: Path, monkeypatch: Any) -> None:
    def fails(run: TrackedRun, warn: Any) -> Any:
        raise OSError("disk full")

    monkeypatch.setitem(trackers.TYPES, "tensorboard", fails)
    warnings = list[str]()
    assert not start(["tensorboard"], TrackedRun(tmp_path, "p", {}), warnings.append).active
    assert warnings == ["tensorboard cannot be begun, and the run goes on without: OSError: disk full"]


def test_a_runs_identity_stays(tmp_path: Path) -> None:
    first = TrackedRun(tmp_path / "ppo", "p", {})
    first.out.mkdir()
    assert first.id == TrackedRun(tmp_path / "ppo", "p", {}).id and first.name == f"ppo-{first.id}"


def test_cells_are_one_line_and_short() -> None:
    assert cell("a\nb") == "a\\nb" and cell(2.5) == 2.5 and len(cell("x" * 9000)) == trackers.CELL


def test_one_that_is_not_installed_is_a_line_before_any_work(monkeypatch: Any, config: rloo.Config) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name))
    with pytest.raises(InputError, match="--track wandb: it is not installed; pip install wandb"):
        require_installed(["wandb"])
    with pytest.raises(InputError, match="pip install wandb"):
        rloo.run(replace(config, track=("wandb",)))
    assert not config.out.exists()


@pytest.mark.parametrize("stage", [pretrain, sft, reward, dpo, rloo])
def test_every_training_stage_takes_trackers(stage: Any) -> None:
    config = cli.parse(stage.Config, ["--track", "tensorboard", "trackio", "--track-project", "mine"], "x", "")
    assert config.track == ("tensorboard", "trackio") and config.track_project == "mine"


@pytest.fixture
def config(assistant: Path, files: Any, tmp_path: Path) -> rloo.Config:
    return rloo.Config(
        model=assistant,
        reward=("ends", "length:2-9=0.5"),
        data=files.prompts,
        out=tmp_path / "run",
        max_steps=2,
        prompts_per_step=2,
        num_generations=2,
        num_mini_batches=1,
        max_new_tokens=8,
        num_traced_prompts=0,
        save_steps=1,
        sample_steps=1,
        final_lr_frac=1.0,
        warmup_steps=1,
        device=DeviceOptions("cpu", "fp32", 1),
    )


def events(out: Path) -> Any:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    loaded = accumulator.EventAccumulator(str(out / "tensorboard"))
    loaded.Reload()
    return loaded


def test_tensorboard_has_what_the_files_have_also_after_going_on(config: rloo.Config, rows_of: Any) -> None:
    pytest.importorskip("tensorboard")
    tracked = replace(config, track=("tensorboard",))
    rloo.run(tracked)
    rloo.run(replace(tracked, max_steps=4))
    rows = [row for row in rows_of(config.out) if "health" not in row]
    loaded = events(config.out)
    for name, tag in (("objective/scores", "objective/scores"), ("rewards/length:2-9/mean", "rewards/length_2-9/mean")):
        scalars = loaded.Scalars(tag)
        assert [event.step for event in scalars] == [1, 2, 3, 4]
        assert [event.value for event in scalars] == pytest.approx([row[name] for row in rows])
    texts = {tag: [text(event) for event in loaded.Tensors(f"{tag}/text_summary")] for tag in ("options", "samples")}
    assert '"max_steps": 4' in texts["options"][-1] and "| prompt |" in texts["samples"][0]
    assert '"objective/kl"' in text(loaded.Tensors("summary/text_summary")[-1])
    manifest = json.loads((config.out / "manifest.json").read_text())
    assert not [name for name in manifest if name.startswith("tensorboard/")]


def text(event: Any) -> str:
    return event.tensor_proto.string_val[0].decode()


def test_the_numbers_do_not_depend_on_trackers(config: rloo.Config, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    plain = rloo.run(config)
    tracked = rloo.run(replace(config, out=tmp_path / "tracked", track=("tensorboard",)))
    assert (plain / "metrics.jsonl").read_text() == (tracked / "metrics.jsonl").read_text()
    assert (plain / "model.safetensors").read_bytes() == (tracked / "model.safetensors").read_bytes()


def offline_rows(out: Path) -> Sequence[dict[str, Any]]:
    """Rows of wandb's offline files: LevelDB's log format behind 7 bytes, each record a message of protobuf."""
    pb = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    rows = list[dict[str, Any]]()
    for file in sorted(out.glob("wandb/offline-run-*/*.wandb")):
        data, position, message = file.read_bytes(), 7, b""
        while position + 7 <= len(data):
            if 2**15 - position % 2**15 < 7:
                position += 2**15 - position % 2**15
                continue
            size, kind = struct.unpack_from("<HB", data, position + 4)
            message += data[position + 7 : position + 7 + size]
            position += 7 + size
            if kind in (1, 4):  # whole, or the last part
                record = pb.Record()
                record.ParseFromString(message)
                items = record.history.item
                rows += [{item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}]
                message = b""
    return rows


def test_wandb_offline_has_each_step_once(config: rloo.Config, monkeypatch: Any) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracked = replace(config, track=("wandb",))
    rloo.run(tracked)
    rloo.run(replace(tracked, max_steps=4))
    rows = [row for row in offline_rows(config.out) if "objective/scores" in row]
    assert [row["_step"] for row in rows] == [1, 2, 3, 4]
    assert any(key.startswith("samples") for key in rows[0])
    identity = json.loads((config.out / "trackers.json").read_text())["id"]
    assert len(list(config.out.glob(f"wandb/offline-run-*-{identity}"))) == 2


def test_trackio_has_each_step_once(config: rloo.Config, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    trackio = pytest.importorskip("trackio")
    tracked = replace(config, track=("trackio",), track_project="tests")
    rloo.run(tracked)
    rloo.run(replace(tracked, max_steps=4))
    (run,) = trackio.Api().runs("tests")
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    logs = storage.get_logs("tests", run.name)
    assert [row["step"] for row in logs if "objective/scores" in row] == [1, 2, 3, 4]
    assert any("samples" in row for row in logs) and any("summary/objective/kl" in row for row in logs)
