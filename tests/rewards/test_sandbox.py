"""Programs in the sandbox: right ones pass, and whatever floods, hangs, forks or reaches out is ended and scored 0."""

import sys
import time
from pathlib import Path

import pytest

from amenable.errors import InputError
from amenable.rewards.sandbox import Limits, require_sandbox, run_all, run_program

LIMITS = Limits(seconds=5.0, memory=512)
RIGHT = "def f(x):\n    return x + 1\n"
TESTS = ["assert f(1) == 2", "assert f(2) == 3"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the sandbox needs POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="protections of Linux")


def test_tests_that_pass_are_counted() -> None:
    right, half, wrong, broken = run_all(
        [(RIGHT, TESTS), ("def f(x): return 2", TESTS), ("def f(x): return x", TESTS), ("def f(x", TESTS)], LIMITS, 2
    )
    assert (right.ending, right.tests_passed) == ("passed", 2) and (half.ending, half.tests_passed) == ("failed", 1)
    assert (wrong.ending, wrong.tests_passed) == ("failed", 0) and "AssertionError" in wrong.output
    assert (broken.ending, broken.tests_passed) == ("failed", 0) and "SyntaxError" in broken.output


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(0)",
        "import os; os._exit(0)",
        "import sys; sys.exit()\n",
        "print('passed 2'); import os; os._exit(0)",
        "import os\nfor n in range(3, 20):\n    try: os.write(n, b'2 2\\n')\n    except OSError: pass\nos._exit(0)",
        "x = input()",
        "import os; os.environ['HOME']",
    ],
)
def test_ending_the_process_is_not_passing(program: str) -> None:
    outcome = run_program(program + "\n" + RIGHT, TESTS, LIMITS)
    assert (outcome.ending, outcome.tests_passed) == ("failed", 0)


@pytest.mark.parametrize(
    "program", ["import time; time.sleep(60)", "while True: pass", "def f(x):\n    while True: pass"]
)
def test_a_program_that_hangs_is_killed(program: str) -> None:
    begun = time.monotonic()
    outcome = run_program(program, TESTS, Limits(0.7, 512))
    assert (outcome.ending, outcome.tests_passed) == ("killed", 0) and time.monotonic() - begun < 4


@pytest.mark.parametrize(
    "program", ["while True: print('x' * 1000)", "x = [0] * 10**10", "def f(x):\n    return [0] * 10**10"]
)
def test_a_program_that_floods_or_eats_memory_is_killed(program: str) -> None:
    outcome = run_program(program, TESTS, LIMITS)
    assert (outcome.ending, outcome.tests_passed) == ("killed", 0) and len(outcome.output) <= 500


@linux
@pytest.mark.parametrize(
    "call",
    [
        "import os; os.fork()",
        "import os\nwhile True: os.fork()",
        "import os; os.system('true')",
        "import os; os.execv('/bin/true', ['true'])",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket()",
        "import os; os.kill(os.getppid(), 0)",
    ],
)
def test_a_call_that_starts_or_reaches_another_kills(call: str) -> None:
    if "seccomp" in require_sandbox(LIMITS):
        pytest.skip("this system has no seccomp")
    outcome = run_program(f"{call}\n{RIGHT}", TESTS, LIMITS)
    assert (outcome.ending, outcome.tests_passed) == ("killed", 0)


@linux
def test_files_of_others_stay_as_they_are(tmp_path: Path) -> None:
    if "landlock" in require_sandbox(LIMITS):
        pytest.skip("this system has no Landlock")
    file = tmp_path / "mine.txt"
    file.write_text("mine")
    for deed in (f"open({str(file)!r}, 'w')", f"os.remove({str(file)!r})", f"os.mkdir({str(tmp_path / 'new')!r})"):
        assert run_program(f"import os\n{deed}\n{RIGHT}", TESTS, LIMITS).ending == "failed"
    assert run_program(f"import os\nos.chmod({str(file)!r}, 0)\n{RIGHT}", TESTS, LIMITS).ending == "failed"
    assert file.read_text() == "mine" and file.stat().st_mode & 0o600 and list(tmp_path.iterdir()) == [file]


def test_honest_programs_may_use_files_and_threads() -> None:
    own = "open('own.txt', 'w').write('1')\nassert open('own.txt').read() == '1'\n"
    thread = "import threading\nthread = threading.Thread(target=print)\nthread.start()\nthread.join()\n"
    assert run_program(own + thread + RIGHT, TESTS, LIMITS).ending == "passed"
    assert run_program("import math\ndef f(x): return math.floor(x + 1.5)", TESTS, LIMITS).ending == "passed"


def test_a_test_cannot_change_the_next() -> None:
    assert run_program("x = 1", ["x = 2\nassert x == 2", "assert x == 1", "raise SystemExit"], LIMITS).tests_passed == 2


def test_a_sandbox_that_cannot_run_is_noticed() -> None:
    with pytest.raises(InputError, match="the sandbox does not run"):
        require_sandbox(Limits(0.001, 512))
