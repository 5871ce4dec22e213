"""Run directory: options, inputs, metrics, checkpoints and result of a run, which resumes after a stop.

config.yaml         every option, so that `--config` repeats the run
lineage.json        hash of every input, and versions
environments.jsonl  device, precision, threads and torch version: a row at the start and at each change
rejected.jsonl      rows of the data that could not be used: file, line, reason
metrics.jsonl       a row a step; samples.jsonl: completions
checkpoint-<n>/     state to resume exactly
manifest.json       size and hash of every file of the finished run
stopped.json        if a guard stopped the run: step, reason, and the rows of that batch
failed_rollout.jsonl  if a reward failed: the completions that it was to score
README.md           model card, and origin.json, if the run has made a model (train/model_card.py)
finished.json       written last: seconds and final metrics; other commands read a run only once it exists
.lock               process that works here
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

from amenable import processes
from amenable.data.input_hash import describe_change, input_facts
from amenable.data.urls import to_path
from amenable.errors import InputError, Interrupted
from amenable.files import MANIFEST, remove_temporaries, sync_folder, write_manifest, write_text
from amenable.model_folder import bases_of
from amenable.ranks import is_first
from amenable.train import checkpoint, failed_rewards, prolong, trackers
from amenable.train.best import BestWeights
from amenable.train.checkpoint_writer import CheckpointWriter
from amenable.train.environment import record_environment, versions_of
from amenable.train.examples import RejectedRows
from amenable.train.graceful_stop import GracefulStop
from amenable.train.guards import MAX_KL_STEPS, Guards
from amenable.train.lock import NAME as LOCK
from amenable.train.lock import Lock
from amenable.train.log import Log, plain_number
from amenable.train.members import join_processes, shared_facts, weight_sums
from amenable.train.model_card import write_card
from amenable.train.optimizer import Optimizer
from amenable.train.plan import Schedule
from amenable.train.run_folder import (
    FINISHED,
    LINEAGE,
    OPTIONS,
    REJECTED,
    STOPPED,
    comparable,
    is_empty_run,
    is_same,
    read_begun,
    require_finished,
    require_no_overlap,
)
from amenable.train.run_options import MAY_CHANGE_ON_RESUME, DataOptions, TrainingOptions, plain_defaults, plain_values
from amenable.train.runtime import Runtime
from amenable.train.trained_weights import TrainedWeights


class Run:
    """Run directory of a stage, new or resumed."""

    def __init__(
        self,
        out: Path,
        stage: str,
        config: Any,
        inputs: dict[str, Path | None] | None = None,
        max_kl: float = 0.0,
        max_kl_steps: int = MAX_KL_STEPS,
        addresses: Mapping[str, str] | None = None,
    ):
        """addresses: inputs that are no files, such as a model behind an API."""
        join_processes(stage, config)
        self.out, self.stage, self.config = Path(out), stage, config
        self.inputs = {name: to_path(path) for name, path in (inputs or {}).items() if path is not None}
        self.addresses = dict(addresses or {})
        for name, path in list(self.inputs.items()):
            self.inputs |= bases_of(name, path)
        self.log = Log(self.out, stage)
        self.lock = Lock(self.out)
        self.before = 0.0
        self.begun = time.monotonic()
        self.metrics: dict[str, Any] = {}
        self.guards = Guards(max_kl, max_kl_steps)
        self.rejected = RejectedRows(getattr(config, "max_bad_rows", DataOptions.max_bad_rows))
        self.step, self.batch_rows, self.ended = 0, list[int](), False
        self.longer, self.kept_step = False, 0
        self.schedule: Schedule | None = None
        self.runtime: Runtime | None = None
        self.checkpoints = CheckpointWriter(self.out, self.keep_checkpoints, getattr(config, "async_save", False))

    def skip_finished(self) -> bool:
        """Return True if this run has already finished; otherwise lock an existing directory to resume it.

        Raises InputError for a directory that holds another run or other files, or that another process works in, and
        for a tracker that is not installed. Of several processes the first looks, and all have to have the same inputs.
        """
        answer = processes.from_first(lambda: {"finished": self.find_finished(), "longer": self.longer})
        self.longer = answer["longer"]
        if processes.size() > 1 and not answer["finished"]:
            options = {f"--{name.replace('_', '-')}": value for name, value in yaml.safe_load(self.yaml()).items()}
            facts = options | shared_facts("", self.lineage()["inputs"])
            processes.require_same(facts, "give every process the same code, options and data")
        return answer["finished"]

    def find_finished(self) -> bool:
        """Return what `skip_finished` does, and note in `longer` a run that is to be prolonged."""
        trackers.require_installed(getattr(self.config, "track", ()))
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
        # checked after the lock is acquired: its last owner may just have finished the run
        finished = (self.out / FINISHED).exists() and not self.longer
        if finished:
            self.lock.release()
            checkpoint.clear(self.out, keep=prolong.kept_checkpoint(self.out / FINISHED))
            self.log.info(f"already done: {self.out}")
        return finished

    def begin(self, schedule: Schedule | None = None, runtime: Runtime | None = None) -> None:
        """Create the directory and write options and lineage. Call it once all input is checked.

        Raises InputError for a longer run than the existing one, unless its `schedule` had the same steps so far.
        `steps` warns if it resumes in another environment than the `runtime` of the steps before.
        """
        self.schedule, self.runtime = schedule, runtime
        processes.from_first(lambda: self.begin_directory(schedule))

    def begin_directory(self, schedule: Schedule | None) -> None:
        """Create the directory, lock it, and write what a run begins with."""
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
        """Write rejected.jsonl, if any rows were rejected."""
        (self.out / REJECTED).unlink(missing_ok=True)
        if self.rejected.rows:
            write_text(self.out / REJECTED, self.rejected.to_jsonl())

    def lock_directory(self) -> None:
        """Create the directory and acquire its lock; check again for a run that another process made meanwhile."""
        for name, path in self.inputs.items():
            require_finished(path, name)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot be created: {error.strerror}", self.out, "give --out another folder") from None
        self.lock.acquire()
        if (self.out / OPTIONS).exists():
            self.check_same()
        if (self.out / FINISHED).exists() and not self.longer:
            self.lock.release()
            raise InputError("another process has just finished this run", self.out, "there is nothing left to do")

    def check_same(self) -> None:
        """Raise InputError for a run of another stage, other options, or inputs that have changed since."""
        old, old_lineage = read_begun(self.out)
        new = comparable(yaml.safe_load(self.yaml()))
        if not old.keys() - new.keys():  # else an option may have been renamed
            old = {**plain_defaults(self.config), **comparable(old)}
        if old.get("command") != new["command"]:
            raise InputError(f"holds a run of '{old.get('command')}'", self.out, "give --out another folder")
        differing = [key for key in new if key not in MAY_CHANGE_ON_RESUME and not is_same(old.get(key), new[key])]
        self.longer = prolong.is_raised(old, new, differing) and not new.get("inspect_batch")
        if differing and not self.longer:
            changes = ", ".join(f"{key} was {old.get(key)!r} and is {new[key]!r}" for key in differing)
            raise InputError(f"was begun with other options: {changes}", self.out, "repeat them, or give another --out")
        lineage = self.lineage()
        changed = [name for name, fact in lineage["inputs"].items() if old_lineage["inputs"].get(name) != fact]
        changed = [name for name in changed if not failed_rewards.is_mended(self.out, self.inputs[name])]
        if changed:
            changes = describe_change(changed, old_lineage.get("files", {}), lineage["files"])
            raise InputError(changes, self.out, "restore it, or give another --out")

    def steps(self, total: int, state: Mapping[str, checkpoint.Stateful], save_steps: int = 0) -> Iterator[int]:
        """Restore `state` and yield the remaining steps; save every `save_steps` (0: never) and when stopped."""
        newest, torn = processes.from_first(self.newest_checkpoint)
        with processes.first_then_others():
            self.kept_step = prolong.checkpoint_to_keep(self.schedule, save_steps)
            sent = self.log.last_step()
            done = self.restore(state, newest, torn)
        size = bytes_of(state)
        processes.from_first(lambda: self.prepare(done, size, save_steps))
        for holder in state.values():
            if isinstance(holder, Optimizer):
                holder.on_nonfinite = self.stop
        names = getattr(self.config, "track", ()) if is_first() else ()
        project = getattr(self.config, "track_project", "")
        tracked = trackers.TrackedRun(self.out, project, yaml.safe_load(self.yaml()), done, sent)
        self.log.trackers = trackers.start(names, tracked, self.log.warn)
        self.log.open(done, total)
        with GracefulStop(lambda: self.log.info("saves and stops after this step (repeat to stop at once)")) as stop:
            self.graceful_stop = stop
            try:
                for step in range(done + 1, total + 1):
                    yield step
                    stopping = processes.any_of(stop.requested)
                    self.checkpoints.poll()
                    if (save_steps and step % save_steps == 0 and step < total) or step == self.kept_step or stopping:
                        self.save(step, state)
                    if self.ended:
                        break
                    if stopping:
                        self.checkpoints.wait()
                        raise Interrupted(self.out, step)
                self.checkpoints.wait()
            except BaseException:
                self.log.trackers.finish()
                self.lock.release()
                raise
            finally:
                self.log.close()

    def prepare(self, done: int, size: int, save_steps: int) -> None:
        """Check the disk for checkpoints of `size` bytes, and write what the steps after `done` begin with."""
        self.require_space(size, save_steps)
        if self.runtime is not None and (warning := record_environment(self.out, done + 1, self.runtime)):
            self.log.warn(warning)
        for line in failed_rewards.clear(self.out, done, self.lineage()["inputs"]):
            self.log.warn(line)
        (self.out / STOPPED).unlink(missing_ok=True)

    def record(self, step: int, tokens: int = 0, show: tuple[str, ...] = ("loss",), /, **values: Any) -> None:
        """Write a row of metrics.jsonl and check it with the guards. show: metrics to print beside the bar."""
        self.step, self.metrics = step, values
        self.log.row(step, values)
        self.log.advance(step, tokens, {key: values[key] for key in show if key in values})
        for line in self.guards.observe(step, {key: plain_number(value) for key, value in values.items()}):
            self.log.warn(line)
        fatal = self.guards.fatal(step, values)
        if fatal is not None:
            self.stop(*fatal)

    def end(self, reason: str) -> None:
        """End `steps` after the current one, as if it were the last, and log the reason."""
        self.ended = True
        self.log.info(reason)

    def note_batch(self, step: int, rows: Sequence[int]) -> None:
        """Note the rows of a step's batch for stopped.json: indices among the usable rows, in the order of the data."""
        self.step, self.batch_rows = step, list(rows)

    def stop(self, problem: str, hint: str) -> NoReturn:
        """Stop the run for a failure that further steps cannot fix: write stopped.json and raise InputError."""
        facts = {"step": self.step, "what": problem, "how": hint, "rows": self.batch_rows}
        if is_first():
            write_text(self.out / STOPPED, json.dumps(facts, indent=1, ensure_ascii=False))
        self.checkpoints.wait()
        self.lock.release()
        raise InputError(f"stopped in step {self.step}: {problem}", self.out, hint)

    def newest_checkpoint(self) -> tuple[int | None, list[str]]:
        """Return the step of the newest whole checkpoint, or None, and the names of torn ones after it. A run that is
        prolonged has the options of the longer one first, and loses the result of its last step."""
        if self.longer:
            prolong.drop_last_step(self.out)
            (self.out / FINISHED).unlink(missing_ok=True)
            write_text(self.out / OPTIONS, self.yaml())
            sync_folder(self.out)
        return checkpoint.newest_step(self.out)

    def restore(self, state: Mapping[str, checkpoint.Stateful], step: int | None, torn: Sequence[str]) -> int:
        """Load a step's checkpoint, if there is one, into `state`; return the step, or 0. torn: those after it."""
        for name in torn:
            rest = "not used" if step is not None else "none before it is whole: starts from step 0"
            self.log.warn(f"{name} is torn or altered, and {rest}")
        self.log.truncate_after(step or 0)
        if step is None:
            return 0
        saved = checkpoint.read(self.out, step)
        checkpoint.load(state, saved["state"], self.out)
        self.before, self.step, self.metrics = saved["seconds"], step, self.log.latest_row()
        for row in self.log.read("metrics"):
            self.guards.observe(row["step"], row)
        self.log.info(f"resumes from step {step}")
        return step

    def require_space(self, size: int, save_steps: int) -> None:
        """Raise InputError if the disk has no room for the checkpoints of `size` bytes that are kept, and one more."""
        count = self.keep_checkpoints + 1 if save_steps else 1
        needed = size * count - checkpoint.bytes_on_disk(self.out)
        free = shutil.disk_usage(self.out).free
        if needed > free:
            self.lock.release()
            raise InputError(
                f"{needed / 2**20:,.0f} MiB are needed for {count} checkpoints and {free / 2**20:,.0f} MiB are free",
                self.out,
                "make room, lower --keep-checkpoints, or give --out a folder on another disk",
            )

    def save(self, step: int, state: Mapping[str, checkpoint.Stateful], updated: bool = False) -> None:
        """Sync the log, then write a checkpoint. updated: True if `state` has the updates of the next step as well.
        Several processes first compare their weights: InputError where they are no longer the same."""
        held = {key: holder.state_dict() for key, holder in state.items()}
        if processes.size() > 1:
            sums = weight_sums([held[key] for key, holder in state.items() if isinstance(holder, TrainedWeights)])
            processes.require_same({"weights": sums}, "report it: the processes should stay equal")
        processes.from_first(self.log.sync)
        facts = {"seconds": self.seconds, "updated": updated, prolong.SCHEDULE: prolong.facts_of(self.schedule)}
        self.checkpoints.save(step, {**facts, "state": held})
        self.log.session(step, time.monotonic() - self.begun)

    def finish(self, **facts: Any) -> Path:
        """Print the run's health, write manifest.json and finished.json, remove all checkpoints but one to prolong the
        run from, and release the lock, all in the first of several processes. Returns the run directory."""
        processes.from_first(lambda: self.finish_directory(facts))
        return self.out

    def finish_directory(self, facts: Mapping[str, Any]) -> None:
        """Write what a finished run has, and release the lock."""
        plain = {key: plain_number(value) for key, value in facts.items()}
        rate = {f"{self.log.unit}_per_second": round(self.log.tokens / self.log.seconds)} if self.log.seconds else {}
        saved = (
            {"checkpoint": self.kept_step} if self.kept_step and self.kept_step in checkpoint.steps(self.out) else {}
        )
        result = {"stage": self.stage, "seconds": round(self.seconds, 3), **rate, **plain, **saved, **self.health()}
        self.log.session(self.step, time.monotonic() - self.begun)
        if self.log.trackers is not None:
            self.log.trackers.finish({key: plain_number(value) for key, value in {**self.metrics, **facts}.items()})
        write_card(self.out, self.stage, self.config, self.inputs, self.step, plain)
        write_run_manifest(self.out)
        write_text(self.out / FINISHED, json.dumps(result, indent=1))
        checkpoint.clear(self.out, keep=self.kept_step)
        self.lock.release()
        self.log.info(f"done in {self.seconds:.0f} s: {self.out}")

    def health(self) -> dict[str, Any]:
        """Print the guards' summary, add it to metrics.jsonl, and return it; empty if no check applied."""
        health = self.guards.health()
        if not health["fine"] and not health["warnings"]:
            return {}
        self.log.health(health)
        self.log.row(self.step, {"health": health})
        return {"health": health}

    @property
    def keep_checkpoints(self) -> int:
        """Number of checkpoints to keep; the default for a stage without the option."""
        return getattr(self.config, "keep_checkpoints", TrainingOptions.keep_checkpoints)

    @property
    def seconds(self) -> float:
        """Seconds spent on this run, in all sessions."""
        return self.before + time.monotonic() - self.begun

    def yaml(self) -> str:
        values = {"command": self.stage, **plain_values(self.config)}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    def lineage(self) -> dict[str, Any]:
        """Return the hash and number of files of every input, and the versions of what computes."""
        facts = input_facts(self.inputs, self.addresses)
        return {"stage": self.stage, **facts, "versions": versions_of(self.config)}


def bytes_of(state: Mapping[str, checkpoint.Stateful]) -> int:
    """Return the bytes of a checkpoint of this state, with an optimizer's two moments and the best weights."""
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
    """Sync the run's files and write their sizes and hashes to manifest.json, without checkpoints."""
    checkpoints = {f"checkpoint-{step}" for step in checkpoint.steps(out)}
    write_manifest(out, {MANIFEST, FINISHED, LOCK, "timings.jsonl", *checkpoints, *trackers.FOLDERS})
