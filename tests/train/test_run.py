"""A run directory: claimed once, refused to others, resumed exactly."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from amenable import files
from amenable.errors import InputError, Interrupted
from amenable.train import checkpoint
from amenable.train.best import BestWeights
from amenable.train.failed_rewards import PendingStep
from amenable.train.optimizer import Optimizer, OptimizerConfig
from amenable.train.run import Run, bytes_of
from amenable.train.run_folder import is_same
from amenable.train.runtime import DeviceOptions


@dataclass(frozen=True)
class Config:
    data: Path
    rate: float = 0.5
    save_steps: int = 2
    device: DeviceOptions = field(default_factory=DeviceOptions)
    keep_checkpoints: int = 2


class Counter:
    """A running sum: the smallest thing whose state matters."""

    def __init__(self) -> None:
        self.total = 0

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


def a_run(tmp_path: Path, **options: Any) -> Run:
    data = tmp_path / "data.txt"
    if not data.exists():
        data.write_text("hello")
    return Run(tmp_path / "out", "stage", Config(data, **options), {"data": data})


def work(run: Run, total: int = 6, stop_at: int = 0, by: int = signal.SIGINT) -> Counter:
    counter = Counter()
    for step in run.steps(total, {"counter": counter}, run.config.save_steps):
        counter.total += step
        if step == stop_at:
            os.kill(os.getpid(), by)
        run.record(step, loss=float(counter.total))
    return counter


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_whole_run_and_its_end(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert not run.skip_finished()
    run.begin()
    assert work(run).total == 21
    assert [row["loss"] for row in rows(run.out)] == [1, 3, 6, 10, 15, 21]
    run.finish(figure=3)
    assert json.loads((run.out / "finished.json").read_text())["figure"] == 3
    assert checkpoint.steps(run.out) == []
    assert a_run(tmp_path).skip_finished()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_and_the_same_command_goes_on_exactly(tmp_path: Path, by: int) -> None:
    run = a_run(tmp_path)
    run.begin()
    with pytest.raises(Interrupted, match="saved at step 3"):
        work(run, stop_at=3, by=by)
    again = a_run(tmp_path)
    assert not again.skip_finished()
    again.begin()
    assert work(again).total == 21
    assert [row["step"] for row in rows(run.out)] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows(run.out)] == [1, 3, 6, 10, 15, 21]


def test_rows_after_the_checkpoint_are_made_again_not_doubled(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.begin()
    with pytest.raises(RuntimeError):
        counter = Counter()
        for step in run.steps(6, {"counter": counter}, save_steps=2):
            counter.total += step
            run.record(step, loss=float(counter.total))
            if step == 5:
                raise RuntimeError("the power went")
    with (run.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # a line torn by the crash
    assert work(a_run(tmp_path)).total == 21
    assert [row["loss"] for row in rows(run.out)] == [1, 3, 6, 10, 15, 21]


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not a run"):
        a_run(tmp_path).skip_finished()
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_other_options_are_refused_with_the_difference(tmp_path: Path) -> None:
    a_run(tmp_path).begin()
    with pytest.raises(InputError, match=r"rate was 0\.5 and is 0\.7"):
        a_run(tmp_path, rate=0.7).skip_finished()
    assert not a_run(tmp_path, save_steps=9, device=DeviceOptions(threads=1)).skip_finished()  # how, not what


def test_another_stage_is_refused(tmp_path: Path) -> None:
    a_run(tmp_path).begin()
    run = a_run(tmp_path)
    run.stage = "other"
    with pytest.raises(InputError, match="holds a run of 'stage'"):
        run.skip_finished()


def test_changed_input_is_refused(tmp_path: Path) -> None:
    a_run(tmp_path).begin()
    (tmp_path / "data.txt").write_text("changed")
    with pytest.raises(InputError, match="begun with other data"):
        a_run(tmp_path).skip_finished()


def test_a_missing_input_creates_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "out", "stage", Config(tmp_path / "none"), {"data": tmp_path / "none"})
    with pytest.raises(InputError, match="no such file"):
        run.begin()
    assert not (tmp_path / "out").exists()


def test_a_stop_in_the_last_step_keeps_its_figures(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.begin()
    with pytest.raises(Interrupted, match="saved at step 6"):
        work(run, stop_at=6)
    again = a_run(tmp_path)
    assert work(again).total == 21
    assert again.metrics == {"loss": 21.0}


def test_a_place_where_no_folder_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run = Run(tmp_path / "file" / "out", "stage", Config(tmp_path / "file"), {})
    with pytest.raises(InputError, match="cannot be created"):
        run.begin()


@pytest.mark.parametrize(("options", "lineage"), [("a: [", "{}"), ("- 1", '{"inputs": {}}'), ("command: stage", "oh")])
def test_a_folder_with_files_of_those_names_is_not_a_run(tmp_path: Path, options: str, lineage: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text(options)
    (tmp_path / "out" / "lineage.json").write_text(lineage)
    with pytest.raises(InputError, match="not a run"):
        a_run(tmp_path).skip_finished()


def test_only_so_many_checkpoints_are_kept(tmp_path: Path) -> None:
    run = a_run(tmp_path, keep_checkpoints=1)
    run.begin()
    with pytest.raises(Interrupted):
        work(run, stop_at=5)
    assert checkpoint.steps(run.out) == [5]
    assert not a_run(tmp_path, keep_checkpoints=3).skip_finished()  # how, not what
    assert work(a_run(tmp_path)).total == 21


@pytest.mark.parametrize("there", [[], [".lock"], ["lineage.json"], [".lock", "lineage.json", ".config.yaml.writing"]])
def test_a_run_that_was_stopped_while_it_began_begins_again(tmp_path: Path, there: list[str]) -> None:
    (tmp_path / "out").mkdir()
    for name in there:
        (tmp_path / "out" / name).write_text("{")
    run = a_run(tmp_path)
    assert not run.skip_finished()
    run.begin()
    assert work(run).total == 21 and not list(run.out.glob(".*.writing"))
    run.finish()
    assert a_run(tmp_path).skip_finished()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    a_run(tmp_path).begin()
    (tmp_path / "out" / ".lock").unlink()
    owner = "import sys,pathlib,time; from amenable.train.lock import Lock; Lock(pathlib.Path(sys.argv[1])).acquire(); "
    code = owner + "print(1, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        for ask in (Run.skip_finished, Run.begin):
            with pytest.raises(InputError, match=f"another process is at work here .process {other.pid} on"):
                ask(a_run(tmp_path))
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
        (tmp_path / "out" / "finished.json").write_text("{}")
        assert a_run(tmp_path).skip_finished()  # a finished run is everybody's
        other.kill()


def test_a_run_that_another_has_just_finished_is_left_alone(tmp_path: Path) -> None:
    late = a_run(tmp_path)
    assert not late.skip_finished()
    first = a_run(tmp_path)
    first.begin()
    work(first)
    first.finish()
    with pytest.raises(InputError, match="another process has just finished this run"):
        late.begin()


def test_what_a_run_is_still_making_is_no_input(tmp_path: Path) -> None:
    first = a_run(tmp_path)
    first.begin()
    work(first)
    second = Run(tmp_path / "second", "stage", Config(first.out), {"data": first.out / "metrics.jsonl"})
    with pytest.raises(InputError, match="out: the run that makes this data has not finished"):
        second.begin()
    assert not second.out.exists()
    first.finish()
    second.begin()


def test_checkpoints_left_behind_a_finished_run_are_dropped(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.begin()
    work(run)
    run.finish()
    checkpoint.save(run.out, 4, {})
    assert a_run(tmp_path).skip_finished() and not checkpoint.steps(run.out)


def test_the_manifest_names_what_was_made(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.begin()
    work(run)
    run.finish()
    report = json.loads((run.out / "manifest.json").read_text())
    assert set(report) == {"config.yaml", "lineage.json", "metrics.jsonl"}
    assert report["metrics.jsonl"]["sha256"] == files.sha256(run.out / "metrics.jsonl")


def test_the_lock_is_no_part_of_what_a_folder_holds(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    before = files.hash_of(tmp_path)
    (tmp_path / ".lock").write_text("process 1")
    assert files.hash_of(tmp_path) == before


def test_an_option_that_came_later_had_its_default(tmp_path: Path) -> None:
    """A run that was begun before an option existed goes on with the option's default, and with no other value."""
    run = a_run(tmp_path)
    run.begin()
    run.lock.release()
    options = run.out / "config.yaml"
    options.write_text("".join(line + "\n" for line in options.read_text().splitlines() if "rate" not in line))
    assert not a_run(tmp_path).skip_finished()
    with pytest.raises(InputError, match=r"rate was 0\.5 and is 0\.7"):
        a_run(tmp_path, rate=0.7).skip_finished()
    options.write_text(options.read_text() + "speed: 0.7\n")
    with pytest.raises(InputError, match=r"rate was None and is 0\.5"):  # it may be the former name of another option
        a_run(tmp_path).skip_finished()


def test_a_full_disk_leaves_the_last_checkpoint_and_one_line(tmp_path: Path) -> None:
    """A process whose files may not grow: the system refuses in the middle of the weights."""
    run = a_run(tmp_path)
    run.begin()
    held = {"model": torch.nn.Linear(100, 100)}
    run.save(2, held)
    before = {path: path.read_bytes() for path in run.out.rglob("*") if path.is_file()}
    limits, old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            InputError, match=r"checkpoint-4: cannot be written .*earlier checkpoints are kept"
        ) as report:
            run.save(4, held)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert "\n" not in str(report.value)
    assert {path: path.read_bytes() for path in run.out.rglob("*") if path.is_file()} == before
    run.save(4, held)
    assert sorted(checkpoint.steps(run.out)) == [2, 4]


def test_a_folder_that_can_only_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("amenable.train.lock.os.open", refuse)
    with pytest.raises(InputError, match=r"out: cannot be written \(Read-only file system\)"):
        a_run(tmp_path).begin()


def test_room_for_the_checkpoints_is_asked_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = torch.nn.Linear(512, 512)
    state = {
        "model": module,
        "optimizer": Optimizer([module], OptimizerConfig(learning_rate=3e-4)),
        "best": BestWeights(module, "eval/loss"),
    }
    size = 4 * (512 * 512 + 512) * 4
    assert bytes_of(state) == size
    run = a_run(tmp_path)
    run.begin()
    free = type("Usage", (), {"free": 3 * size - 1})
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(InputError, match="12 MiB are needed for 3 checkpoints and 12 MiB are free"):
        next(run.steps(6, state, save_steps=2))
    assert not checkpoint.steps(run.out)
    run.begin()
    next(run.steps(6, state))  # where none is made but at a stop, there is room


def test_a_second_stop_leaves_at_once(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.begin()
    steps = run.steps(6, {"counter": Counter()})
    next(steps)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    steps.close()
    assert not checkpoint.steps(run.out) and not run.lock.held
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("torn", [1, 2])
def test_torn_checkpoints_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], torn: int) -> None:
    run = a_run(tmp_path)
    run.begin()
    with pytest.raises(Interrupted):
        work(run, stop_at=5)
    for step in (5, 4)[:torn]:
        (run.out / f"checkpoint-{step}" / "state.json").write_text("{")
    again = a_run(tmp_path)
    assert work(again).total == 21
    report = capsys.readouterr().err
    assert "checkpoint-5 is torn" in report and ("resumes from step 4" in report) == (torn == 1)
    assert [row["loss"] for row in rows(run.out)] == [1, 3, 6, 10, 15, 21]


def test_an_option_of_one_item_is_the_same_with_and_without_its_list() -> None:
    assert is_same("runs/reward", ["runs/reward"]) and is_same(["runs/reward"], "runs/reward") and is_same(3, 3)
    assert not is_same("runs/reward", ["runs/reward", "ends"]) and not is_same(None, []) and not is_same(3, 4)


def test_a_checkpoint_of_another_version_is_named_and_a_pending_step_may_lack(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.begin()
    with pytest.raises(Interrupted):
        work(run, stop_at=2)
    pending, counter = PendingStep(), Counter()
    holders = {"counter": counter, "pending": pending}
    assert a_run(tmp_path).restore(holders, 2, []) == 2 and counter.total == 3
    with pytest.raises(InputError, match="its checkpoint lacks 'other': another version wrote it; give another --out"):
        a_run(tmp_path).restore({"counter": counter, "other": Counter()}, 2, [])
