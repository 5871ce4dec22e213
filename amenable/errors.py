"""Errors with a one-line message for the user: a mistake in the input, a reward that fails, or an interrupted run."""

from collections.abc import Mapping, Sequence
from pathlib import Path


class InputError(ValueError):
    """Mistake in the user's input: what is wrong, where, and how to fix it.

    The command line prints it without a traceback and ends with exit code 2.
    """

    def __init__(self, what: str, where: str | Path | None = None, how: str | None = None):
        self.what, self.where, self.how = what, where, how
        line = what if where is None else f"{where}: {what}"
        super().__init__(line if how is None else f"{line}; {how}")


def describe(error: BaseException) -> str:
    """Return an exception's type and its message, in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


class RewardError(InputError):
    """Failure of a reward while it scores: an exception, a hang, or scores that are none.

    name: of the reward. rows: the completions that it was to score, each with its prompt, the prompt's columns, and
    the scores of the rewards before it.
    """

    def __init__(self, error: InputError, name: str, rows: Sequence[Mapping[str, object]]):
        super().__init__(error.what, error.where, error.how)
        self.name, self.rows = name, rows


class Interrupted(Exception):
    """Run stopped by Ctrl-C or SIGTERM, after a checkpoint of `step`; the same command resumes it."""

    def __init__(self, out: Path, step: int):
        self.out, self.step = out, step
        super().__init__(f"stopped: {out} is saved at step {step}; repeat the command to resume it")
