"""Several processes of one run: kills of any of them at any moment, and what a step of twice the rows costs in two.

    python -m benchmarks.processes --kills 50
    python -m benchmarks.processes --scaling

Kills: each stage runs once undisturbed in two processes; then again and again, one of the processes, drawn by the seed,
killed (SIGKILL) at a random moment, until it is done: every file must be the same. Models are tiny. Scaling: the same
rows for each process, one thread each; the efficiency is the tokens a second of N processes over N times those of one.
"""

from __future__ import annotations

import json
import os
import random
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
from amenable.train.run_options import plain_values
from benchmarks.crash import MACHINE, OWN_FILES, TINY, plan, start, wait

STAGES = ("sft", "reward", "dpo", "ppo", "grpo")
AT_MOST = 5
"""kills of one run, before it may end"""
TOKENS = 8192
"""of a pretraining step, for each process"""
PROMPTS = 32
"""of a step of PPO, for each process"""


@dataclass(frozen=True)
class Options:
    """Options of the benchmark: kills, or scaling."""

    kills: int = 50
    """shared among the stages"""
    scaling: bool = False
    """measure the efficiency in place of kills"""
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


def run(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start a command without output."""
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def torture(name: str, config: Any, folder: Path, kills: int, options: Options, draw: random.Random) -> bool:
    """Kill processes of a stage's runs, and print a line. Returns True if all its files are those undisturbed."""
    begun = time.monotonic()
    if run(command(name, config, folder / "whole", options.processes)).wait() != 0:
        raise InputError(f"'{name}' does not run undisturbed", folder)
    seconds, wanted = time.monotonic() - begun, manifest_of(folder / "whole", OWN_FILES)
    killed, first, runs, resumes, differing = 0, 0, 0, 0, set[str]()
    while killed < kills:
        out = folder / f"run-{runs}"
        arguments = command(name, config, out, options.processes)
        for _ in range(min(AT_MOST, kills - killed)):
            process = run(arguments)
            time.sleep(draw.uniform(0.2, 1) * seconds)
            members = children(process.pid)
            if process.poll() is not None or len(members) < options.processes:
                break
            victim = draw.randrange(options.processes)
            os.kill(members[victim], 9)
            killed, first = killed + 1, first + (victim == 0)
            if process.wait(timeout=120) == 0:
                raise InputError("ended with exit code 0 after a kill", out)
            resumes += any(out.glob("checkpoint-*"))
        while run(arguments).wait() != 0:
            raise InputError("does not go on after a kill", out)
        runs, written = runs + 1, manifest_of(out, OWN_FILES)
        differing |= {file for file in {*wanted, *written} if wanted.get(file) != written.get(file)}
    verdict = f"DIFFERS in {', '.join(sorted(differing))}" if differing else "exact"
    counts = f"{killed} kills ({first} of the first process), {resumes} resumes, {runs} runs compared"
    print(f"{name:7} {counts}: {verdict}   {time.monotonic() - begun:.0f} s", flush=True)
    return not differing


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


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(0 if main(chosen, Path(temporary)) else 1)
