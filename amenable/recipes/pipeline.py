"""Run stages in the order of their inputs, independent ones side by side, each as a user would run it.

Every stage's options are written to a file first, so that `amenable <stage> --config <file>` repeats it by hand. A
stage needs those in whose folders its options lie. Stages side by side are processes of one thread each: at small
sizes two of them use two cores better than one stage with two. A stage that runs alone has all threads. That is
decided by the plan and not by the clock: the number of threads decides the last bits of a result.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from amenable.claims.stage_folders import path_in
from amenable.errors import InputError, Interrupted
from amenable.files import write_text
from amenable.train.graceful_stop import creation_flags, request_stop
from amenable.train.lock import is_held
from amenable.train.run_options import plain_values
from amenable.train.trackers import TrackerName, require_installed

MAX_PARALLEL = 2
"""stages at once"""


@dataclass(frozen=True)
class StageRun:
    """One stage to run, by its Config."""

    config: Any

    @property
    def stage(self) -> str:
        """The stage's name: the module of its Config."""
        return type(self.config).__module__.rpartition(".")[2]

    @property
    def command(self) -> str:
        """The stage as a command."""
        return self.stage.replace("_", "-")

    @property
    def out(self) -> Path:
        """Its run directory."""
        return Path(self.config.out)

    @property
    def plan(self) -> Path:
        """The file of its options: in plan/ beside its run directory."""
        return self.out.parent / "plan" / f"{self.out.name}.yaml"

    @property
    def is_finished(self) -> bool:
        """True if it has finished, with these options or with others: the stage itself compares them."""
        return (self.out / "finished.json").exists()

    def run(self) -> None:
        """Run it in this process. InputError where it has finished with other options or inputs."""
        importlib.import_module(f"amenable.stages.{self.stage}").run(self.config)

    def write_plan(self) -> Path:
        """Write the options as a file that `--config` reads."""
        self.plan.parent.mkdir(parents=True, exist_ok=True)
        values = {"command": self.command, **plain_values(asdict(self.config))}
        write_text(self.plan, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        return self.plan

    def reads(self, other: StageRun) -> bool:
        """Return True if one of its inputs lies in the other's run directory."""
        return other is not self and any(path.is_relative_to(other.out) for path in paths_of(self.config))


def stage_runs(root: Path, seed: int, configs: Mapping[str, Any]) -> list[StageRun]:
    """Return runs of Configs by the name of their folder in `root`, with the seed where they have one."""
    seeds = {name: {"seed": seed} if hasattr(config, "seed") else {} for name, config in configs.items()}
    return [StageRun(replace(config, out=root / name, **seeds[name])) for name, config in configs.items()]


def with_trackers(runs: Sequence[StageRun], names: tuple[TrackerName, ...]) -> list[StageRun]:
    """Return the runs, with these trackers where a stage trains. InputError for one that is not installed."""
    require_installed(names)
    tracked = (replace(run.config, track=names) if names and hasattr(run.config, "track") else None for run in runs)
    return [StageRun(config) if config is not None else run for run, config in zip(runs, tracked)]


def paths_of(value: Any) -> Iterator[Path]:
    """Yield every path among options, those of `name=folder@modifier` and of rewards (SPEC=WEIGHT) included."""
    if isinstance(value, Path):
        yield value
    elif isinstance(value, str) and ("=" in value or "/" in value):
        yield path_in(value)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from paths_of(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for item in vars(value).values():
            yield from paths_of(item)


def run_all(runs: Sequence[StageRun], parallel: int = MAX_PARALLEL) -> None:
    """Run every stage once its inputs exist: up to `parallel` side by side, in the order given; one at a time has all
    threads, and memory of its own.

    A stage that nothing can run beside runs in this process, with all threads. So does one that has finished, which
    only compares its options and its inputs' hashes. After a failure nothing new begins, the others are asked to save
    and stop, and the failure is raised. Called again, it goes on where it stopped; a stage that outlived the process
    that began it is waited for.
    """
    for run in runs:
        if not (run.is_finished and run.plan.exists()):
            run.write_plan()
    needs = {run.out: {other.out for other in runs if run.reads(other)} for run in runs}
    alone = runs_alone(needs) if parallel > 1 else set()
    waiting, running = list(runs), list[StageProcess]()
    try:
        while waiting or running:
            unfinished = {process.run.out for process in running} | {run.out for run in waiting}
            ready = [run for run in waiting if not needs[run.out] & unfinished and not is_held(run.out)]
            if not running and not ready:
                threading.Event().wait(1.0)
            finished = next((run for run in ready if run.is_finished), None)
            if finished is not None or (ready and not running and ready[0].out in alone):
                run = finished or ready[0]
                run.run()
                waiting.remove(run)
                continue
            for run in ready[: parallel - len(running)]:
                running.append(StageProcess(with_one_thread(run) if parallel > 1 else run))
                waiting.remove(run)
            for process in wait_for_any(running):
                running.remove(process)
                if process.process.returncode == 2 and is_held(process.run.out):
                    waiting.insert(0, process.run)  # a process that outlived its recipe holds the folder
                else:
                    process.require_success()
    except KeyboardInterrupt:  # the terminal has interrupted the processes too: they save, then end
        for process in running:
            process.process.wait()
        raise Interrupted(runs[0].out.parent, 0) from None
    finally:
        for process in running:
            process.end()


def runs_alone(needs: dict[Path, set[Path]]) -> set[Path]:
    """Return the stages that nothing can run beside: each of the others needs it, or is needed for it."""
    before: dict[Path, set[Path]] = {out: set() for out in needs}
    for _ in needs:
        before = {out: direct.union(*(before[need] for need in direct)) for out, direct in needs.items()}
    after = {out: {other for other in needs if out in before[other]} for out in needs}
    return {out for out in needs if len(before[out] | after[out]) == len(needs) - 1}


def with_one_thread(run: StageRun) -> StageRun:
    """Return the run on one thread; a stage without that option has no use for threads."""
    if not hasattr(run.config, "device"):
        return run
    return StageRun(replace(run.config, device=replace(run.config.device, threads=1)))


class StageProcess:
    """A stage as a process of its own, its lines passed on as they come."""

    def __init__(self, run: StageRun):
        self.run = run
        arguments = [sys.executable, "-m", "amenable", run.command, "--config", str(run.write_plan())]
        environment = {**os.environ, "RAYON_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            arguments,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=environment,
            creationflags=creation_flags(),
        )
        self.listener = threading.Thread(target=self.forward_lines, daemon=True)
        self.listener.start()

    def forward_lines(self) -> None:
        """Print the process's lines, each with the demo's and the stage's folder."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            print(f"{self.run.out.parent.name}/{self.run.out.name}: {line}", end="", file=sys.stderr, flush=True)

    def require_success(self) -> None:
        """Raise the error that its exit code stands for, if any."""
        self.listener.join(timeout=5)
        code = self.process.returncode
        if code == 130:
            raise Interrupted(self.run.out, 0)
        if code:
            raise InputError(f"'{self.run.stage}' ended with exit code {code}", self.run.out, "its message is above")

    def end(self) -> None:
        """Ask the process to save and stop, and wait until it has."""
        if self.process.poll() is None:
            request_stop(self.process)
        self.process.wait()


def wait_for_any(processes: Sequence[StageProcess], seconds: float = 0.1) -> list[StageProcess]:
    """Wait until any process has ended and return those that have."""
    while True:
        ended = [process for process in processes if process.process.poll() is not None]
        if ended or not processes:
            return ended
        threading.Event().wait(seconds)
