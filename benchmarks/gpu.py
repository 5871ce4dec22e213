"""Check and measure a CUDA device: one command, at most eight minutes.

    python -m benchmarks.gpu                                # a table, and runs/gpu.json
    python -m benchmarks.gpu --only training,decoding
    python -m benchmarks.gpu --device cpu --tiny            # every part in seconds; the numbers mean nothing

Each part has a time limit. A part that fails or runs out of time keeps the figures that it had, and the next one begins
in a new process. The file is written after every part. A new part is a function from a Setting to figures in
benchmarks/gpu_parts.py, and a line of its list PARTS.
"""

from __future__ import annotations

import json
import multiprocessing
import platform
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import torch
import tyro

from amenable.errors import InputError
from amenable.files import write_text
from amenable.train.runtime import DeviceOptions, start_runtime
from benchmarks.gpu_parts import PARTS, Figure, Part, Setting, device_name


@dataclass(frozen=True)
class Config:
    """Check and measure a device."""

    device: str = "cuda"
    """cuda, cuda:1 or cpu"""
    tiny: bool = False
    """every part in seconds, at sizes that say nothing about speed"""
    only: str = ""
    """parts to run, with commas between; without it all"""
    seconds: float = 480.0
    """limit of the whole command"""
    threads: int = 0
    """processor threads; 0 is one a core"""
    out: Path = Path("runs/gpu.json")
    """the figures, with their units"""

    def __post_init__(self) -> None:
        names = [part.name for part in PARTS]
        for name in self.only.split(",") if self.only else []:
            if name not in names:
                raise InputError(f"unknown part: {name}", "--only", f"choose from {', '.join(names)}")
        if torch.device(self.device).type == "cuda" and not torch.cuda.is_available():
            raise InputError("this machine has no CUDA device", "--device", "use --device cpu --tiny for a trial")

    @property
    def parts(self) -> list[Part]:
        """Parts to run."""
        return [part for part in PARTS if not self.only or part.name in self.only.split(",")]

    @property
    def options(self) -> DeviceOptions:
        """bf16 on a CUDA device; on a processor fp32."""
        return DeviceOptions(self.device, "fp32" if self.device == "cpu" else "bf16", self.threads)


@dataclass(frozen=True)
class Result:
    """Figures of a part; `error` says why it is incomplete, or is empty."""

    part: str
    figures: list[Figure]
    seconds: float
    error: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts, write the file, print the table. Returns 1 if a part failed, else 0."""
    config = tyro.cli(Config, args=arguments, prog="benchmarks.gpu", description=__doc__)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for result in run_parts(config.parts, config.options, config.tiny, config.seconds):
        results.append(result)
        print(f"{result.part}: {result.error or 'done'} ({result.seconds:.0f} s)", file=sys.stderr, flush=True)
        write_text(config.out, json.dumps(report(config, results), indent=1) + "\n")
    print("\n".join(table(results)))
    return int(any(result.error for result in results))


def run_parts(parts: Sequence[Part], options: DeviceOptions, tiny: bool, seconds: float) -> Iterator[Result]:
    """Run the parts in order in a process of their own, in a new one after each that fails."""
    context, deadline = multiprocessing.get_context("spawn"), perf_counter() + seconds
    waiting = list(parts)
    while waiting:
        receiver, sender = context.Pipe(duplex=False)
        worker = context.Process(target=work, args=(list(waiting), options, tiny, sender))
        worker.start()
        sender.close()
        failed = False
        while waiting and not failed:
            part = waiting.pop(0)
            result = follow(part.name, receiver, min(part.seconds, deadline - perf_counter()))
            failed = bool(result.error)
            yield result
        worker.kill()
        worker.join()


def follow(name: str, receiver: Connection, limit: float) -> Result:
    """Collect a part's figures up to its end, its failure, the end of its process or `limit` seconds."""
    start, figures, error = perf_counter(), list[Figure](), None
    while error is None:
        left = limit - (perf_counter() - start)
        try:
            if not receiver.poll(max(left, 0.0)):
                error = f"stopped at its limit of {max(limit, 0):.3g} s"
            elif isinstance(message := receiver.recv(), Figure):
                figures.append(message)
            else:
                error = message
        except EOFError:
            error = "its process was killed (no memory left?)"
    return Result(name, figures, perf_counter() - start, error)


def work(parts: list[Part], options: DeviceOptions, tiny: bool, sender: Connection) -> None:
    """Send the figures of each part, then an empty text; or the error of the first part that fails, and end."""
    setting = Setting(start_runtime(options), tiny)
    for part in parts:
        torch.manual_seed(0)
        try:
            for figure in part.function(setting):
                sender.send(figure)
        except Exception as error:
            traceback.print_exc()
            sender.send(f"{type(error).__name__}: {error}")
            return
        sender.send("")
        setting.release_memory()


def report(config: Config, results: list[Result]) -> dict[str, object]:
    """Return everything that is written to the file."""
    return {
        "device": device_name(torch.device(config.device)),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "tiny": config.tiny,
        "parts": [asdict(result) for result in results],
    }


def table(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of a Markdown table: a line for each figure, and for each part that is incomplete."""
    yield "| part | figure | value | share |"
    yield "|---|---|--:|---|"
    for result in results:
        for figure in result.figures:
            yield f"| {result.part} | {figure.name} | {number(figure.value)} {figure.unit} | {figure.of} |"
        if result.error:
            first_line = result.error.splitlines()[0].replace("|", "\\|")
            yield f"| {result.part} | failed | | {first_line} |"


def number(value: float) -> str:
    """Return a number with four digits or more, never as a power."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
