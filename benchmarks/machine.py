"""Machine and measuring: its name, its ceilings, seconds of a call, peak memory of a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, TypeVar

import torch

from amenable.train.runtime import DeviceOptions, processor_instructions, processor_name, start_runtime

T = TypeVar("T")
Precision = Literal["fp32", "bf16"]

GEMM = (2048, 768, 768)
COPIED = 64 << 20  # numbers of fp32 copied: 256 MiB, beyond any cache
CEILING_TRIES = 7


def machine_line(threads: int) -> str:
    """Return processor, cores, threads and versions: numbers of different machines are not comparable."""
    used = threads or torch.get_num_threads()
    cores = os.cpu_count() or 1
    return (
        f"{processor()}, {cores} core{'s' if cores != 1 else ''}, {used} thread{'s' if used != 1 else ''}, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def processor() -> str:
    """Return the processor's name and instructions."""
    return f"{processor_name()} ({processor_instructions()})"


def alone(function: Callable[..., T], *arguments: Any) -> T | None:
    """Return a function's result from a fresh process with a peak of memory of its own; None if it was killed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            return None


def seconds_of(function: Callable[[], T]) -> tuple[float, T]:
    """Return the seconds of a call, and its result."""
    start = perf_counter()
    result = function()
    return perf_counter() - start, result


def peak_bytes() -> int:
    """Return the peak of this process's memory, which is at least its parent's memory when it was started."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def print_lines(lines: Iterator[str], out: Path | None, program: str) -> int:
    """Print each line as soon as it is known, also to the file `out`. Returns the exit code."""
    if out is not None:
        try:
            out.write_text("", "utf-8")
        except OSError as error:
            print(f"{program}: {error}", file=sys.stderr)
            return 2
    for line in lines:
        print(line, flush=True)
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    return 0


@dataclass(frozen=True)
class Ceiling:
    """Speed of this machine, the best of a few tries."""

    fp32: float
    """operations a second of a matrix product"""
    bf16: float
    copy: float
    """bytes read and written a second"""

    def flops(self, precision: Precision) -> float:
        return self.fp32 if precision == "fp32" else self.bf16

    def describe(self) -> str:
        return (
            f"Ceiling: {'x'.join(map(str, GEMM))} matrix product {self.fp32 / 1e9:,.0f} GFLOP/s in fp32, "
            f"{self.bf16 / 1e9:,.0f} in bf16; memory copy {self.copy / 1e9:,.1f} GB/s (read and written)"
        )


def measure_ceiling(threads: int) -> Ceiling:
    """Measure matrix products and a memory copy."""
    start_runtime(DeviceOptions(device="cpu", precision="fp32", threads=threads))
    return Ceiling(product_rate(torch.float32), product_rate(torch.bfloat16), copy_rate())


def product_rate(dtype: torch.dtype, calls: int = 4) -> float:
    """Return FLOP/s of [rows, inner] @ [inner, columns]."""
    rows, inner, columns = GEMM
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(shape, generator=generator).to(dtype) for shape in ((rows, inner), (inner, columns)))
    out = left @ right

    def multiply() -> None:
        for _ in range(calls):
            torch.mm(left, right, out=out)

    return 2 * rows * inner * columns * calls / min(seconds_of(multiply)[0] for _ in range(CEILING_TRIES))


def copy_rate() -> float:
    """Return bytes read and written a second."""
    source, target = torch.ones(COPIED), torch.zeros(COPIED)
    seconds = min(seconds_of(lambda: target.copy_(source))[0] for _ in range(CEILING_TRIES))
    return 2 * source.nbytes / seconds
