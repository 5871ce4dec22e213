"""Memory that a run may have, and runs whose plan needs more: refused before training, with options that would fit.

The plan is a model of memory, within 15 % of what was measured: a run is refused where it exceeds what is free by more,
and warned of below that.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from amenable.errors import InputError
from amenable.ranks import local_world_size
from amenable.train.runtime import Runtime

REFUSED, WARNED = 1.2, 0.95
"""planned over free memory above which a run is refused, or warned of"""
LEAST_TOKENS = 256
"""smallest --max-tokens-per-pass that is proposed"""
PROPOSED_RANK = 16
"""--lora.rank that is proposed"""


@dataclass(frozen=True)
class Choice:
    """Options that decide how much memory a run takes."""

    max_tokens_per_pass: int
    checkpoint_activations: bool = False
    rank: int = 0
    """of adapters in place of the weights; 0 for a run as it is"""

    def difference(self, other: Choice) -> str:
        """Return this choice as options, where it differs from another."""
        options = ["--checkpoint-activations"] if self.checkpoint_activations > other.checkpoint_activations else []
        options = [f"--lora.rank {self.rank}"] * (self.rank > other.rank) + options
        fewer = self.max_tokens_per_pass < other.max_tokens_per_pass
        return " ".join(options + [f"--max-tokens-per-pass {self.max_tokens_per_pass}"] * fewer)


def require_memory(
    peak: Callable[[Choice], int], choice: Choice, runtime: Runtime, loaded: int, longest: int, adaptable: bool
) -> str:
    """Raise InputError for a run that does not fit, naming options whose planned peak does; return a warning for one
    that may not, or "".

    loaded: bytes of the plan that are in memory already. longest: tokens of the longest element, below which smaller
    passes save nothing. adaptable: True if the stage has adapters, and the run has none.
    """
    free = available_bytes(runtime.device)
    needed = peak(choice)
    if free is None or needed <= WARNED * (free + loaded):
        return ""
    have = free + loaded
    problem = f"the run needs about {gibibytes(needed)} of memory, and {gibibytes(have)} are free"
    if needed <= REFUSED * have or runtime.ignore_memory:
        return f"warning: {problem}"
    fitting: dict[frozenset[str], str] = {}
    for kinds, others in alternatives(choice, longest, adaptable).items():
        if not any(known <= kinds for known in fitting):
            sizes = ((other, peak(other)) for other in others)
            fits = next(((other, size) for other, size in sizes if size <= WARNED * have), None)
            fitting |= {kinds: f"{fits[0].difference(choice)} needs {gibibytes(fits[1])}"} if fits else {}
    hint = "; ".join(fitting.values()) or "use a smaller model"
    raise InputError(problem, how=f"{hint}; --ignore-memory goes on all the same")


def alternatives(choice: Choice, longest: int, adaptable: bool) -> dict[frozenset[str], list[Choice]]:
    """Return choices that need less memory by what they change, one option first, then several; of smaller passes the
    largest first."""
    tokens = [choice.max_tokens_per_pass]
    while tokens[-1] // 2 >= LEAST_TOKENS and tokens[-1] > longest:
        tokens.append(tokens[-1] // 2)
    changes: dict[str, bool] = {
        "rank": adaptable,
        "layers": not choice.checkpoint_activations,
        "tokens": len(tokens) > 1,
    }
    possible = [name for name, can in changes.items() if can]
    choices: dict[frozenset[str], list[Choice]] = {}
    for kinds in (frozenset(some) for count in (1, 2, 3) for some in combinations(possible, count)):
        again = choice.checkpoint_activations or "layers" in kinds
        rank = PROPOSED_RANK if "rank" in kinds else choice.rank
        counts = tokens[1:] if "tokens" in kinds else tokens[:1]
        choices[kinds] = [Choice(count, again, rank) for count in counts]
    return choices


def require_room(folder: Path, numbers: int, runtime: Runtime) -> None:
    """Raise InputError for a model of so many numbers whose weights alone, in fp32, do not fit the memory."""
    free = available_bytes(runtime.device)
    if free is not None and 4 * numbers > REFUSED * free and not runtime.ignore_memory:
        problem = f"its weights need {gibibytes(4 * numbers)} of memory, and {gibibytes(free)} are free"
        raise InputError(problem, folder, "use a smaller model; --ignore-memory goes on all the same")


def available_bytes(device: torch.device) -> int | None:
    """Return the memory that a process may still take on a device, its share of it where several train together; None
    where the system does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    free = system_bytes(Path("/")) if device.type == "cpu" else None
    return None if free is None else free // local_world_size()


def system_bytes(root: Path) -> int | None:
    """Return what the system says is available; on Linux not more than the process's control groups leave."""
    if sys.platform != "linux":
        psutil = process_library()
        return int(psutil.virtual_memory().available) if psutil is not None else None
    match = re.search(r"MemAvailable:\s+(\d+) kB", read(root / "proc/meminfo"))
    if match is None:
        return None
    return min([1024 * int(match[1]), *group_bytes(root)])


def group_bytes(root: Path) -> Iterator[int]:
    """Yield what each control group of the process leaves, of either version, its cache of files given back."""
    base = root / "sys/fs/cgroup"
    for line in read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        kind, _, path = rest.partition(":")
        if kind not in ("", "memory"):
            continue
        names = ("memory.max", "memory.current") if not kind else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        inside = Path(path.lstrip("/"))
        for group in (inside, *inside.parents):
            folder = base / kind / group
            limit, used = (read(folder / name).strip() for name in names)
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", read(folder / "memory.stat"), re.MULTILINE)
            if limit.isdigit() and used.isdigit():
                yield max(0, int(limit) - int(used) + (int(cached[1]) if cached else 0))


def read(path: Path) -> str:
    """Return a file's text; nothing of one that cannot be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def gibibytes(size: float) -> str:
    """Return such as "2.1 GiB", or "300 MiB" below one."""
    return f"{size / 2**30:.2g} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def peak_bytes() -> int | None:
    """Return the peak memory of this process so far, in bytes; None where the system does not say."""
    if sys.platform == "win32":
        psutil = process_library()
        return int(psutil.Process().memory_info().peak_wset) if psutil is not None else None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def process_library() -> Any:
    """Return psutil, which is installed where Linux's files of the system are missing; None without it."""
    try:
        return importlib.import_module("psutil")
    except ImportError:
        return None
