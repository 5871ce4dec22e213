"""What a user can mend, said in one line."""

from pathlib import Path


class InputError(ValueError):
    """A mistake in what the user gave: says where it is, what it is, and how to mend it.

    The command line prints it without a traceback and ends with exit code 2.
    """

    def __init__(self, what: str, where: str | Path | None = None, how: str | None = None):
        self.what, self.where, self.how = what, where, how
        line = what if where is None else f"{where}: {what}"
        super().__init__(line if how is None else f"{line}; {how}")


class Interrupted(Exception):
    """The user stopped a run (Ctrl-C, SIGTERM); everything up to `step` is saved and the same command goes on."""

    def __init__(self, out: Path, step: int):
        self.out, self.step = out, step
        super().__init__(f"stopped: {out} is saved at step {step}; the same command goes on from there")
