"""A run directory: claimed once, refused to others, resumed exactly."""

import json
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from amenable.errors import InputError, Interrupted
from amenable.train import checkpoint
from amenable.train.run import Run, hash_of
from amenable.train.runtime import Machine


@dataclass(frozen=True)
class Config:
    data: Path
    rate: float = 0.5
    save_steps: int = 2
    machine: Machine = field(default_factory=Machine)


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
    assert not run.done()
    run.claim()
    assert work(run).total == 21
    assert [row["loss"] for row in rows(run.out)] == [1, 3, 6, 10, 15, 21]
    run.finish(figure=3)
    assert json.loads((run.out / "finished.json").read_text())["figure"] == 3
    assert checkpoint.steps(run.out) == []
    assert a_run(tmp_path).done()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_and_the_same_command_goes_on_exactly(tmp_path: Path, by: int) -> None:
    run = a_run(tmp_path)
    run.claim()
    with pytest.raises(Interrupted, match="saved at step 3"):
        work(run, stop_at=3, by=by)
    again = a_run(tmp_path)
    assert not again.done()
    again.claim()
    assert work(again).total == 21
    assert [row["step"] for row in rows(run.out)] == [1, 2, 3, 4, 5, 6]
    assert [row["loss"] for row in rows(run.out)] == [1, 3, 6, 10, 15, 21]


def test_rows_after_the_checkpoint_are_made_again_not_doubled(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.claim()
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
        a_run(tmp_path).done()
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_other_options_are_refused_with_the_difference(tmp_path: Path) -> None:
    a_run(tmp_path).claim()
    with pytest.raises(InputError, match=r"rate was 0\.5 and is 0\.7"):
        a_run(tmp_path, rate=0.7).done()
    assert not a_run(tmp_path, save_steps=9, machine=Machine(threads=1)).done()  # how, not what


def test_another_stage_is_refused(tmp_path: Path) -> None:
    a_run(tmp_path).claim()
    run = a_run(tmp_path)
    run.stage = "other"
    with pytest.raises(InputError, match="holds a run of 'stage'"):
        run.done()


def test_changed_input_is_refused(tmp_path: Path) -> None:
    a_run(tmp_path).claim()
    (tmp_path / "data.txt").write_text("changed")
    with pytest.raises(InputError, match="begun with other data"):
        a_run(tmp_path).done()


def test_a_missing_input_creates_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "out", "stage", Config(tmp_path / "none"), {"data": tmp_path / "none"})
    with pytest.raises(InputError, match="no such file"):
        run.claim()
    assert not (tmp_path / "out").exists()


def test_hash_of_a_folder_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_text("1")
    first = hash_of(tmp_path / "a")
    (tmp_path / "a" / "x").rename(tmp_path / "a" / "y")
    assert hash_of(tmp_path / "a") != first


def test_a_stop_in_the_last_step_keeps_its_figures(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.claim()
    with pytest.raises(Interrupted, match="saved at step 6"):
        work(run, stop_at=6)
    again = a_run(tmp_path)
    assert work(again).total == 21
    assert again.metrics == {"loss": 21.0}


def test_a_place_where_no_folder_can_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    run = Run(tmp_path / "file" / "out", "stage", Config(tmp_path / "file"), {})
    with pytest.raises(InputError, match="cannot be made"):
        run.claim()


@pytest.mark.parametrize(("options", "lineage"), [("a: [", "{}"), ("- 1", '{"inputs": {}}'), ("command: stage", "oh")])
def test_a_folder_with_files_of_those_names_is_not_a_run(tmp_path: Path, options: str, lineage: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.yaml").write_text(options)
    (tmp_path / "out" / "lineage.json").write_text(lineage)
    with pytest.raises(InputError, match="not a run"):
        a_run(tmp_path).done()
