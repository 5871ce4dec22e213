"""The benchmark of several processes: its commands, and the processes that it kills."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from amenable.stages import sft
from benchmarks import processes


def test_a_command_repeats_the_options_in_a_folder_of_its_own(tmp_path: Path) -> None:
    words = processes.command("sft", sft.Config(epochs=3), tmp_path / "runs" / "a", 2)
    assert words[2:] == ["amenable", "sft", "--config", str(tmp_path / "runs" / "a.yaml"), "--processes", "2"]
    values = yaml.safe_load((tmp_path / "runs" / "a.yaml").read_text("utf-8"))
    assert values["epochs"] == 3 and values["out"] == str(tmp_path / "runs" / "a")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_children_are_the_processes_that_one_has_started() -> None:
    program = "import subprocess, sys; p = subprocess.Popen(['sleep', '20']); print(p.pid, flush=True); p.wait()"
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert processes.children(parent.pid) == [pid]
    subprocess.run(["kill", "-9", str(pid)])
    parent.wait()
    assert processes.children(parent.pid) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_kill_waits_for_the_group_and_for_a_row_of_its_metrics(tmp_path: Path) -> None:
    row = f"echo '{{}}' >> {tmp_path}/metrics.jsonl"
    group = subprocess.Popen(["sh", "-c", f"sleep 0.2; sleep 20 & sleep 20 & {row}; {row}; wait"])
    members = processes.members_at(group, 2, tmp_path, 2)
    assert len(members) == 2 and processes.rows_in(tmp_path) == 2
    subprocess.run(["kill", "-9", *map(str, members)])
    processes.members_at(group, 2, tmp_path, 9)
    assert group.poll() is not None and processes.rows_in(tmp_path / "none") == 0
