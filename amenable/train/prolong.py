"""A run that goes on beyond its end: as if it had been longer from the start, or not at all.

Data, draws and dropout are functions of the step. So runs of two lengths have the same past where the rates of all
past steps are the same: the learning rate stays at its peak after the warm-up (a final learning rate of 1), or no step
has come to where two cosines part. What a stage does in its last step alone (it validates, shows samples) is no part of
a longer run: one that may be prolonged keeps the checkpoint before that step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from amenable.errors import InputError
from amenable.train import checkpoint
from amenable.train.plan import Schedule

LENGTH = ("epochs", "max_steps")
"""options that say how long a run is"""
SCHEDULE = "schedule"
"""the name of a run's schedule in its checkpoints"""
NOT_FROM_A_MODEL = ("pretrain", "reward")
"""stages that cannot start from what they have made; every other can"""


def is_raised(was: Mapping[str, Any], now: Mapping[str, Any], differing: Sequence[str]) -> bool:
    """Whether options differ in the length of the run alone, and one of these is raised."""
    counts = all(isinstance(was.get(key), (int, float)) for key in differing)
    return (
        bool(differing) and set(differing) <= set(LENGTH) and counts and any(now[key] > was[key] for key in differing)
    )


def checkpoint_to_keep(schedule: Schedule | None, save_steps: int) -> int:
    """The step whose checkpoint a finished run keeps, so that it can be prolonged; 0 where it cannot."""
    return schedule.total - 1 if schedule is not None and schedule.floor == 1 and save_steps else 0


def facts_of(schedule: Schedule | None) -> dict[str, Any] | None:
    """A schedule as a checkpoint holds it."""
    return None if schedule is None else asdict(schedule)


def schedule_of(folder: Path) -> Schedule | None:
    """The schedule that a checkpoint's run was begun with; None for a torn checkpoint, or one that does not say it."""
    facts = checkpoint.fact(folder, SCHEDULE) if checkpoint.is_whole(folder) else None
    return None if facts is None else Schedule(**facts)


def past(out: Path) -> tuple[int, Schedule] | None:
    """The newest checkpoint of a run directory that holds nothing of a last step: its step, and the run's schedule."""
    for step in sorted(checkpoint.steps(out), reverse=True):
        schedule = schedule_of(out / f"checkpoint-{step}")
        if schedule is not None and step < schedule.total:
            return step, schedule
    return None


def drop_end(out: Path) -> None:
    """Remove the checkpoints that hold what was done in a last step."""
    found = past(out)
    checkpoint.drop_others(out, found[0] if found is not None else 0, keep=len(checkpoint.steps(out)))


def kept_checkpoint(finished: Path) -> int:
    """The step of the checkpoint that a finished run has kept, by its finished.json; 0 for none."""
    try:
        return int(json.loads(finished.read_text("utf-8")).get("checkpoint", 0))
    except (OSError, ValueError, TypeError, AttributeError):
        return 0


def require_same_past(out: Path, stage: str, schedule: Schedule, finished: bool) -> None:
    """InputError unless a run with this schedule would have come to the state of the run in `out` as well."""
    anew = "give another --out"
    if stage not in NOT_FROM_A_MODEL:
        anew = f"start anew from its result: --model {out} --out NEW"
    found = past(out)
    if found is None:
        if finished and schedule.floor < 1:
            what = "has finished, and the cosine of its learning rate has ended: it cannot be prolonged"
            raise InputError(what, out, f"{anew} (a run with --final-lr-frac 1 can be prolonged)")
        if finished:
            raise InputError("has finished and kept no checkpoint: it cannot be prolonged", out, anew)
        return
    step, old = found
    if schedule.total <= old.total:
        what = f"has {old.total} steps, and with these options {schedule.total}: it is not made longer"
        raise InputError(what, out, "raise --max-steps or --epochs further, or repeat its options")
    for number in range(1, step + 1):
        if old(number) != schedule(number):
            what = (
                f"cannot be prolonged from {old.total} to {schedule.total} steps: in step {number} its learning rate "
                f"was {old(number):.4g} of the peak, and would have been {schedule(number):.4g}"
            )
            raise InputError(what, out, anew if finished else f"finish it as it was begun; then {anew}")
