"""Errors with a one-line message for the user: a mistake in the input, or an interrupted run."""

from pathlib import Path


class InputError(ValueError):
    """Mistake in the user's input: what is wrong, where, and how to fix it.

    The command line prints it without a traceback and ends with exit code 2.
    """

    def __init__(self, what: str, where: str | Path | None = None, how: str | None = None):
        self.what, self.where, self.how = what, where, how
        line = what if where is None else f"{where}: {what}"
        super().__init__(line if how is None else f"{line}; {how}")


class Interrupted(Exception):
    """Run stopped by Ctrl-C or SIGTERM, after a checkpoint of `step`; the same command resumes it."""

    def __init__(self, out: Path, step: int):
        self.out, self.step = out, step
        super().__init__(f"stopped: {out} is saved at step {step}; repeat the command to resume it")
