"""A run directory: what was asked, what went in, how it went, and how to go on after a stop.

config.yaml      every option, so that `--config` repeats the run
lineage.json     hash of every input, and the version of this package
environments.jsonl  device, precision, threads and torch version: a row at the start and at each change
rejected.jsonl   rows of the data that could not be used: file, line, reason
metrics.jsonl    a row a step; samples.jsonl: what the model said
checkpoint-<n>/  everything needed to go on exactly
manifest.json    size and hash of every file of the finished run
stopped.json     where a guard stopped the run: at which step, why, and the rows of that batch
finished.json    written last: seconds and closing figures. What a run has made counts once it is there
.lock            who is at work here
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml

from amenable import __version__
from amenable.errors import InputError, Interrupted
from amenable.files import MANIFEST, WRITING, hash_of, remove_temporaries, sync_folder, write_manifest, write_text
from amenable.train import checkpoint, prolong
from amenable.train.best import BestWeights
from amenable.train.environment import record_environment
from amenable.train.examples import RejectedRows
from amenable.train.guards import MAX_KL_STEPS, Guards
from amenable.train.lock import NAME as LOCK
from amenable.train.lock import Lock
from amenable.train.log import Log, plain_number
from amenable.train.optimizer import Optimizer
from amenable.train.plan import Schedule
from amenable.train.run_options import MAY_CHANGE_ON_RESUME, DataOptions, TrainingOptions
from amenable.train.runtime import Runtime

OPTIONS, LINEAGE, FINISHED, STOPPED = "config.yaml", "lineage.json", "finished.json", "stopped.json"
REJECTED = "rejected.jsonl"
BEFORE_OPTIONS = (LOCK, LINEAGE, REJECTED)
"""what a run writes before its options: where no more than that is there, it was stopped before it began"""


class Run:
    """One stage's run directory, opened anew, or again after a stop."""

    def __init__(
        self,
        out: Path,
        stage: str,
        config: Any,
        inputs: dict[str, Path | None] | None = None,
        max_kl: float = 0.0,
        max_kl_steps: int = MAX_KL_STEPS,
    ):
        self.out, self.stage, self.config = Path(out), stage, config
        self.inputs = {name: Path(path) for name, path in (inputs or {}).items() if path is not None}
        self.log = Log(self.out, stage)
        self.lock = Lock(self.out)
        self.before = 0.0
        self.begun = time.monotonic()
        self.asked_to_stop = False
        self.metrics: dict[str, Any] = {}
        self.guards = Guards(max_kl, max_kl_steps)
        self.rejected = RejectedRows(getattr(config, "max_bad_rows", DataOptions.max_bad_rows))
        self.step, self.batch_rows = 0, list[int]()
        self.longer, self.kept = False, 0
        self.schedule: Schedule | None = None
        self.runtime: Runtime | None = None

    def skip_finished(self) -> bool:
        """Whether this very run is finished already. Refuses a directory that holds anything else, or where another
        process is at work; changes nothing that was made."""
        if self.out.is_file():
            raise InputError("is a file", self.out, "give --out a folder")
        if not (self.out / OPTIONS).exists():
            require_no_overlap(self.out, self.inputs)
            if is_empty_run(self.out):
                return False
            raise InputError("holds something that is not a run", self.out, "give --out another folder")
        self.check_same()
        if self.longer or not (self.out / FINISHED).exists():
            self.lock.acquire()
        # looked up with the lock in hand: its last owner may just have ended
        finished = (self.out / FINISHED).exists() and not self.longer
        if finished:
            self.lock.release()
            checkpoint.clear(self.out, keep=prolong.kept_checkpoint(self.out / FINISHED))
            self.log.info(f"already done: {self.out}")
        return finished

    def begin(self, schedule: Schedule | None = None, runtime: Runtime | None = None) -> None:
        """Make the directory and write down what is asked and what goes in. Call it once all input has proved good.
        A longer run than was begun is refused unless its `schedule` has the same past. `steps` warns if it resumes in
        another environment than the `runtime` that computed the steps before."""
        self.schedule, self.runtime = schedule, runtime
        lineage = {} if (self.out / OPTIONS).exists() else self.lineage()
        if not self.lock.held:
            self.lock_directory()
        if self.longer and schedule is not None:
            try:
                prolong.require_same_past(self.out, self.stage, schedule, (self.out / FINISHED).exists())
            except InputError:
                self.lock.release()
                raise
        remove_temporaries(self.out)
        if not (self.out / OPTIONS).exists():
            write_text(self.out / LINEAGE, json.dumps(lineage, indent=1))
            self.write_rejected()
            write_text(self.out / OPTIONS, self.yaml())
            sync_folder(self.out.parent)

    def write_rejected(self) -> None:
        """List the rows that could not be used, where there are any."""
        (self.out / REJECTED).unlink(missing_ok=True)
        if self.rejected.rows:
            write_text(self.out / REJECTED, self.rejected.to_jsonl())

    def lock_directory(self) -> None:
        """Make the directory and take its lock. Where another process has been there meanwhile, look again."""
        for name, path in self.inputs.items():
            require_finished(path, name)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot be made: {error.strerror}", self.out, "give --out another folder") from None
        self.lock.acquire()
        if (self.out / OPTIONS).exists():
            self.check_same()
        if (self.out / FINISHED).exists() and not self.longer:
            self.lock.release()
            raise InputError("another process has just finished this run", self.out, "there is nothing left to do")

    def check_same(self) -> None:
        """Refuse a directory of another stage, other options, or inputs that have changed since."""
        was, old = read_begun(self.out)
        now = yaml.safe_load(self.yaml())
        if was.get("command") != now["command"]:
            raise InputError(f"holds a run of '{was.get('command')}'", self.out, "give --out another folder")
        differing = [key for key in now if key not in MAY_CHANGE_ON_RESUME and was.get(key) != now[key]]
        self.longer = prolong.is_raised(was, now, differing) and not now.get("inspect_batch")
        if differing and not self.longer:
            said = ", ".join(f"{key} was {was.get(key)!r} and is {now[key]!r}" for key in differing)
            raise InputError(f"was begun with other options: {said}", self.out, "repeat them, or give another --out")
        changed = [name for name, fact in self.lineage()["inputs"].items() if old.get(name) != fact]
        if changed:
            raise InputError(f"was begun with other {', '.join(changed)}", self.out, "its content changed since")

    def steps(self, total: int, state: Mapping[str, checkpoint.Stateful], save_steps: int = 0) -> Iterator[int]:
        """The steps still to do, `state` restored first; saves every `save_steps` (0: never) and when asked to stop."""
        if self.longer:
            self.reopen()
        self.kept = prolong.checkpoint_to_keep(self.schedule, save_steps)
        done = self.restore(state)
        self.require_space(state, save_steps)
        if self.runtime is not None and (warning := record_environment(self.out, done + 1, self.runtime)):
            self.log.warn(warning)
        (self.out / STOPPED).unlink(missing_ok=True)
        for holder in state.values():
            if isinstance(holder, Optimizer):
                holder.on_nonfinite = self.stop
        self.log.open(done, total)
        with self.listening():
            try:
                for step in range(done + 1, total + 1):
                    yield step
                    stop = self.asked_to_stop
                    if (save_steps and step % save_steps == 0 and step < total) or step == self.kept or stop:
                        self.save(step, state)
                    if stop:
                        raise Interrupted(self.out, step)
            except BaseException:
                self.lock.release()
                raise
            finally:
                self.log.close()

    def record(self, step: int, tokens: int = 0, show: tuple[str, ...] = ("loss",), /, **values: Any) -> None:
        """One row of metrics.jsonl, which the guards look at; the named ones are shown beside the bar."""
        self.step, self.metrics = step, values
        self.log.row(step, values)
        self.log.advance(step, tokens, {key: values[key] for key in show if key in values})
        for line in self.guards.observe(step, {key: plain_number(value) for key, value in values.items()}):
            self.log.warn(line)
        fatal = self.guards.fatal(step, values)
        if fatal is not None:
            self.stop(*fatal)

    def note_batch(self, step: int, rows: Sequence[int]) -> None:
        """Say what a step is about to train on: places, from 0, among the rows that can be trained on, in the order of
        the data. They are written down if it has to stop."""
        self.step, self.batch_rows = step, list(rows)

    def stop(self, what: str, how: str) -> NoReturn:
        """End the run for a reason that more steps would not mend; checkpoints stay, stopped.json says what was fed."""
        told = {"step": self.step, "what": what, "how": how, "rows": self.batch_rows}
        write_text(self.out / STOPPED, json.dumps(told, indent=1, ensure_ascii=False))
        self.lock.release()
        raise InputError(f"stopped in step {self.step}: {what}", self.out, how)

    def reopen(self) -> None:
        """Let the run go on beyond its end, with the options of a longer one: it has not finished any more."""
        prolong.drop_last_step(self.out)
        (self.out / FINISHED).unlink(missing_ok=True)
        write_text(self.out / OPTIONS, self.yaml())
        sync_folder(self.out)

    def restore(self, state: Mapping[str, checkpoint.Stateful]) -> int:
        """Load the newest whole checkpoint into `state` and return its step, or 0."""
        found = checkpoint.newest(self.out)
        if found is None:
            for torn_step in sorted(checkpoint.steps(self.out)):
                self.log.warn(f"checkpoint-{torn_step} is torn and none before it is whole: begins again")
            self.log.truncate_after(0)
            return 0
        step, saved, torn = found
        for name in torn:
            self.log.warn(f"{name} is torn or altered and is passed over")
        for key, holder in state.items():
            holder.load_state_dict(saved["state"][key])
        self.before, self.step = saved["seconds"], step
        self.log.truncate_after(step)
        self.metrics = self.log.latest_row()
        for row in self.log.read("metrics"):
            self.guards.observe(row["step"], row)
        self.log.info(f"goes on from step {step}")
        return step

    def require_space(self, state: Mapping[str, checkpoint.Stateful], save_steps: int) -> None:
        """Refuse to begin what the disk has no room for: the checkpoints kept, and one more while it is written."""
        kept = self.keep_checkpoints + 1 if save_steps else 1
        wanted = bytes_of(state) * kept - checkpoint.bytes_on_disk(self.out)
        free = shutil.disk_usage(self.out).free
        if wanted > free:
            self.lock.release()
            raise InputError(
                f"{wanted / 2**20:,.0f} MiB are needed for {kept} checkpoints and {free / 2**20:,.0f} MiB are free",
                self.out,
                "make room, lower --keep-checkpoints, or give --out a folder on another disk",
            )

    def save(self, step: int, state: Mapping[str, checkpoint.Stateful]) -> None:
        """Write a checkpoint, its rows first."""
        self.log.sync()
        held = {key: holder.state_dict() for key, holder in state.items()}
        facts = {"seconds": self.seconds, prolong.SCHEDULE: prolong.facts_of(self.schedule)}
        checkpoint.save(self.out, step, {**facts, "state": held}, self.keep_checkpoints)
        self.log.session(step, time.monotonic() - self.begun)

    def finish(self, **facts: Any) -> Path:
        """Tell the run's health, write manifest.json and finished.json, drop the checkpoints but the one from which it
        can be prolonged, let go. Returns the run directory."""
        plain = {key: plain_number(value) for key, value in facts.items()}
        rate = {"tokens_per_second": round(self.log.tokens / self.log.seconds)} if self.log.seconds else {}
        kept = {"checkpoint": self.kept} if self.kept in checkpoint.steps(self.out) else {}
        done = {"stage": self.stage, "seconds": round(self.seconds, 1), **rate, **plain, **kept, **self.health()}
        self.log.session(self.step, time.monotonic() - self.begun)
        write_run_manifest(self.out)
        write_text(self.out / FINISHED, json.dumps(done, indent=1))
        checkpoint.clear(self.out, keep=self.kept)
        self.lock.release()
        self.log.info(f"done in {self.seconds:.0f} s: {self.out}")
        return self.out

    def health(self) -> dict[str, Any]:
        """What the guards found, said, and added to metrics.jsonl; nothing where they had nothing to look at."""
        health = self.guards.health()
        if not health["fine"] and not health["warnings"]:
            return {}
        self.log.health(health)
        self.log.row(self.step, {"health": health})
        return {"health": health}

    @property
    def keep_checkpoints(self) -> int:
        """How many are kept; a stage without this option keeps the usual number."""
        return getattr(self.config, "keep_checkpoints", TrainingOptions.keep_checkpoints)

    @property
    def seconds(self) -> float:
        """Seconds spent on this run, those before a stop included."""
        return self.before + time.monotonic() - self.begun

    def yaml(self) -> str:
        values = {"command": self.stage, **plain_values(self.config)}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    def lineage(self) -> dict[str, Any]:
        """Hash of every input, and the versions at work."""
        inputs = {name: {"path": str(path), "sha256": hash_of(path)} for name, path in self.inputs.items()}
        versions = {"amenable": __version__, "torch": torch.__version__, "python": platform.python_version()}
        return {"stage": self.stage, "inputs": inputs, "versions": versions}

    def listening(self) -> GracefulStop:
        return GracefulStop(self)


class GracefulStop:
    """While open, the first Ctrl-C or SIGTERM asks the run to save and stop; a second one ends it at once."""

    def __init__(self, run: Run):
        self.run = run
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        def ask(number: int, frame: Any) -> None:
            if self.run.asked_to_stop:
                raise KeyboardInterrupt
            self.run.asked_to_stop = True
            self.run.log.info("stopping after this step, saving first (again: at once)")

        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, ask)
        except ValueError:  # not the main thread: whoever runs us listens
            self.previous = {}

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def is_empty_run(folder: Path) -> bool:
    """Whether no run has begun in a folder: it is not there or empty, or a try was stopped before that."""
    if not folder.exists():
        return True
    files = {path for path in folder.iterdir() if path.name not in BEFORE_OPTIONS}
    return not files - set(folder.glob(WRITING))


def require_no_overlap(out: Path, inputs: Mapping[str, Path]) -> None:
    """Refuse to write into a folder that is read, or around what is read."""
    place = out.resolve()
    for name, path in inputs.items():
        read = path.resolve()
        if place == read or read in place.parents:
            raise InputError(f"lies inside the {name} that is read", out, "give --out a folder of its own")
        if place in read.parents:
            raise InputError(f"holds the {name} that is read ({path})", out, "give --out a folder of its own")


def require_finished(path: Path, name: str) -> None:
    """Refuse an input that a run is still making: what is there may be half of it."""
    for folder in (path.absolute(), *path.absolute().parents):
        if (folder / OPTIONS).exists() and (folder / LINEAGE).exists() and not (folder / FINISHED).exists():
            raise InputError(f"the run that makes this {name} has not finished", folder, "repeat its command first")


def bytes_of(state: Mapping[str, checkpoint.Stateful]) -> int:
    """Bytes of a checkpoint of this state once it is complete: with an optimizer's two moments, the best weights."""
    sizes = []
    for holder in state.values():
        later = 0
        if isinstance(holder, Optimizer):
            later = 2 * checkpoint.bytes_in(holder.parameters)
        elif isinstance(holder, BestWeights):
            later = checkpoint.bytes_in(holder.module.state_dict())
        sizes.append(max(later, checkpoint.bytes_in(holder.state_dict())))
    return sum(sizes)


def write_run_manifest(out: Path) -> None:
    """manifest.json: size and hash of every file that the run has made, all of them on the disk."""
    passing = {f"checkpoint-{step}" for step in checkpoint.steps(out)}
    write_manifest(out, {MANIFEST, FINISHED, LOCK, "timings.jsonl", *passing})


def read_begun(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options and the inputs' hashes that a run directory was begun with."""
    try:
        options = yaml.safe_load((out / OPTIONS).read_text("utf-8"))
        inputs = json.loads((out / LINEAGE).read_text("utf-8"))["inputs"]
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
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__name__)}"
    if dataclasses.is_dataclass(value):
        return {field.name: plain_values(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return str(value) if isinstance(value, Path) else value
