"""The process of the sandbox, run as the script that it is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from amenable.rewards import sandbox_process
from amenable.rewards.sandbox_process import AUDIT, CALLS, CLONE, METADATA, PRLIMIT, run_tests

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the sandbox needs POSIX")


def open_tests(tmp_path: Path, tests: list[str]) -> int:
    (tmp_path / "tests.json").write_text(json.dumps(["key", tests]))
    return os.open(tmp_path / "tests.json", os.O_RDONLY)


def test_tests_see_the_programs_names_and_not_each_others(tmp_path: Path) -> None:
    tests = open_tests(tmp_path, ["assert f() == 1", "f = None", "assert f() == 1", "assert f() == 2"])
    assert run_tests("def f(): return 1", tests) == ("key", 3)


def test_a_main_block_does_not_run(tmp_path: Path) -> None:
    program = "x = 1\nif __name__ == '__main__':\n    x = input()\n"
    assert run_tests(program, open_tests(tmp_path, ["assert x == 1"])) == ("key", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="protections of Linux")
def test_the_script_reports_its_protections_before_the_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import os; os._exit(0)")
    reader, writer = os.pipe()
    tests = open_tests(tmp_path, [])
    arguments = [sys.executable, "-I", sandbox_process.__file__, "program.py", str(tests), str(writer), "5", "512"]
    done = subprocess.run(arguments, cwd=tmp_path, pass_fds=(tests, writer), timeout=30)
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read().split()[0] == "limits" and done.returncode == 0


def test_numbers_of_calls_are_of_the_same_machines() -> None:
    assert CALLS.keys() == METADATA.keys() == AUDIT.keys() == CLONE.keys() == PRLIMIT.keys()
    for machine in CALLS:
        numbers = [*CALLS[machine].split(), *METADATA[machine].split()]
        assert len(set(numbers)) == len(numbers) and str(CLONE[machine]) not in numbers
