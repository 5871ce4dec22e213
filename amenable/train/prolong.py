"""Prolong a run: resume it with more steps, only if the result is that of a run as long from the start.

Data, draws and dropout are functions of the step. So runs of two lengths have equal first steps if the learning rates
of these steps are equal: with a constant rate after the warm-up (final_lr_frac 1), or before the two cosines differ. A
stage validates and samples in its last step too, which is no part of a longer run: a run that can be prolonged keeps
the checkpoint before that step.
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
"""options for the length of a run"""
SCHEDULE = "schedule"
"""key of a run's schedule in its checkpoints"""
NOT_FROM_OWN_RESULT = ("reward",)
"""stages that cannot start from their own result"""


def is_raised(old: Mapping[str, Any], new: Mapping[str, Any], differing: Sequence[str]) -> bool:
    """Return True if the options differ only in the length of the run, and one of these is raised."""
    counts = all(isinstance(old.get(key), (int, float)) for key in differing)
    return set(differing) <= set(LENGTH) and counts and any(new[key] > old[key] for key in differing)


def checkpoint_to_keep(schedule: Schedule | None, save_steps: int) -> int:
    """Return the step whose checkpoint a finished run keeps to be prolonged from; 0 if it cannot be prolonged."""
    return schedule.total - 1 if schedule is not None and schedule.floor == 1 and save_steps else 0


def facts_of(schedule: Schedule | None) -> dict[str, Any] | None:
    """Convert a schedule to the facts of a checkpoint."""
    return None if schedule is None else asdict(schedule)


def schedule_of(folder: Path) -> Schedule | None:
    """Read the schedule of a checkpoint's run; None from a torn checkpoint, one without a schedule, and one that has
    the updates of the next step as well."""
    is_usable = checkpoint.is_whole(folder) and not checkpoint.fact(folder, "updated")
    facts = checkpoint.fact(folder, SCHEDULE) if is_usable else None
    return None if facts is None else Schedule(**facts)


def resumable(out: Path) -> tuple[int, Schedule] | None:
    """Return step and schedule of a run's newest checkpoint before its last step, or None."""
    for step in sorted(checkpoint.steps(out), reverse=True):
        schedule = schedule_of(out / f"checkpoint-{step}")
        if schedule is not None and step < schedule.total:
            return step, schedule
    return None


def drop_last_step(out: Path) -> None:
    """Remove the checkpoints of a last step."""
    step, _ = resumable(out) or (0, None)
    checkpoint.drop_others(out, step, keep=len(checkpoint.steps(out)))


def kept_checkpoint(finished: Path) -> int:
    """Return the step of the checkpoint that a finished run kept, from its finished.json, or 0."""
    try:
        return int(json.loads(finished.read_text("utf-8")).get("checkpoint", 0))
    except (OSError, ValueError, TypeError, AttributeError):
        return 0


def require_same_past(out: Path, stage: str, schedule: Schedule, finished: bool) -> None:
    """Raise InputError unless a run with this schedule would have had the same steps as the run in `out` so far."""
    restart = "give another --out"
    if stage not in NOT_FROM_OWN_RESULT:
        restart = f"start anew from its result: --model {out} --out NEW"
    newest = resumable(out)
    if newest is None:
        if finished and schedule.floor < 1:
            problem = "has finished, and the cosine of its learning rate has ended: it cannot be prolonged"
            raise InputError(problem, out, f"{restart} (a run with --final-lr-frac 1 can be prolonged)")
        if finished:
            raise InputError("has finished and kept no checkpoint: it cannot be prolonged", out, restart)
        return
    step, old = newest
    if schedule.total <= old.total:
        problem = f"has {old.total} steps, and with these options {schedule.total}: it is not made longer"
        raise InputError(problem, out, "raise --max-steps or --epochs further, or repeat its options")
    for number in range(1, step + 1):
        if old(number) != schedule(number):
            problem = (
                f"cannot be prolonged from {old.total} to {schedule.total} steps: in step {number} its learning rate "
                f"was {old(number):.4g} of the peak, and would have been {schedule(number):.4g}"
            )
            raise InputError(problem, out, restart if finished else f"finish it as it was begun; then {restart}")
