"""Numbers as text: decimals, percentages, intervals, durations, and the names of models as reports write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = "–"
DISPLAY_NAMES = {
    "prompted": "base + shots",
    "large": "large base",
    "large-prompted": "large + shots",
    "public": "public tasks",
    "sft": "SFT",
    "sft-1": "SFT, 1 epoch",
    "sft-16": "SFT, 16 epochs",
    "sharpened": "SFT, sharp",
    "best16": "best of 16",
    "dpo": "DPO",
    "ppo": "PPO",
    "ppo-kl": "PPO-kl",
    "ppo-ptx": "PPO-ptx",
}
"""any other model goes by its own name"""
JUDGES = {
    "heldout": "Annotators who took no part in training",
    "training": "The annotators of the training comparisons",
    "judge": "A model as judge",
    "reward": "The reward model, for want of other judges,",
}


def display_name(model: str) -> str:
    """Return a model's name as reports write it."""
    return DISPLAY_NAMES.get(model, model)


def decimal(value: float | None, digits: int = 2) -> str:
    """Format a number with a real minus sign and commas between thousands; -0.00 is 0.00.

    >>> decimal(-0.5), decimal(None), decimal(-0.001), decimal(2313.84, 1)
    ('−0.50', '–', '0.00', '2,313.8')
    """
    if value is None:
        return NONE
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    """Format a change, with its sign."""
    return ("+" if round(value, 2) > 0 else "") + decimal(value)


def percent(value: float | None) -> str:
    """Format a share without decimals.

    >>> percent(0.625), percent(None)
    ('62%', '–')
    """
    return NONE if value is None else f"{100 * value:.0f}%"


def in_unit(value: float | None, unit: str) -> str:
    """Format a value of a claim: a share as a percentage, anything else as a number.

    >>> in_unit(0.625, "share"), in_unit(0.034, "share"), in_unit(-0.5, "gold"), in_unit(0.2461, "bits")
    ('62%', '3.4%', '−0.50', '0.246')
    """
    if value is None:
        return NONE
    if unit in ("share", "accuracy"):
        return decimal(100 * value, 1 if abs(value) < 0.1 and value else 0) + "%"
    return decimal(value, 3 if unit == "bits" else 2)


def interval(low: float | None, high: float | None) -> str:
    """Format a 95 % interval of shares."""
    return "" if low is None or high is None else f"{100 * low:.0f}–{100 * high:.0f}%"


def share(row: Mapping[str, Any] | None, key: str = "wins") -> str:
    """Format a share of a row with its 95 % interval, low to high.

    >>> share({"wins": 0.625, "low": 0.55, "high": 0.7}), share(None)
    ('62% (55–70%)', '–')
    """
    if row is None or row[key] is None:
        return NONE
    bounds = interval(row["low"], row["high"])
    return percent(row[key]) + (f" ({bounds})" if bounds else "")


def estimate(row: Mapping[str, float | None] | None, digits: int = 2, unbounded: str = NONE) -> str:
    """Format a value with its 95 % interval; a number that is None as `unbounded`.

    >>> estimate({"value": 0.5, "low": -0.25, "high": 1.25}), estimate(None)
    ('0.50 (−0.25 to 1.25)', '–')
    """
    if row is None:
        return NONE
    value, low, high = (
        unbounded if row[key] is None else decimal(row[key], digits) for key in ("value", "low", "high")
    )
    return f"{value} ({low} to {high})"


def change(row: Mapping[str, Any]) -> str:
    """Format a difference with its 95 % interval, where it has one.

    >>> change({"value": 0.5, "low": -0.25, "high": 1.25})
    '+0.50 (−0.25 to +1.25)'
    """
    if row["low"] is None or row["high"] is None:
        return signed(row["value"])
    return f"{signed(row['value'])} ({signed(row['low'])} to {signed(row['high'])})"


def half_width(low: float | None, high: float | None, scale: float = 1.0, digits: int = 2) -> str:
    """Format half the width of an interval, times `scale`; empty where there is none."""
    return "" if low is None or high is None else f"±{decimal(scale * (high - low) / 2, digits)}"


def duration(seconds: float | None) -> str:
    """Format a time.

    >>> duration(9.4), duration(451), duration(7300), duration(None)
    ('9.4 s', '7 min 31 s', '2 h 1 min', '–')
    """
    if seconds is None:
        return NONE
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if round(seconds, 1) < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def amount(value: float) -> str:
    """Format a count or a figure for a person: 2.0 million, 12,345, 0.312."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.1f} million"
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:,.1f}" if abs(value) >= 100 else decimal(value, 3 if abs(value) < 1 else 2)


def plural(count: int, noun: str) -> str:
    """Format a count with its noun.

    >>> plural(1, "battle"), plural(1200, "battle")
    ('1 battle', '1,200 battles')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
