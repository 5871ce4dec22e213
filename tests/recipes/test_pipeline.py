"""Calls are written down, run once what they read is there, and side by side as processes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from amenable.cli import from_yaml
from amenable.errors import InputError
from amenable.recipes import pipeline
from amenable.recipes.pipeline import StageRun, run_all, runs_alone, with_one_thread, with_trackers
from amenable.stages import distill_context, dpo, evaluate, reward, sft, tokenizer


def text_file(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("a cat sat on the mat\n" * 50)
    return path


def token_call(folder: Path, name: str, size: int = 270) -> StageRun:
    return StageRun(tokenizer.Config(data=text_file(folder), out=folder / name, vocab_size=size))


def test_options_are_written_so_that_the_command_repeats_them(tmp_path: Path) -> None:
    call = StageRun(dpo.Config(out=tmp_path / "dpo", beta=0.25, data=tmp_path / "x.jsonl"))
    path = call.write_plan()
    assert path == tmp_path / "plan" / "dpo.yaml" and yaml.safe_load(path.read_text())["command"] == "dpo"
    assert from_yaml(dpo.Config, path) == replace(call.config, data=(call.config.data,))


def test_a_call_reads_those_whose_folders_its_options_name(tmp_path: Path) -> None:
    base = StageRun(sft.Config(out=tmp_path / "sft"))
    longer = StageRun(sft.Config(out=tmp_path / "sft-16"))
    trained = StageRun(dpo.Config(model=tmp_path / "sft", data=tmp_path / "x.jsonl", out=tmp_path / "dpo"))
    models = (f"sharpened={tmp_path / 'sft'}@entropy-of-dpo", f"dpo={tmp_path / 'dpo'}")
    judged = StageRun(evaluate.Config(models=models, out=tmp_path / "evaluate"))
    assert trained.reads(base) and not trained.reads(longer) and not base.reads(base)
    assert judged.reads(base) and judged.reads(trained) and not judged.reads(longer)


def test_a_call_reads_the_folders_and_files_of_its_rewards(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three=3", "four")]
    judges = [StageRun(reward.Config(out=folder)) for folder in folders]
    specs = (
        str(folders[0]),
        f"{folders[1]}=0.5",
        f"{folders[2]}:good=2",
        f"{folders[3]}/mine.py:f",
        "http://h/x",
        "ends",
    )
    for number, spec in enumerate(specs):
        call = StageRun(sft.Config(reward=(spec,), out=tmp_path / "sft"))
        assert [call.reads(judge) for judge in judges] == [index == number for index in range(4)]


def test_calls_run_and_leave_their_options(tmp_path: Path) -> None:
    run_all([token_call(tmp_path, "tok")])
    assert (tmp_path / "tok" / "finished.json").exists() and (tmp_path / "plan" / "tok.yaml").exists()


def test_independent_calls_run_as_processes_and_a_failure_is_told(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """A stage of two words is the command with a hyphen."""
    missing = StageRun(distill_context.Config(model=tmp_path / "none", out=tmp_path / "d"))
    assert (missing.stage, missing.command) == ("distill_context", "distill-context")
    with pytest.raises(InputError, match="'distill_context' ended with exit code 2"):
        run_all([missing, token_call(tmp_path, "tok")])
    printed = capfd.readouterr().err
    assert f"{tmp_path.name}/d: amenable: " in printed and "no command" not in printed  # the child's own message
    assert "command: distill-context" in missing.plan.read_text()


def test_what_reads_another_waits_for_it(tmp_path: Path) -> None:
    """Both are in the wrong order; the second reads the first's folder, which is made only when that one runs."""
    first = token_call(tmp_path, "first")
    second = StageRun(
        tokenizer.Config(data=text_file(tmp_path), demonstrations=first.out / "x.jsonl", out=tmp_path / "second"),
    )
    with pytest.raises(InputError):  # the first has run by then; it holds no demonstrations
        run_all([second, first])
    assert (first.out / "finished.json").exists() and not (second.out / "finished.json").exists()


def test_nothing_begins_before_what_it_reads_has_ended(tmp_path: Path) -> None:
    """Two that are independent start side by side; the third, which reads both, only when both are done."""
    calls = [token_call(tmp_path, "one"), token_call(tmp_path, "two", 280)]
    last = tokenizer.Config(
        data=calls[0].out / "config.yaml", demonstrations=calls[1].out / "finished.json", out=tmp_path / "last"
    )
    with pytest.raises(InputError) as error:  # no demonstrations in there: but both files exist by then
        run_all([StageRun(last), *calls])
    assert "no such file" not in str(error.value)
    assert all((call.out / "finished.json").exists() for call in calls)


@pytest.mark.slow
def test_one_at_a_time_is_a_process_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    class Recorded(pipeline.StageProcess):
        def __init__(self, run: StageRun):
            assert all(process.poll() is not None for process in processes), "another is running"
            begun.append(run.out.name)
            super().__init__(run)
            processes.append(self.process)

    processes: list[Any] = []
    monkeypatch.setattr(pipeline, "StageProcess", Recorded)
    run_all([token_call(tmp_path, "one"), token_call(tmp_path, "two", 280)], parallel=1)
    assert begun == ["one", "two"] and (tmp_path / "two" / "finished.json").exists()


def test_who_is_alone_is_read_off_the_plan() -> None:
    """The number of threads decides the last bits: it must not depend on who happens to end first."""
    a, b, c, d, e = (Path(name) for name in "abcde")
    chain = {a: set(), b: {a}, c: {b}, d: {b}, e: {c, d}}
    assert runs_alone(chain) == {a, b, e}
    assert runs_alone({a: set(), b: set()}) == set()
    assert runs_alone({a: set()}) == {a}


def test_finished_calls_look_whether_they_are_the_same_without_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    calls = [token_call(tmp_path, "one"), token_call(tmp_path, "two", 280)]
    for call in calls:
        run_all([call])
    built = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    capfd.readouterr()

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a process")

    monkeypatch.setattr(pipeline.subprocess, "Popen", start)
    run_all(calls)
    report = capfd.readouterr().err
    assert all(f"already done: {call.out}" in report for call in calls)
    assert built == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match="vocab_size was 280 and is 290"):
        run_all([calls[0], token_call(tmp_path, "two", 290)])
    assert "280" in calls[1].plan.read_text("utf-8")
    (tmp_path / "text.txt").write_text("a dog\n" * 50)
    with pytest.raises(InputError, match="was begun with other data"):
        run_all(calls)


@pytest.mark.slow
def test_a_call_that_has_not_finished_is_repeated_beside_one_that_has(tmp_path: Path) -> None:
    calls = [token_call(tmp_path, "one"), token_call(tmp_path, "two", 280)]
    run_all(calls)
    before = (calls[0].out / "finished.json").stat().st_mtime_ns
    (calls[1].out / "finished.json").unlink()
    (calls[1].out / "tokenizer.json").write_text("torn")
    run_all(calls)
    assert calls[1].is_finished and (calls[1].out / "tokenizer.json").read_text("utf-8") != "torn"
    assert (calls[0].out / "finished.json").stat().st_mtime_ns == before


def test_a_stage_that_outlived_its_recipe_is_waited_for(tmp_path: Path) -> None:
    call = token_call(tmp_path, "tok")
    call.out.mkdir()
    code = (
        "import sys, pathlib, time; from amenable.train.lock import Lock; Lock(pathlib.Path(sys.argv[1])).acquire(); "
    )
    code += "print(1, flush=True); time.sleep(1.5)"
    with subprocess.Popen([sys.executable, "-c", code, str(call.out)], stdout=subprocess.PIPE) as orphan:
        assert orphan.stdout is not None and orphan.stdout.readline()
        run_all([call])
        assert orphan.poll() == 0
    assert call.is_finished


def test_side_by_side_means_one_thread_each(tmp_path: Path) -> None:
    assert with_one_thread(StageRun(dpo.Config())).config.device.threads == 1
    call = token_call(tmp_path, "tok")
    assert with_one_thread(call) == call


def test_trackers_go_to_the_stages_that_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [token_call(tmp_path, "tokens"), StageRun(sft.Config(out=tmp_path / "sft"))]
    assert with_trackers(runs, ()) == runs
    monkeypatch.setattr(pipeline, "require_installed", lambda names: None)
    tokens, tuned = with_trackers(runs, ("tensorboard", "wandb"))
    assert tokens == runs[0] and tuned.config.track == ("tensorboard", "wandb")
