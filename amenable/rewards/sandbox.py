"""Programs that a model has written, each run with its tests in a process of its own (sandbox_process.py).

A process has a temporary directory, no environment but a few names, and no input. It is killed, with all that it has
started, at its time limit and when it writes more than OUTPUT_LIMIT bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from amenable.errors import InputError
from amenable.rewards.sandbox_process import OUT_OF_MEMORY

OUTPUT_LIMIT = 2**16
"""bytes of output"""
SCRIPT = Path(__file__).with_name("sandbox_process.py")
ENVIRONMENT = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
PROTECTIONS = ("limits", "landlock", "seccomp")

Ending = Literal["passed", "failed", "killed"]


@dataclass(frozen=True)
class Limits:
    """Limits of a program: seconds of the processor and of the clock, MiB of address space."""

    seconds: float = 10.0
    memory: int = 1024


@dataclass(frozen=True)
class Outcome:
    """Outcome of a program: `passed` if it has passed all its tests, `killed` if a limit, or a call, ended it."""

    ending: Ending
    tests_passed: int
    output: str
    """the end of its output and errors"""
    protections: tuple[str, ...] = ()
    """those that held, of PROTECTIONS"""


def run_all(programs: Sequence[tuple[str, Sequence[str]]], limits: Limits, workers: int) -> list[Outcome]:
    """Run programs (source, tests), `workers` at once, and return their outcomes in order."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda program: run_program(program[0], program[1], limits), programs))


def require_sandbox(limits: Limits) -> list[str]:
    """Run a trial and return the protections that this system lacks. InputError where programs cannot run at all."""
    if os.name != "posix":
        raise InputError("code cannot be run on this system", "code:", "use Linux or macOS, or WSL")
    outcome = run_program("x = 1", ["assert x == 1"], limits)
    if outcome.ending != "passed":
        raise InputError(
            f"the sandbox does not run: {outcome.output.strip() or outcome.ending}",
            "code:",
            "raise --code-timeout or --code-memory",
        )
    return [name for name in PROTECTIONS if name not in outcome.protections]


def run_program(source: str, tests: Sequence[str], limits: Limits) -> Outcome:
    """Run a program with its tests."""
    key = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="amenable-code-", ignore_cleanup_errors=True) as folder:
        Path(folder, "program.py").write_bytes(source.encode("utf-8", "replace"))
        with tempfile.TemporaryFile() as test_file:
            test_file.write(json.dumps([key, list(tests)]).encode())
            test_file.seek(0)
            reader, writer = os.pipe()
            descriptors = (test_file.fileno(), writer)
            arguments = ["program.py", *map(str, descriptors), str(limits.seconds), str(limits.memory)]
            process = subprocess.Popen(
                [sys.executable, "-I", str(SCRIPT), *arguments],
                cwd=folder,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                start_new_session=True,
            )
            os.close(writer)
        in_time = False
        try:
            output, result, in_time = read_all(process, reader, time.monotonic() + limits.seconds)
        finally:
            kill_session(process, 0.2 if in_time else 0.0)
            os.close(reader)
    protections, _, last = result.decode("utf-8", "replace").partition("\n")
    answer = last.split()
    passed = int(answer[1]) if len(answer) == 2 and answer[0] == key else 0
    killed = not in_time or process.returncode < 0 or process.returncode == OUT_OF_MEMORY
    ending: Ending = "passed" if passed == len(tests) and answer else "killed" if killed else "failed"
    return Outcome(ending, passed, output.decode("utf-8", "replace")[-500:], tuple(protections.split()))


def read_all(process: subprocess.Popen[bytes], result: int, deadline: float) -> tuple[bytes, bytes, bool]:
    """Read output and result until both end. Returns them, and False at the deadline or above OUTPUT_LIMIT."""
    assert process.stdout is not None
    pipes = {process.stdout.fileno(): bytearray(), result: bytearray()}
    output, in_time = pipes[process.stdout.fileno()], True
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while in_time and selector.get_map():
            for event, _ in selector.select(max(deadline - time.monotonic(), 0)):
                chunk = os.read(event.fd, 2**16)
                pipes[event.fd] += chunk
                if not chunk:
                    selector.unregister(event.fd)
            in_time = time.monotonic() < deadline and len(output) <= OUTPUT_LIMIT
    return bytes(output[:OUTPUT_LIMIT]), bytes(pipes[result][:OUTPUT_LIMIT]), in_time


def kill_session(process: subprocess.Popen[bytes], patience: float) -> None:
    """Kill a process and its group, unless it ends within `patience` seconds, and wait for its end."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
