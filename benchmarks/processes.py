"""Several processes of one run: kills of any of them at any moment, what a step of twice the rows costs in two, and the
memory of each.

    python -m benchmarks.processes --kills 50
    python -m benchmarks.processes --kills 20 --fsdp --async-save
    python -m benchmarks.processes --kills 10 --tensor-parallel 2
    python -m benchmarks.processes --scaling
    python -m benchmarks.processes --memory

Kills: each stage runs once undisturbed in two processes; then again and again, one of the processes, drawn by the seed,
killed (SIGKILL) at a random moment after a random row of its metrics, until it is done: every file must be the same.
Models are tiny. Scaling: the same rows for each process, one thread each; the efficiency is the tokens a second of N
processes over N times those of one.
Memory: the largest resident memory of each process in two steps of a larger model, beyond the program's own, with whole
weights, with weights and with products that the processes divide, and what the run's plan says.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
import yaml

from amenable.errors import InputError
from amenable.files import manifest_of
from amenable.models import presets
from amenable.train.optimizer import OptimizerConfig
from amenable.train.run_options import plain_values
from benchmarks.crash import MACHINE, OWN_FILES, TINY, plan, start, wait

STAGES = ("sft", "reward", "dpo", "ppo", "grpo")
AT_MOST = 5
"""kills of one run, before it may end"""
TOKENS = 8192
"""of a pretraining step, for each process"""
PROMPTS = 32
"""of a step of PPO, for each process"""
LARGE = "gpt2"
"""preset whose memory is measured"""


@dataclass(frozen=True)
class Options:
    """Options of the benchmark: kills, or scaling."""

    kills: int = 50
    """shared among the stages"""
    scaling: bool = False
    """measure the efficiency in place of kills"""
    memory: bool = False
    """measure the peak memory of each process in place of kills"""
    fsdp: bool = False
    """divide the weights of the runs that are killed among their processes"""
    tensor_parallel: int = 1
    """processes that divide the products of the models of runs that are killed"""
    async_save: bool = False
    """write the checkpoints of the runs that are killed in a thread"""
    processes: int = 2
    seed: int = 0


def main(options: Options, root: Path) -> bool:
    """Measure. Returns True if every file was the same after kills."""
    presets.PRESETS["two-layers"] = TINY
    calls = plan(root / "whole")
    wanted = ("world", "tokenizer", "pretrain", "sft", "sample", "annotate", "reward")
    for name in wanted:
        stage, config = calls[name]
        if wait(start(lambda stage=stage, config=config: stage.run(config))) != 0:
            raise InputError(f"'{name}' does not run", root)
    if options.scaling:
        measure_scaling(options, calls, root)
    if options.memory:
        measure_memory(options, calls["pretrain"][1], root)
    if options.scaling or options.memory:
        return True
    draw = random.Random(options.seed)
    shares = {name: len(range(i, options.kills, len(STAGES))) for i, name in enumerate(STAGES)}
    return all([torture(name, calls[name][1], root / "killed" / name, shares[name], options, draw) for name in STAGES])


def command(name: str, config: Any, out: Path, processes: int) -> list[str]:
    """Write a run's options beside its folder and return its command."""
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(plain_values(replace(config, out=out))), "utf-8")
    return [sys.executable, "-m", "amenable", name, "--config", str(file), "--processes", str(processes)]


def run(arguments: list[str], log: Path | None = None) -> subprocess.Popen[bytes]:
    """Start a command; what it shows is appended to a log, if one is given."""
    with (log or Path(os.devnull)).open("ab") as file:
        return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=file)


def finish(arguments: list[str], log: Path) -> None:
    """Run a command to its end. InputError, with the last line that it showed, if it fails."""
    if code := run(arguments, log).wait():
        lines = log.read_text("utf-8", "replace").split("\n")[-2:]
        raise InputError(f"ended with exit code {code} ({lines[0]})", log, "a run has to go on after a kill")


def torture(name: str, config: Any, folder: Path, kills: int, options: Options, draw: random.Random) -> bool:
    """Kill processes of a stage's runs, and print a line. Returns True if all its files are those undisturbed."""
    begun = time.monotonic()
    optimizer = replace(config.optimizer, fsdp=options.fsdp)
    config = replace(
        config, optimizer=optimizer, async_save=options.async_save, tensor_parallel=options.tensor_parallel
    )
    if run(command(name, config, folder / "whole", options.processes)).wait() != 0:
        raise InputError(f"'{name}' does not run undisturbed", folder)
    wanted, rows = manifest_of(folder / "whole", OWN_FILES), rows_in(folder / "whole")
    pause = float(json.loads((folder / "whole" / "finished.json").read_text("utf-8"))["seconds"]) / rows
    killed, first, runs, resumes, differing = 0, 0, 0, 0, set[str]()
    while killed < kills:
        out = folder / f"run-{runs}"
        arguments = command(name, config, out, options.processes)
        for _ in range(min(AT_MOST, kills - killed)):
            process = run(arguments, out.with_suffix(".log"))
            members = members_at(process, options.processes, out, draw.randrange(rows))
            time.sleep(draw.uniform(0, 1) * pause)
            if process.poll() is not None:
                break
            victim = draw.randrange(options.processes)
            with contextlib.suppress(ProcessLookupError):
                os.kill(members[victim], 9)
            if process.wait(timeout=120) == 0:
                if (out / "finished.json").exists():  # the process had ended before its kill
                    break
                raise InputError("ended with exit code 0 after a kill", out)
            killed, first = killed + 1, first + (victim == 0)
            resumes += any(out.glob("checkpoint-*"))
        finish(arguments, out.with_suffix(".log"))
        runs, written = runs + 1, manifest_of(out, OWN_FILES)
        differing |= {file for file in {*wanted, *written} if wanted.get(file) != written.get(file)}
    verdict = f"DIFFERS in {', '.join(sorted(differing))}" if differing else "exact"
    counts = f"{killed} kills ({first} of the first process), {resumes} resumes, {runs} runs compared"
    print(f"{name:7} {counts}: {verdict}   {time.monotonic() - begun:.0f} s", flush=True)
    return not differing


def members_at(process: subprocess.Popen[bytes], count: int, out: Path, row: int) -> list[int]:
    """Return the `count` processes of a group once its run has written so many rows of metrics, or before that has
    ended; none if it has ended before they were there."""
    members: list[int] = []
    while process.poll() is None and not (len(members) == count and rows_in(out) >= row):
        time.sleep(0.05)
        members = children(process.pid)
    return members


def rows_in(out: Path) -> int:
    """Return the number of rows of metrics that a run has written."""
    file = out / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, in order; of Linux."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        return [int(word) for task in tasks.iterdir() for word in (task / "children").read_text("ascii").split()]
    except OSError:
        return []


def measure_scaling(options: Options, calls: dict[str, tuple[Any, Any]], root: Path) -> None:
    """Print tokens a second and efficiency of one process and of several, for pretraining and PPO."""
    print("stage     processes  tokens/s  efficiency", flush=True)
    for name in ("pretrain", "ppo"):
        alone = 0.0
        for count in (1, options.processes):
            rows: dict[str, Any] = {"device": MACHINE, "save_steps": 0}
            if name == "pretrain":
                rows |= {"model": "nano", "tokens_per_step": TOKENS * count, "max_steps": 12, "eval_steps": 100}
            else:
                rows |= {"prompts_per_step": PROMPTS * count, "max_steps": 6, "max_new_tokens": 64, "sample_steps": 100}
                rows |= {"num_traced_prompts": 0}
            out = root / "scaling" / f"{name}-{count}"
            arguments = command(name, replace(calls[name][1], **rows), out, count)
            if run(arguments).wait() != 0:
                raise InputError(f"'{name}' does not run in {count} processes", out)
            rate = float(json.loads((out / "finished.json").read_text("utf-8"))["tokens_per_second"])
            alone = alone or rate
            print(f"{name:9} {count:9}  {rate:8,.0f}  {rate / (count * alone):10.2f}", flush=True)


def measure_memory(options: Options, config: Any, root: Path) -> None:
    """Print the peak memory of each process of a pretraining run and the plan's figure, with whole weights and with
    divided weights or products."""
    program = (
        "from amenable.stages import pretrain; from amenable.train.memory_limit import peak_bytes as p; print(p())"
    )
    own = int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout)
    print("weights   peak of each process, MiB   planned", flush=True)
    for name in ("alone", "whole", "divided", "products"):
        count = 1 if name == "alone" else options.processes
        optimizer = OptimizerConfig(learning_rate=1e-4, fsdp=name == "divided")
        rows = {"model": LARGE, "tokens_per_step": 256 * count, "max_steps": 2, "eval_tokens": 512}
        rows |= {"tensor_parallel": count} if name == "products" else {}
        out = root / "memory" / name
        arguments = command("pretrain", replace(config, optimizer=optimizer, save_steps=1, **rows), out, count)
        with out.with_suffix(".log").open("w+", encoding="utf-8") as log:
            process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=log)
            peaks = watch(process, alone=count == 1)
            log.seek(0)
            planned = re.search(r"about ([\d.]+ [GM]iB)", log.read())
        if process.returncode or planned is None:
            raise InputError("does not run", out)
        sizes = ", ".join(f"{(peak - own) / 2**20:,.0f}" for peak in peaks)
        print(f"{name:9} {sizes:27} {planned[1]}", flush=True)


def watch(process: subprocess.Popen[bytes], alone: bool = False) -> list[int]:
    """Wait for a process; return the peak bytes of each of its children, or its own where it works alone."""
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in [process.pid] if alone else children(process.pid):
            with contextlib.suppress(OSError, StopIteration):
                lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
                peaks[pid] = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
        time.sleep(0.05)
    return list(peaks.values())


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(0 if main(chosen, Path(temporary)) else 1)
