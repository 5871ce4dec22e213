"""Run stages in the order their inputs ask for, independent ones side by side, each as a user would run it.

Every stage's options are written to a file first, so that `amenable <stage> --config <file>` repeats it by hand. What a
stage needs is read off its options: whatever lies in another stage's folder. Stages side by side are processes of one
thread each: at small sizes two of them use two cores better than one stage with two. Whether a stage is alone, with all
threads, is read off the plan and not off the clock: the number of threads decides the last bits of what it computes.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from amenable.errors import InputError, Interrupted
from amenable.files import write_text
from amenable.rewards.spec import path_of, split_weight
from amenable.train.lock import is_held
from amenable.train.run import plain_values

SLOTS = 2
"""stages at once"""


@dataclass(frozen=True)
class Call:
    """One stage to run: its command and its options."""

    stage: str
    config: Any

    @property
    def out(self) -> Path:
        """Its run directory."""
        return Path(self.config.out)

    @property
    def plan(self) -> Path:
        """The file that keeps its options: in plan/ beside its run directory."""
        return self.out.parent / "plan" / f"{self.out.name}.yaml"

    def done(self) -> bool:
        """Whether it has finished, with these options or with others: the stage itself looks closer."""
        return (self.out / "finished.json").exists()

    def run(self) -> None:
        """Run it in this process. One that has finished raises InputError where it is not the same."""
        importlib.import_module(f"amenable.stages.{self.stage}").run(self.config)

    def write(self) -> Path:
        """The options as a file that `--config` reads."""
        self.plan.parent.mkdir(parents=True, exist_ok=True)
        values = {"command": self.stage, **plain_values(asdict(self.config))}
        write_text(self.plan, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
        return self.plan

    def reads(self, other: Call) -> bool:
        """Whether one of its inputs lies in the other's run directory."""
        return other is not self and any(path.is_relative_to(other.out) for path in paths_of(self.config))


def paths_of(value: Any) -> Iterator[Path]:
    """Every path among the options, those of `name=folder@how` and of rewards (SPEC=WEIGHT) included."""
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


def path_in(text: str) -> Path:
    """Return the path of `name=folder@how`, or of a reward."""
    name, equals, folder = text.partition("=")
    if equals and "/" not in name:
        return Path(folder.split("@", 1)[0])
    spec, _ = split_weight(text)
    return path_of(spec) or Path(spec)


def run_all(calls: Sequence[Call]) -> None:
    """Run every call once what it reads is there: as many as there are slots side by side, in the order given.

    A call that nothing can run beside runs here, with all threads. So does one that has finished, which only looks
    whether its options and the hashes of its inputs are the same: that is not worth a process. After a failure nothing
    new begins, the others are asked to save and stop, and the failure is told. Called again, it goes on where it
    stopped; a stage that outlived the process that began it is waited for.
    """
    for call in calls:
        if not (call.done() and call.plan.exists()):
            call.write()
    needs = {call.out: {other.out for other in calls if call.reads(other)} for call in calls}
    alone = alone_in(needs)
    waiting, running = list(calls), list[Child]()
    try:
        while waiting or running:
            unfinished = {child.call.out for child in running} | {call.out for call in waiting}
            ready = [call for call in waiting if not needs[call.out] & unfinished]
            ready = [call for call in ready if not is_held(call.out)]
            if not running and not ready:
                threading.Event().wait(1.0)
            done = next((call for call in ready if call.done()), None)
            if done is not None or (ready and not running and ready[0].out in alone):
                here = done or ready[0]
                here.run()
                waiting.remove(here)
                continue
            for call in ready[: SLOTS - len(running)]:
                running.append(Child(with_one_thread(call)))
                waiting.remove(call)
            for child in wait_for_any(running):
                running.remove(child)
                if child.process.returncode == 2 and is_held(child.call.out):
                    waiting.insert(0, child.call)  # one that outlived its recipe was there first
                else:
                    child.require_success()
    except KeyboardInterrupt:  # the terminal has told the children too: they save, then end
        for child in running:
            child.process.wait()
        raise Interrupted(calls[0].out.parent, 0) from None
    finally:
        for child in running:
            child.end()


def alone_in(needs: dict[Path, set[Path]]) -> set[Path]:
    """The calls that nothing can run beside: each of the others needs it, or is needed for it."""
    before: dict[Path, set[Path]] = {out: set() for out in needs}
    for _ in needs:
        before = {out: first.union(*(before[one] for one in first)) for out, first in needs.items()}
    after = {out: {other for other in needs if out in before[other]} for out in needs}
    return {out for out in needs if len(before[out] | after[out]) == len(needs) - 1}


def with_one_thread(call: Call) -> Call:
    """The same call on one thread; a stage that has no such option has no use for threads."""
    if not hasattr(call.config, "device"):
        return call
    return Call(call.stage, replace(call.config, device=replace(call.config.device, threads=1)))


class Child:
    """A call as a process of its own, its lines passed on as they come."""

    def __init__(self, call: Call):
        self.call = call
        arguments = [sys.executable, "-m", "amenable", call.stage, "--config", str(call.write())]
        environment = {**os.environ, "RAYON_NUM_THREADS": "1"}
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment)
        self.listener = threading.Thread(target=self.pass_on, daemon=True)
        self.listener.start()

    def pass_on(self) -> None:
        """Its lines, with the name of its folder where that says more than the stage's."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            print(f"{self.call.out.parent.name}/{self.call.out.name}: {line}", end="", file=sys.stderr, flush=True)

    def require_success(self) -> None:
        """Raise what its exit code says."""
        self.listener.join(timeout=5)
        code = self.process.returncode
        if code == 130:
            raise Interrupted(self.call.out, 0)
        if code:
            raise InputError(f"'{self.call.stage}' ended with exit code {code}", self.call.out, "its message is above")

    def end(self) -> None:
        """Ask it to save and stop, and wait until it has."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()


def wait_for_any(children: Sequence[Child], seconds: float = 0.1) -> list[Child]:
    """Those that have ended, once any has."""
    while True:
        ended = [child for child in children if child.process.poll() is not None]
        if ended or not children:
            return ended
        threading.Event().wait(seconds)
