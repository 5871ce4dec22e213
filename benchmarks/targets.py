"""What the comparison with a peer is meant to show, beside what it shows.

The numbers were judged from a prototype on a processor with AMX, before anything here was measured. There a matrix
product costs little, so that whatever else a side does weighs more: a processor without it gives smaller ratios.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """How often the peer's tokens a second, or for pretraining which share of the ceiling."""

    reach: float
    """less is not enough"""
    aim: float
    """what ought to be possible"""


MEMORY = 0.6
"""at most this share of the peer's memory"""
TARGETS: dict[tuple[str, str], Target] = {
    ("5M", "sft"): Target(6, 8),
    ("5M", "sft-packed"): Target(3.5, 5),
    ("5M", "reward-pairs"): Target(3, 5),
    ("5M", "reward-k9"): Target(12, 20),
    ("5M", "dpo"): Target(6, 9),
    ("5M", "ppo"): Target(4, 10),
    ("5M", "decode-32"): Target(3, 5),
    ("5M", "decode-128"): Target(3, 5),
    ("124M", "pretrain"): Target(0.40, 0.55),
    ("124M", "sft"): Target(4, 6),
    ("124M", "sft-packed"): Target(2.5, 4),
    ("124M", "reward-pairs"): Target(2.5, 4),
    ("124M", "reward-k9"): Target(10, 16),
    ("124M", "dpo"): Target(4, 6),
    ("124M", "ppo"): Target(3, 6),
    ("124M", "decode-32"): Target(2, 4),
    ("124M", "decode-128"): Target(2, 4),
    ("124M", "vllm-32"): Target(1.2, 2),
}
"""by size and row"""


@dataclass(frozen=True)
class Found:
    """What one row measured."""

    ours: float
    """tokens a second"""
    ratio: float
    """to the better of the peer's; for pretraining the share of the ceiling"""
    default: float | None = None
    """the peer's tokens a second with the allocator as it comes"""
    tuned: float | None = None
    """and with the settings this project uses"""
    memory: float | None = None
    """our peak, the peer's smaller one being 1"""


def table_head() -> list[str]:
    """The first two lines of the table."""
    names = ("size", "row", "ours, tokens/s", "peer", "peer, tuned malloc", "ratio to its better")
    return [
        table_line(*names, "reach / aim", "reached", "memory, ours : peer"),
        table_line("---", "---", *["---:"] * 7, fill="-"),
    ]


def found_line(size: str, row: str, found: Found) -> str:
    """A row that was measured, beside its target where there is one."""
    show = percent if row == "pretrain" else plain
    target = TARGETS.get((size, row))
    wanted = f"{show(target.reach)} / {show(target.aim)}" if target else ""
    reached = ("yes" if found.ratio >= target.reach else "no") if target else ""
    rates = [f"{rate:,.0f}" if rate is not None else "" for rate in (found.ours, found.default, found.tuned)]
    ratio = f"{found.ratio:.1%}" if row == "pretrain" else f"{found.ratio:.2f}"
    return table_line(size, row, *rates, ratio, wanted, reached, memory_cell(found.memory))


def failed_line(size: str, row: str, why: str) -> str:
    """A row that could not be measured, and why."""
    return table_line(size, row, "failed", "", "", "", "", "", why.replace("|", "\\|"))


def memory_cell(share: float | None) -> str:
    """The share of the peer's memory, and whether it is too much."""
    if share is None:
        return ""
    return f"{share:.2f}" if share <= MEMORY else f"{share:.2f}, above {MEMORY}"


def table_line(*cells: str, fill: Literal[" ", "-"] = " ") -> str:
    """One line of the table; widths that keep it readable as plain text."""
    widths = (5, 12, 14, 7, 18, 19, 11, 7, 19)
    padded = [
        cell.rjust(width, fill) if place > 1 else cell.ljust(width, fill)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def plain(number: float) -> str:
    return f"{number:g}"


def percent(share: float) -> str:
    return f"{share:.0%}"
