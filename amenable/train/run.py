"""A run directory: what was asked, what went in, how it went, and how to go on after a stop.

config.yaml      every option, so that `--config` repeats the run
lineage.json     hash of every input, and the version of this package
metrics.jsonl    a row a step; samples.jsonl: what the model said
checkpoint-<n>/  everything needed to go on exactly
finished.json    written last: seconds and closing figures
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from amenable import __version__
from amenable.errors import InputError, Interrupted
from amenable.train import care, checkpoint
from amenable.train.log import Log

FREE = ("machine", "save_steps", "care", "inspect_batch")
"""options that say where and how a run computes, not what: they may change when it goes on"""


class Run:
    """One stage's run directory, opened anew, or again after a stop."""

    def __init__(self, out: Path, stage: str, config: Any, inputs: dict[str, Path | None] | None = None):
        self.out, self.stage, self.config = Path(out), stage, config
        self.inputs = {name: Path(path) for name, path in (inputs or {}).items() if path is not None}
        self.log = Log(self.out, stage)
        self.before = 0.0
        self.begun = time.monotonic()
        self.asked_to_stop = False
        self.metrics: dict[str, Any] = {}

    def done(self) -> bool:
        """Whether this very run is finished already. Refuses a directory that holds anything else; changes nothing."""
        if self.out.is_file():
            raise InputError("is a file", self.out, "give --out a folder")
        if not self.out.exists() or not any(self.out.iterdir()):
            return False
        if not (self.out / "config.yaml").exists():
            raise InputError("holds something that is not a run", self.out, "give --out another folder")
        self.check_same()
        finished = (self.out / "finished.json").exists()
        if finished:
            self.log.say(f"already done: {self.out}")
        return finished

    def claim(self) -> None:
        """Make the directory and write down what is asked and what goes in. Call it once all input has proved good."""
        if not (self.out / "config.yaml").exists():
            lineage, options = json.dumps(self.lineage(), indent=1), self.yaml()
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot be made: {error.strerror}", self.out, "give --out another folder") from None
            write_text(self.out / "lineage.json", lineage)
            write_text(self.out / "config.yaml", options)

    def check_same(self) -> None:
        """Refuse a directory of another stage, other options, or inputs that have changed since."""
        was, old = read_begun(self.out)
        now = yaml.safe_load(self.yaml())
        if was.get("command") != now["command"]:
            raise InputError(f"holds a run of '{was.get('command')}'", self.out, "give --out another folder")
        differing = [key for key in now if key not in FREE and was.get(key) != now[key]]
        if differing:
            said = ", ".join(f"{key} was {was.get(key)!r} and is {now[key]!r}" for key in differing)
            raise InputError(f"was begun with other options: {said}", self.out, "repeat them, or give another --out")
        changed = [name for name, fact in self.lineage()["inputs"].items() if old.get(name) != fact]
        if changed:
            raise InputError(f"was begun with other {', '.join(changed)}", self.out, "its content changed since")

    def steps(self, total: int, state: Mapping[str, checkpoint.Stateful], save_steps: int = 0) -> Iterator[int]:
        """The steps still to do, `state` restored first; saves every `save_steps` (0: never) and when asked to stop."""
        done = self.restore(state)
        self.log.open(done, total)
        with self.listening():
            try:
                for step in range(done + 1, total + 1):
                    yield step
                    stop = self.asked_to_stop
                    if (save_steps and step % save_steps == 0 and step < total) or stop:
                        self.save(step, state)
                    if stop:
                        raise Interrupted(self.out, step)
            finally:
                self.log.close()

    def record(self, step: int, tokens: int = 0, show: tuple[str, ...] = ("loss",), /, **values: Any) -> None:
        """One row of metrics.jsonl; the named ones are shown beside the bar."""
        self.metrics = values
        self.log.row(step, values)
        self.log.advance(step, tokens, {key: values[key] for key in show if key in values})

    def restore(self, state: Mapping[str, checkpoint.Stateful]) -> int:
        """Load the newest whole checkpoint into `state` and return its step, or 0."""
        found = checkpoint.newest(self.out)
        if found is None:
            self.log.keep_until(0)
            return 0
        step, saved, torn = found
        for name in torn:
            self.log.say(f"{name} is torn and is passed over")
        for key, holder in state.items():
            holder.load_state_dict(saved["state"][key])
        self.before = saved["seconds"]
        self.log.keep_until(step)
        self.metrics = self.log.latest_row()
        self.log.say(f"goes on from step {step}")
        return step

    def save(self, step: int, state: Mapping[str, checkpoint.Stateful]) -> None:
        held = {key: holder.state_dict() for key, holder in state.items()}
        checkpoint.save(
            self.out,
            step,
            {"seconds": self.seconds, "state": held},
            getattr(self.config, "care", care.Options()).keep_checkpoints,
        )

    def finish(self, **facts: Any) -> Path:
        """Write finished.json and drop the checkpoints. Returns the run directory."""
        plain = {key: value.item() if isinstance(value, torch.Tensor) else value for key, value in facts.items()}
        rate = {"tokens_per_second": round(self.log.tokens / self.log.seconds)} if self.log.seconds else {}
        done = {"stage": self.stage, "seconds": round(self.seconds, 1), **rate, **plain}
        write_text(self.out / "finished.json", json.dumps(done, indent=1))
        checkpoint.clear(self.out)
        self.log.say(f"done in {self.seconds:.0f} s: {self.out}")
        return self.out

    @property
    def seconds(self) -> float:
        """Seconds spent on this run, those before a stop included."""
        return self.before + time.monotonic() - self.begun

    def yaml(self) -> str:
        values = {"command": self.stage, **plain_values(dataclasses.asdict(self.config))}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    def lineage(self) -> dict[str, Any]:
        """Hash of every input, and the versions at work."""
        inputs = {name: {"path": str(path), "sha256": hash_of(path)} for name, path in self.inputs.items()}
        versions = {"amenable": __version__, "torch": torch.__version__, "python": platform.python_version()}
        return {"stage": self.stage, "inputs": inputs, "versions": versions}

    def listening(self) -> Listening:
        return Listening(self)


class Listening:
    """While open, the first Ctrl-C or SIGTERM asks the run to save and stop; a second one ends it at once."""

    def __init__(self, run: Run):
        self.run = run
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        def ask(number: int, frame: Any) -> None:
            if self.run.asked_to_stop:
                raise KeyboardInterrupt
            self.run.asked_to_stop = True
            self.run.log.say("stopping after this step, saving first (again: at once)")

        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, ask)
        except ValueError:  # not the main thread: whoever runs us listens
            self.previous = {}

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def read_begun(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options and the inputs' hashes that a run directory was begun with."""
    try:
        options = yaml.safe_load((out / "config.yaml").read_text("utf-8"))
        inputs = json.loads((out / "lineage.json").read_text("utf-8"))["inputs"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        options = inputs = None
    if not isinstance(options, dict) or not isinstance(inputs, dict):
        raise InputError("holds something that is not a run", out, "give --out another folder")
    return options, inputs


def plain_values(value: Any) -> Any:
    """Options as YAML can write them."""
    if isinstance(value, dict):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def hash_of(path: Path) -> str:
    """Hash of a file; of a model directory by its weights and vocabulary; of a data folder by its files."""
    if path.is_file():
        return checkpoint.sha256(path)
    if not path.exists():
        raise InputError("no such file or folder", path, "check the path")
    telling = [path / name for name in ("model.safetensors", "config.json", "tokenizer.json")]
    files = [file for file in telling if file.exists()] or sorted(file for file in path.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path)}:{checkpoint.sha256(file)}\n".encode())
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a small file whole: beside, synced, renamed."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, "utf-8")
    checkpoint.sync_file(temporary)
    temporary.replace(path)
    checkpoint.sync_folder(path.parent)
