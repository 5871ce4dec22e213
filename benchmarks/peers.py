"""Side by side with TRL: the same ids, shape and precision, step by step in turn, medians and their ratio.

    make bench                                               # sets the peers up, then runs this
    python -m benchmarks.peers --size 5M --only sft,dpo
    python -m benchmarks.peers --size 124M --repeats 3       # fewer rows a step: three processes share the memory

Each side is a process of its own that makes a step on request, so that both meet the same machine. The peer
runs with the allocator's default settings and with those that this project uses, and the better one counts. Ours calls
the stages' own functions; the peer's side (benchmarks/peer_trl.py) its own trainers, without gradient checkpointing.
PPO has been taken out of TRL: its peer (benchmarks/peer_ppo.py) is the last version that had it. Pretraining has no
peer: its row gives the share of the ceiling that is measured in the same run. Targets: benchmarks/targets.py, judged
from a prototype on a processor with AMX.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from statistics import median
from typing import IO, Any, Literal

import torch
import tyro

from amenable.errors import InputError
from amenable.train import plan
from amenable.train.runtime import DeviceOptions, start_runtime
from benchmarks import machine, speed, workloads
from benchmarks.machine import Ceiling, peak_bytes, print_lines, seconds_of
from benchmarks.peer_work import SIZES, WORK
from benchmarks.targets import MEMORY, Measured, failed_line, measured_line, table_head
from benchmarks.workloads import SizeName

HERE = Path(__file__).parent
TUNED = {
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""the allocator's settings that train/runtime.py makes for ourselves"""
PRETRAIN = "pretrain"
"""the row without a peer"""
VLLM = "vllm-32"
"""the row whose peer is vLLM, which few have for a processor"""
ROWS = (PRETRAIN, *WORK)
ONLY_135M = ("sft-lora", "dpo-lora", "ppo-lora", "decode-1")
SMALL_CHANGES = (*ONLY_135M, "decode-32")
"""rows at the shape of SmolLM2; the first of them are measured at no other"""


@dataclass(frozen=True)
class Config:
    """Measure ratios of tokens a second to TRL and transformers."""

    peer: Path = Path(".venv-peers/bin/python")
    """the interpreter of an environment with trl"""
    peer_ppo: Path = Path(".venv-peers-ppo/bin/python")
    """another, with the last trl that has PPO, for the row of that name"""
    peer_vllm: Path = Path(".venv-peers-vllm/bin/python")
    """another, with a vLLM for processors, for the row of that name, which is left out where there is none"""
    size: Literal["both", "5M", "124M", "135M", "smoke"] = "both"
    """135M is the shape of SmolLM2; smoke runs everything in a minute and says nothing about speed"""
    precision: Literal["fp32", "bf16"] = "bf16"
    only: str = ""
    """rows to measure, with commas between; without it all"""
    repeats: int = 5
    """timed steps of each side, after one that warms up"""
    threads: int = 2
    allocators: Literal["both", "tuned"] = "both"
    """how the peer is run; tuned: without the allocator's defaults, for want of memory or time"""
    out: Path | None = None
    """also write the table to this file"""

    def __post_init__(self) -> None:
        plan.require_at_least(1, self, "repeats", "threads")
        for name in self.only.split(",") if self.only else []:
            if name not in ROWS:
                raise InputError(f"unknown row: {name}", "--only", f"choose from {', '.join(ROWS)}")

    @property
    def rows(self) -> list[str]:
        """Rows to measure. vLLM is among them if it is set up or named; it has no heads as small as smoke's."""
        if self.only:
            return [row for row in ROWS if row in self.only.split(",")]
        without = set() if self.peer_vllm.exists() and self.size != "smoke" else {VLLM}
        if self.size == "135M":
            return [row for row in ROWS if row in SMALL_CHANGES]
        return [row for row in ROWS if row not in without and (row not in ONLY_135M or self.size == "smoke")]

    @property
    def sizes(self) -> list[SizeName]:
        return ["5M", "124M"] if self.size == "both" else [self.size]

    def peer_of(self, row: str) -> tuple[Path, str]:
        """Return the interpreter and the script of the row's peer."""
        if row.startswith("ppo"):
            return self.peer_ppo, "peer_ppo.py"
        return (self.peer_vllm, "peer_vllm.py") if row == VLLM else (self.peer, "peer_trl.py")


class Failed(Exception):
    """Row that could not be measured; the message is its last line of errors."""


@dataclass(frozen=True)
class Side:
    """Process that makes steps on request, and the file of its errors."""

    name: str
    process: subprocess.Popen[str]
    errors: IO[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a row as soon as it is measured. Returns 1 if a row failed, 2 for a mistake, else 0."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["ours"]:
        serve(arguments[1], json.loads(arguments[2]))
        return 0
    try:
        config = tyro.cli(Config, args=arguments, prog="benchmarks.peers", description=__doc__)
        for row in config.rows:
            python, _ = config.peer_of(row)
            if row in WORK and not python.exists():
                target = "make bench-vllm" if row == VLLM else "make bench-peers"
                raise InputError("no such interpreter", python, f"{target} sets it up")
    except InputError as error:
        print(f"benchmarks.peers: {error}", file=sys.stderr)
        return 2
    failed: list[str] = []
    return print_lines(report(config, failed), config.out, "benchmarks.peers") or int(bool(failed))


def report(config: Config, failed: list[str]) -> Iterator[str]:
    """Yield the lines of a Markdown page: machine, ceiling, the table row by row, commands. Adds the names of rows that
    fail to `failed`."""
    yield machine.machine_line(config.threads)
    ceiling = machine.alone(machine.measure_ceiling, config.threads) if PRETRAIN in config.rows else None
    yield from ["", ceiling.describe()] if ceiling else []
    yield from ["", *table_head()]
    for size, row in product(config.sizes, config.rows):
        try:
            measured = pretraining(size, config, ceiling) if row == PRETRAIN else compare(row, size, config)
            yield measured_line(size, row, measured)
        except Failed as error:
            failed.append(f"{size} {row}")
            yield failed_line(size, row, str(error))
    yield from ["", f"{config.precision}; medians of {config.repeats}. Memory is to be at most {MEMORY} of the peer's."]
    if not config.only and VLLM not in config.rows:
        yield f"No row {VLLM}: make bench-vllm sets it up, where its packages can be had."
    yield from ["", "Each row by itself:", ""]
    yield from (f"    {command(size, row, config)}" for size, row in product(config.sizes, config.rows))


def command(size: SizeName, row: str, config: Config) -> str:
    """Return the command that measures this row alone, as it was measured here."""
    values = {name: getattr(config, name) for name in ("precision", "repeats", "threads", "allocators")}
    defaults = {field.name: field.default for field in fields(Config)}
    options = [f" --{name} {value}" for name, value in values.items() if value != defaults[name]]
    return f"python -m benchmarks.peers --size {size} --only {row}{''.join(options)}"


def pretraining(size: SizeName, config: Config, ceiling: Ceiling | None) -> Measured:
    """Measure our pretraining with AdamW as a share of the ceiling."""
    if ceiling is None:
        raise Failed("the process that measures the ceiling was killed")
    arguments = "pretrain-adamw", workloads.SIZES[size], config.precision, config.threads, config.repeats
    try:
        measured = machine.alone(speed.measure, *arguments)
    except Exception as error:
        raise Failed(f"ours: {type(error).__name__}: {error}") from error
    if measured is None:
        raise Failed("ours: killed (no memory left?)")
    (rates,) = measured.rates.values()
    return Measured(median(rates), median(measured.flop_rates) / ceiling.flops(config.precision))


def compare(row: str, size: SizeName, config: Config) -> Measured:
    """Measure a row: ours, the peer, and the peer with a tuned allocator, one step of each in turn."""
    work = WORK[row](SIZES[size])
    options = json.dumps({"size": size, "precision": config.precision, "threads": config.threads})
    handed = {**work.handed, "bf16": config.precision == "bf16", "threads": config.threads}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "work.json"
        file.write_text(json.dumps(handed), "utf-8")
        python, script = config.peer_of(row)
        peer = [str(python), str(HERE / script), str(file)]
        commands: list[tuple[str, list[str], dict[str, str]]]
        commands = [("ours", [sys.executable, "-m", "benchmarks.peers", "ours", row, options], {})]
        commands += [("the tuned peer", peer, TUNED)]
        commands += [("the peer", peer, {})] if config.allocators == "both" else []
        sides = [stack.enter_context(start_side(*command)) for command in commands]
        for side in sides:
            step(side)
        timed = [[step(side) for side in sides] for _ in range(config.repeats)]
    ours, *theirs = [work.tokens / median(result["seconds"] for result in results) for results in zip(*timed)]
    memory, *others = [result["peak"] for result in timed[-1]]
    tuned, default = theirs[0], theirs[1] if theirs[1:] else None
    return Measured(ours, ours / max(theirs), default, tuned, memory / max(1, min(others)))


@contextmanager
def start_side(name: str, command: list[str], environment: dict[str, str]) -> Iterator[Side]:
    """Start a process that makes steps on request; kill it at the end."""
    quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    neighbours = {"PYTHONSAFEPATH": ""}  # a peer's script imports its neighbours
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **quiet, **neighbours, **environment},
        )
        try:
            yield Side(name, process, errors)
        finally:
            process.kill()
            process.communicate()


def step(side: Side) -> dict[str, float]:
    """Request one step of a side; return its seconds and peak memory. Raises Failed if the side has ended."""
    assert side.process.stdin is not None
    read_line(side, "ready")
    try:
        side.process.stdin.write("go\n")
        side.process.stdin.flush()
    except BrokenPipeError:
        raise Failed(last_words(side)) from None
    return json.loads(read_line(side, "{"))


def read_line(side: Side, beginning: str) -> str:
    """Return the next line of a side that begins with `beginning`."""
    assert side.process.stdout is not None
    for line in iter(side.process.stdout.readline, ""):
        if line.startswith(beginning):
            return line
    raise Failed(last_words(side))


def last_words(side: Side) -> str:
    """Return the name of a side that has ended, and its last line of errors."""
    code = side.process.wait()
    side.errors.seek(0)
    why = f"killed by signal {-code}" if code < 0 else last_line(side.errors.read()) or f"ended with code {code}"
    return f"{side.name}: {why}"


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1].strip()


def serve(row: str, options: dict[str, Any]) -> None:
    """Run our side: build the row's work and make steps on request."""
    runtime = start_runtime(DeviceOptions(device="cpu", precision=options["precision"], threads=options["threads"]))
    torch.manual_seed(0)
    before = peak_bytes()
    make = WORK[row](SIZES[options["size"]]).ours(runtime)
    while True:
        print("ready", flush=True)
        if sys.stdin.readline().strip() != "go":
            return
        seconds, _ = seconds_of(make)
        print(json.dumps({"seconds": seconds, "peak": peak_bytes() - before}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
