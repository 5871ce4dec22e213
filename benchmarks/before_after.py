"""Time and peak memory of SFT, reward, DPO and PPO in two checkouts of this project, in turn.

    python -m benchmarks.before_after OLD_TREE NEW_TREE --out table.md

A model of 5M parameters and rows that begin with a system prompt of 30 tokens are made first. Then each command runs as
a process of its own, old, new, old, new ...; each new run is compared with the old one just before it, and the table
has medians of those ratios. Processor seconds hardly depend on what else the machine does; seconds by the clock do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

import tyro
from tyro.conf import Positional

from amenable.errors import InputError

SPELLINGS = {
    "device": ("--device", "--machine.device"),
    "precision": ("--precision", "--machine.precision"),
    "threads": ("--threads", "--machine.threads"),
    "keep_weights": ("--keep-weights", "--select"),
    "reward": ("--reward", "--reward-model"),
    "num_traced_prompts": ("--num-traced-prompts", "--watched"),
    "adaptive_kl_target": ("--adaptive-kl-target", "--kl-target"),
}
"""options that have had several names, the newest first; the others are spelled as they are called here"""

STAGES: dict[str, dict[str, str]] = {
    "sft": {
        "data": "demonstrations.jsonl",
        "epochs": "1",
        "batch_size": "16",
        "dropout": "0.1",
        "optimizer.learning_rate": "2e-4",
        "validation": "few-demonstrations.jsonl",
        "keep_weights": "last",
    },
    "reward": {
        "data": "rankings.jsonl",
        "epochs": "1",
        "prompts_per_step": "8",
        "validation": "few-rankings.jsonl",
        "demonstrations": "few-demonstrations.jsonl",
        "optimizer.learning_rate": "2e-4",
        "head_learning_rate": "2e-3",
    },
    "dpo": {
        "data": "pairs.jsonl",
        "epochs": "1",
        "batch_size": "16",
        "validation": "few-pairs.jsonl",
        "eval_steps": "1000",
        "eval_prompts": "0",
        "optimizer.learning_rate": "1e-4",
    },
    "ppo": {
        "data": "prompts.jsonl",
        "reward": "reward-model",
        "prompts_per_step": "32",
        "max_new_tokens": "48",
        "temperature": "1",
        "kl_coef": "0.1",
        "adaptive_kl_target": "0",
        "optimizer.learning_rate": "1e-4",
        "critic_learning_rate": "2e-4",
        "num_traced_prompts": "0",
    },
}
"""options of each command: what follows from the model by default is given, so that both checkouts do the same work"""
FILES = {"data", "validation", "demonstrations", "reward", "model"}
"""options whose values are files of benchmarks/before_after_inputs.py"""
OPTIONAL = {"eval_prompts", "head_learning_rate"}
"""options left out where a checkout does not have them"""


@dataclass(frozen=True)
class Config:
    """Compare two checkouts."""

    old: Positional[Path]
    """folder of the older checkout"""
    new: Positional[Path]
    """folder of the newer one"""
    only: str = ""
    """commands to compare, with commas between; without it all"""
    repeats: int = 7
    """runs of each command in each checkout"""
    steps: int = 24
    """training steps of a command; PPO has a quarter"""
    size: Literal["5M", "tiny"] = "5M"
    """tiny runs everything in seconds and says nothing about speed"""
    precision: Literal["fp32", "bf16"] = "bf16"
    threads: int = 1
    """processor threads of a command"""
    out: Path | None = None
    """also write the table to this file"""

    def __post_init__(self) -> None:
        for name, value in (("--repeats", self.repeats), ("--steps", self.steps), ("--threads", self.threads)):
            if value < 1:
                raise InputError(f"a value below 1: {value}", name, "use 1 or more")
        for name in self.only.split(",") if self.only else []:
            if name not in STAGES:
                raise InputError(f"unknown command: {name}", "--only", f"choose from {', '.join(STAGES)}")
        for tree in (self.old, self.new):
            if not (tree / "amenable" / "cli.py").is_file():
                raise InputError(f"no checkout of this project: {tree}", how="name a folder that holds amenable/")

    @property
    def stages(self) -> list[str]:
        """Commands to compare."""
        return self.only.split(",") if self.only else list(STAGES)


@dataclass(frozen=True)
class Usage:
    """Resources of one process: seconds by the clock and of the processor, peak resident bytes."""

    clock: float
    processor: float
    memory: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print each line as soon as it is known. Returns 1 if a command failed, else 0."""
    config = tyro.cli(Config, args=arguments, prog="benchmarks.before_after", description=__doc__)
    lines = []
    for line in report(config):
        lines.append(line)
        print(line, flush=True)
    if config.out is not None:
        config.out.write_text("\n".join(lines) + "\n", "utf-8")
    return int(any("| failed |" in line for line in lines))


def report(config: Config) -> Iterator[str]:
    """Yield the table, a line for each command."""
    yield (
        "| command | old, s | new, s | old : new, processor | least to most | old : new, clock | old, MiB | new, MiB "
        "| memory, new : old |"
    )
    yield "|---|--:|--:|--:|---|--:|--:|--:|--:|"
    with tempfile.TemporaryDirectory() as folder:
        make_inputs(Path(folder), config)
        for stage in config.stages:
            try:
                yield table_line(stage, compare(stage, Path(folder), config))
            except subprocess.CalledProcessError as error:
                print(error.stderr, file=sys.stderr)
                yield f"| {stage} | failed | {str(error).replace('|', ' ')} | | | | | | |"


def make_inputs(folder: Path, config: Config) -> None:
    """Write models and data that both checkouts read. Not in this process, which has to stay small: a process that it
    starts counts its memory as its own."""
    arguments = [str(folder), str(config.steps), config.size]
    subprocess.run([sys.executable, "-m", "benchmarks.before_after_inputs", *arguments], check=True)


def compare(stage: str, folder: Path, config: Config) -> list[tuple[Usage, Usage]]:
    """Run a command in both checkouts in turn; return the pairs (old, new)."""
    trees = config.old.absolute(), config.new.absolute()
    commands = [command(stage, tree, folder, config) for tree in trees]
    pairs = []
    for number in range(config.repeats):
        old, new = (
            measure([*words, "--out", str(folder / f"{stage}-{number}-{i}")], trees[i], folder)
            for i, words in enumerate(commands)
        )
        pairs.append((old, new))
    return pairs


def command(stage: str, tree: Path, folder: Path, config: Config) -> list[str]:
    """Return a command in the option names of a checkout."""
    words = [sys.executable, "-m", "amenable", stage]
    known = option_names([*words, "--help"], tree)
    options = {"model": "model", **STAGES[stage], "device": "cpu", "precision": config.precision}
    options |= {"threads": str(config.threads), "save_steps": "0", "warmup_steps": "0"}
    if stage == "ppo":
        options["max_steps"] = str(max(1, config.steps // 4))
    for name, value in options.items():
        spellings = SPELLINGS.get(name, (f"--{name.replace('_', '-')}",))
        option = next((spelling for spelling in spellings if spelling in known), None)
        if option is None and name in OPTIONAL:
            continue
        if option is None:
            raise InputError(f"amenable {stage} of {tree} has no option {' or '.join(spellings)}")
        words += [option, str(folder / value) if name in FILES else value]
    return words


def option_names(words: Sequence[str], tree: Path) -> set[str]:
    """Return the options that a checkout's help lists."""
    done = subprocess.run(words, env=environment(tree), capture_output=True, text=True, check=True)
    return set(re.findall(r"--[a-z0-9][a-z0-9.-]*", done.stdout))


def environment(tree: Path) -> dict[str, str]:
    """Return the environment in which a checkout's code is imported, and nothing beside it."""
    return {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1", "COLUMNS": "200"}


def measure(words: Sequence[str], tree: Path, folder: Path) -> Usage:
    """Run a command to its end. Raises CalledProcessError with what it printed, if it fails."""
    with tempfile.TemporaryFile() as printed:
        start = perf_counter()
        process = subprocess.Popen(words, env=environment(tree), cwd=folder, stdout=printed, stderr=printed)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            printed.seek(0)
            text = printed.read().decode("utf-8", "replace")
            raise subprocess.CalledProcessError(process.returncode, words, stderr=text[-4000:])
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Usage(seconds, usage.ru_utime + usage.ru_stime, memory)


def table_line(stage: str, pairs: Sequence[tuple[Usage, Usage]]) -> str:
    """Return a command's line: medians, and medians of the ratios within each pair."""
    ratios = [old.processor / new.processor for old, new in pairs]
    seconds = [median(pair[side].processor for pair in pairs) for side in (0, 1)]
    memory = [median(pair[side].memory for pair in pairs) / 2**20 for side in (0, 1)]
    clock = median(old.clock / new.clock for old, new in pairs)
    share = median(new.memory / old.memory for old, new in pairs)
    return (
        f"| {stage} | {seconds[0]:.1f} | {seconds[1]:.1f} | **{median(ratios):.2f}** | {min(ratios):.2f} to "
        f"{max(ratios):.2f} | {clock:.2f} | {memory[0]:,.0f} | {memory[1]:,.0f} | **{share:.2f}** |"
    )


if __name__ == "__main__":
    sys.exit(main())
