"""Reward of code by its tests, in a sandbox: `code:COLUMN`, the share of the column's tests that a program passes.

A completion's program is its last fenced block of code, or all of it where it has none. The column holds a test, or a
list of tests: each is a program of assert statements that runs after the completion's, with its names.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from amenable.errors import InputError
from amenable.rewards.sandbox import Limits, require_sandbox, run_all

BLOCK = re.compile(
    r"^[ \t]*```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE | re.IGNORECASE
)


class CodeReward:
    """Reward function that runs code; it counts programs that passed all their tests, failed, or were killed."""

    def __init__(self, column: str, limits: Limits, workers: int = 0):
        self.column, self.limits = column, limits
        self.workers = workers or os.cpu_count() or 1
        self.counts: Counter[str] = Counter()

    def __call__(self, prompts: Sequence[Any], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        """Return the share of its tests that each completion's program passes."""
        if self.column not in columns:
            raise InputError(f"needs the column '{self.column}'", f"code:{self.column}", "the data has no such column")
        tests = [listed_tests(value, self.column) for value in columns[self.column]]
        programs = list(zip(map(program_of, completions), tests, strict=True))
        outcomes = run_all(programs, self.limits, self.workers)
        self.counts.update(outcome.ending for outcome in outcomes)
        return [outcome.tests_passed / len(each) for outcome, each in zip(outcomes, tests)]

    def take_counts(self) -> dict[str, float]:
        """Return the programs that passed, failed and were killed since the last call."""
        counts = {ending: float(self.counts[ending]) for ending in ("passed", "failed", "killed")}
        self.counts.clear()
        return counts


def code_reward(column: str, allowed: bool, limits: Limits, workers: int = 0) -> tuple[CodeReward, str]:
    """Return the reward of code by a column's tests, and a line on protections that this system lacks, or "".

    InputError where code may not be run, or cannot.
    """
    spec = f"code:{column}"
    if not column:
        raise InputError(f"'{spec}' names no column of tests", how="write code:tests")
    if not allowed:
        hint = "allow it with --allow-code-execution, on a machine that you can lose"
        raise InputError("runs programs that a model has written", spec, hint)
    missing = require_sandbox(limits)
    meaning = {"landlock": "programs can write files of this user", "seccomp": "programs reach the network"}
    lacking = "; ".join(f"no {name}: {meaning.get(name, 'no limits')}" for name in missing)
    return CodeReward(column, limits, workers), f"warning: {spec} runs with {lacking}" if lacking else ""


def program_of(completion: str) -> str:
    """Return the program in a completion."""
    blocks = BLOCK.findall(completion)
    return blocks[-1] if blocks else completion


def listed_tests(value: Any, column: str) -> list[str]:
    """Return the tests of a column's value: a text, a list of texts, or such a list as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            value = [value]
    tests = value if isinstance(value, list) else [value]
    if not tests or not all(isinstance(test, str) and test.strip() for test in tests):
        raise InputError(
            f"the column '{column}' has {value!r:.80}", f"code:{column}", "give a test, or a list of tests"
        )
    return tests
