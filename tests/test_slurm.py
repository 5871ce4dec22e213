"""The SLURM script: a dry run of it, with programs of the test's own in place of SLURM's and of Python."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "examples" / "slurm.sh"
SRUN = """#!/bin/bash
echo "srun $1" >> "$RECORD"
shift
for task in 0 1 2 3; do SLURM_PROCID=$task SLURM_LOCALID=$((task % 2)) "$@" || exit; done
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "$RECORD"
if [ "$1" = show ]; then printf 'node7\\nnode9\\n'; fi
"""
PYTHON = """#!/bin/bash
ranks="$RANK of $WORLD_SIZE, $LOCAL_RANK of $LOCAL_WORLD_SIZE"
echo "$ranks at $MASTER_ADDR:$MASTER_PORT, $OMP_NUM_THREADS: $*" >> "$RECORD"
exit "$CODE"
"""
JOB = {
    "SLURM_JOB_ID": "40003",
    "SLURM_JOB_NODELIST": "node[7,9]",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_CPUS_PER_TASK": "8",
}
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script for bash")


def dry_run(folder: Path, code: int) -> tuple[int, list[str]]:
    """Run the script where every process ends with `code`; return its exit code and what was called."""
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "python": PYTHON}.items():
        (folder / name).write_text(text, "utf-8")
        (folder / name).chmod(0o755)
    record = folder / "record"
    own = {"PATH": f"{folder}:{os.environ['PATH']}", "RECORD": str(record), "CODE": str(code)}
    command = ["bash", str(SCRIPT), "sft", "--data", "two words.jsonl"]
    done = subprocess.run(command, env={**JOB, **own}, capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, record.read_text("utf-8").splitlines()


def test_each_task_is_a_process_of_the_group(tmp_path: Path) -> None:
    code, calls = dry_run(tmp_path, 0)
    assert code == 0 and calls[:2] == ["scontrol show hostnames node[7,9]", "srun --wait=60"]
    assert calls[2:] == [
        f"{rank} of 4, {rank % 2} of 2 at node7:20003, 8: -m amenable sft --data two words.jsonl" for rank in range(4)
    ]


def test_a_run_that_was_stopped_is_queued_again(tmp_path: Path) -> None:
    code, calls = dry_run(tmp_path, 130)
    assert code == 130 and calls[-1] == "scontrol requeue 40003"


def test_a_run_that_failed_is_not(tmp_path: Path) -> None:
    code, calls = dry_run(tmp_path, 2)
    assert code == 2 and not any("requeue" in call for call in calls)


def test_the_script_is_one_of_bash_with_options_for_sbatch() -> None:
    assert subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True).returncode == 0
    options = [line.split("=")[0] for line in SCRIPT.read_text("utf-8").splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --nodes", "#SBATCH --ntasks-per-node", "#SBATCH --signal"} <= set(options)
