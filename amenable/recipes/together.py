"""Run stages one after another, or independent ones side by side, each as a user would.

Every stage's options are written to a file first, so that `amenable <stage> --config <file>` repeats it by hand. Stages
side by side are processes of one thread each: at small sizes two of them use two cores better than one stage with two.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from amenable.errors import InputError, Interrupted
from amenable.train.run import plain_values


@dataclass(frozen=True)
class Call:
    """One stage to run: its command and its options."""

    stage: str
    config: Any

    def write(self, folder: Path) -> Path:
        """The options as a file that `--config` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{Path(self.config.out).name}.yaml"
        values = {"command": self.stage, **plain_values(asdict(self.config))}
        path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), "utf-8")
        return path


def run_all(groups: list[list[Call]], folder: Path) -> None:
    """Run groups in order; the calls of a group side by side. `folder` keeps the options of each."""
    for group in groups:
        for call in group:
            call.write(folder)
        if len(group) == 1:
            importlib.import_module(f"amenable.stages.{group[0].stage}").run(group[0].config)
        else:
            side_by_side([with_one_thread(call) for call in group], folder)


def with_one_thread(call: Call) -> Call:
    return Call(call.stage, replace(call.config, machine=replace(call.config.machine, threads=1)))


def side_by_side(calls: list[Call], folder: Path) -> None:
    """One process a call. All are waited for; the first failure is told after the others have ended."""
    todo = [call for call in calls if not (Path(call.config.out) / "finished.json").exists()]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "amenable", call.stage, "--config", str(call.write(folder))],
            stderr=subprocess.PIPE,
            text=True,
        )
        for call in todo
    ]
    threads = [threading.Thread(target=pass_on, args=(process,), daemon=True) for process in processes]
    for thread in threads:
        thread.start()
    try:
        codes = [process.wait() for process in processes]
    except KeyboardInterrupt:  # the terminal has told the children too: they save, then end
        codes = [process.wait() for process in processes]
        raise Interrupted(folder.parent, 0) from None
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
    for thread in threads:
        thread.join(timeout=5)
    for call, code in zip(todo, codes):
        if code == 130:
            raise Interrupted(Path(call.config.out), 0)
        if code:
            raise InputError(f"'{call.stage}' ended with exit code {code}", call.config.out, "its message is above")


def pass_on(process: subprocess.Popen) -> None:
    """A child's lines, as they come."""
    assert process.stderr is not None
    for line in process.stderr:
        print(line, end="", file=sys.stderr, flush=True)
