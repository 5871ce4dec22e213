"""Targets of the comparison with a peer, and the lines of its table.

The numbers were judged from a prototype on a processor with AMX, before anything here was measured. There a matrix
product costs little, so that whatever else a side does weighs more: a processor without it gives smaller ratios.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Target:
    """Ratio to the peer's tokens a second; for pretraining the share of the ceiling."""

    reach: float
    """least that is enough"""
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
    ("5M", "grpo"): Target(3, 5),
    ("5M", "rloo"): Target(3, 5),
    ("5M", "online-dpo"): Target(2, 4),
    ("5M", "decode-32"): Target(3, 5),
    ("5M", "decode-128"): Target(3, 5),
    ("124M", "pretrain"): Target(0.40, 0.55),
    ("124M", "sft"): Target(4, 6),
    ("124M", "sft-packed"): Target(2.5, 4),
    ("124M", "reward-pairs"): Target(2.5, 4),
    ("124M", "reward-k9"): Target(10, 16),
    ("124M", "dpo"): Target(4, 6),
    ("124M", "ppo"): Target(3, 6),
    ("124M", "grpo"): Target(3, 5),
    ("124M", "rloo"): Target(3, 5),
    ("124M", "online-dpo"): Target(2, 4),
    ("124M", "decode-32"): Target(2, 4),
    ("124M", "decode-128"): Target(2, 4),
    ("124M", "vllm-32"): Target(1.2, 2),
    ("135M", "sft-lora"): Target(2.5, 4),
    ("135M", "dpo-lora"): Target(3, 4),
    ("135M", "ppo-lora"): Target(2, 4),
    ("135M", "decode-1"): Target(1.5, 2),
    ("135M", "decode-32"): Target(2, 4),
}
"""by size and row"""


@dataclass(frozen=True)
class Measured:
    """Measurement of a row."""

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
    """Return the first two lines of the table."""
    names = ("size", "row", "ours, tokens/s", "peer", "peer, tuned malloc", "ratio to its better")
    return [
        table_line(*names, "reach / aim", "reached", "memory, ours : peer"),
        table_line("---", "---", *["---:"] * 7, fill="-"),
    ]


def measured_line(size: str, row: str, measured: Measured) -> str:
    """Return the line of a row that was measured, with its target if there is one."""
    show = percent if row == "pretrain" else plain
    target = TARGETS.get((size, row))
    wanted = f"{show(target.reach)} / {show(target.aim)}" if target else ""
    reached = ("yes" if measured.ratio >= target.reach else "no") if target else ""
    rates = [f"{rate:,.0f}" if rate is not None else "" for rate in (measured.ours, measured.default, measured.tuned)]
    ratio = f"{measured.ratio:.1%}" if row == "pretrain" else f"{measured.ratio:.2f}"
    return table_line(size, row, *rates, ratio, wanted, reached, memory_cell(measured.memory))


def failed_line(size: str, row: str, why: str) -> str:
    """Return the line of a row that could not be measured, with the reason."""
    return table_line(size, row, "failed", "", "", "", "", "", why.replace("|", "\\|"))


def memory_cell(share: float | None) -> str:
    """Return the share of the peer's memory, marked if it is above MEMORY."""
    if share is None:
        return ""
    return f"{share:.2f}" if share <= MEMORY else f"{share:.2f}, above {MEMORY}"


def table_line(*cells: str, fill: Literal[" ", "-"] = " ") -> str:
    """Return a line of the table, in widths that keep it readable as plain text."""
    widths = (5, 12, 14, 7, 18, 19, 11, 7, 19)
    padded = [
        cell.rjust(width, fill) if column > 1 else cell.ljust(width, fill)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"


def plain(number: float) -> str:
    return f"{number:g}"


def percent(share: float) -> str:
    return f"{share:.0%}"
