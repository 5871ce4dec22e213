"""Table at the end of an evaluation: models x metrics, and the win rate of each against one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from amenable.evaluation.preference import DECODINGS

NOTHING = "–"
JUDGES = ("heldout", "judge", "reward", "training")
"""kinds of judges, the first of which with votes is shown"""


def percent(value: float) -> str:
    """Return a share as per cent, without decimals."""
    return f"{value:.0%}"


def decimals(digits: int) -> Callable[[float], str]:
    """Return a format with this number of decimals."""
    return lambda value: f"{value:.{digits}f}"


COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("gold", "gold", decimals(2)),
    ("truthful", "truthful", percent),
    ("hallucination", "halluc.", percent),
    ("rude", "rude", percent),
    ("harmful", "harmful", percent),
    ("follows", "follows", percent),
    ("reward", "reward", decimals(2)),
    ("kl", "KL", decimals(2)),
    ("perplexity", "ppl", decimals(1)),
    ("length", "words", decimals(1)),
    ("ended", "ended", percent),
    ("entropy", "entropy", decimals(1)),
    ("bpb", "bits/byte", decimals(3)),
)
"""key of evaluation.json, heading, format"""


def table_of(evaluation: dict[str, Any]) -> Table:
    """Return the models of evaluation.json in rows, sampled and greedy; metrics that none of them has are left out."""
    rows = [
        (name, decoding, figures if decoding == "sampled" else figures["greedy"])
        for decoding in DECODINGS
        for name, figures in evaluation["models"].items()
    ]
    measured = [(name, decoding, figures) for name, decoding, figures in rows if figures]
    columns = [column for column in COLUMNS if any(figures.get(column[0]) is not None for *_, figures in measured)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "answers"):
        table.add_column(heading, no_wrap=True)
    for _, heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, decoding, figures in measured:
        values = [(figures.get(key), written) for key, _, written in columns]
        table.add_row(name, decoding, *[NOTHING if value is None else written(value) for value, written in values])
    return table


def task_table(tasks: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """Return the table of tasks x models: every metric with its 95 % interval."""
    names = list(dict.fromkeys(name for models in tasks.values() for name in models))
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("task", "rows", "metric", *names):
        table.add_column(heading, justify="left" if heading in ("task", "metric") else "right", no_wrap=True)
    for task, models in tasks.items():
        first = next(iter(models.values()))
        for metric in first["metrics"]:
            cells = [interval(models[name]["metrics"].get(metric)) if name in models else NOTHING for name in names]
            cut = f" ({first['cut']} prompts cut)" if first.get("cut") else ""
            table.add_row(task, f"{first['n']}{cut}", metric, *cells)
            task = ""
    return table


def interval(values: Sequence[float | None] | None) -> str:
    """Return (value, low, high) as text with three decimals; without ends, the value alone."""
    numbers = [f"{value:.3f}" for value in values or () if value is not None]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]" if len(numbers) == 3 else "".join(numbers) or NOTHING


def preference_lines(evaluation: dict[str, Any], reference: str) -> Iterator[str]:
    """Return a line of each model's win rate against the reference, or the first model where that is none of them."""
    names, votes = list(evaluation["models"]), evaluation["preference"]
    judges = next((name for name in JUDGES if any(row["judges"] == name for row in votes)), None)
    before = reference if reference in names else names[0]
    for row in votes:
        if row["judges"] == judges and before in (row["a"], row["b"]):
            first = row["b"] == before
            equal = row.get("length_controlled")
            at_equal_length = f"; at equal length {win_rate(equal, first)})" if equal is not None else ""
            yield (
                f"{row['a'] if first else row['b']} preferred to {before}, {row['decoding']}: {win_rate(row, first)}, "
                f"{row['n']} prompts, judges: {judges}){at_equal_length}"
            )


def win_rate(row: dict[str, Any], first: bool) -> str:
    """Return a win rate of the first model, or of the second, as text with its interval in an open bracket."""
    values = (row["wins"], row["low"], row["high"]) if first else (1 - row["wins"], 1 - row["high"], 1 - row["low"])
    return "{:.0%} ({:.0%} to {:.0%}".format(*values)
