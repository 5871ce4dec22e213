"""Form of a test: the columns of its rows, the task rows made of these, and the measurement of a model on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from amenable.evaluation.answering import GenerationConfig, LoadedModel
from amenable.evaluation.tasks.options import TaskOptions
from amenable.functional.calibration import calibration_error, reliability
from amenable.functional.statistics import bootstrap_mean, wilson
from amenable.rewards.model_judge import ModelJudge
from amenable.seeds import seeded_generator
from amenable.train.log import Progress

Columns = Mapping[str, Any]
Metrics = dict[str, Any]
Interval = tuple[float, float | None, float | None]
"""value, and the ends of its 95 % interval"""


@dataclass(frozen=True)
class Examinee:
    """A model with the settings of its evaluation on tasks."""

    model: LoadedModel
    max_tokens: int
    """ids of one pass"""
    generation: GenerationConfig
    progress: Progress
    options: TaskOptions = field(default_factory=TaskOptions)
    judge: ModelJudge | None = None
    """grades answers; None where there is none"""


@dataclass(frozen=True)
class Form:
    """Form of a published test."""

    name: str
    columns: tuple[str, ...]
    """columns that all of its rows have"""
    convert: Callable[[Columns], Sequence[Any]]
    """row of the file -> task rows; raises ValueError, KeyError, TypeError, IndexError where it is none"""
    measure: Callable[[Examinee, Sequence[Any]], Metrics]
    """model, task rows -> metrics: accuracy, low, high and n of the test's main metric, right or values row by row,
    and others under "metrics", as (value, low, high)"""
    fits: Callable[[Columns], bool] = lambda columns: True
    """a further condition that tells the form from others with these columns"""
    generates: bool = False
    """True where answers are generated"""
    reads: frozenset[str] = frozenset()
    """options of tasks that the measurement reads; "judge" where it needs one"""

    def matches(self, columns: Columns) -> bool:
        """Return True for a row of this form."""
        return all(columns.get(name) is not None for name in self.columns) and self.fits(columns)


def share(hits: Sequence[bool]) -> Interval:
    """Return the share of True with Wilson's interval, (share, low, high)."""
    return (sum(hits) / len(hits), *wilson(sum(hits), len(hits)))


def mean(values: Sequence[float]) -> Interval:
    """Return a mean with its bootstrap interval, (mean, low, high); a single value has no interval."""
    return finite_interval(bootstrap_mean(torch.tensor(values, dtype=torch.float64), seeded_generator(0, "task")))


def finite_interval(values: tuple[float, float, float]) -> Interval:
    """Return (value, low, high) with None for ends that are infinite."""
    value, low, high = values
    return (value, low, high) if math.isfinite(low) else (value, None, None)


def metrics_of(main: str, values: Sequence[float], others: Mapping[str, Interval]) -> Metrics:
    """Return the metrics of a test: `values` of its rows are those of the metric `main` (True and False give a share,
    numbers a mean), `others` stand beside it."""
    hits = all(type(value) is bool for value in values)
    value, low, high = summary(values)
    return {
        **{"metric": main, "accuracy": value, "low": low, "high": high, "n": len(values)},
        "right" if hits else "values": list(values),
        "metrics": {main: (value, low, high), **others},
    }


def measured_rows(
    main: str,
    measures: Mapping[str, Sequence[float | None]],
    examples: Sequence[Mapping[str, Any]],
    others: Mapping[str, Interval] | None = None,
) -> Metrics:
    """Return the metrics of a test with several measures of each row, so that two models can be compared by each.

    measures: of each row True or False, a number, or None where a measure does not apply; `main` is one that always
    does. examples: of each row its `prompt` and `answers`, a list of texts; `labels` of these, a `note` on the row and
    a `remark` on the answers, where there are any. others: metrics of all rows together.
    """
    known = {name: [value for value in values if value is not None] for name, values in measures.items()}
    intervals = {name: summary(values) for name, values in known.items() if values and name != main}
    metrics = metrics_of(main, known[main], {**intervals, **(others or {})})
    texts = [text for example in examples for text in example["answers"]]
    shown = {name: list(measures[name]) for name in (main, *intervals)}
    return {**metrics, "rows": shown, "examples": list(examples), "texts": texts}


def summary(values: Sequence[float]) -> Interval:
    """Return the share of True, or the mean of numbers, with its interval."""
    return share([bool(value) for value in values]) if all(type(value) is bool for value in values) else mean(values)


def calibration_metrics(confidence: Sequence[float], right: Sequence[bool]) -> Metrics:
    """Return the calibration error under "metrics", as (value, low, high), the bins of the reliability diagram, and the
    probabilities with what was right under "confidence", row by row."""
    p, hits = torch.tensor(confidence, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
    error = finite_interval(calibration_error(p, hits, seeded_generator(0, "calibration")))
    rows = [[own, float(hit)] for own, hit in zip(confidence, right)]
    return {"metrics": {"ece": error}, "reliability": reliability(p, hits), "confidence": rows}


def by_group(groups: Sequence[str], values: Sequence[bool]) -> dict[str, Interval]:
    """Return the share of True in each group, (share, low, high), where there are several groups."""
    names = sorted(set(groups))
    parts = {name: [value for group, value in zip(groups, values) if group == name] for name in names}
    return {name: share(part) for name, part in parts.items()} if len(names) > 1 else {}


def mean_by_group(groups: Sequence[str], values: Sequence[float]) -> dict[str, Interval]:
    """Return the mean of values in each group, (mean, low, high)."""
    names = sorted(set(groups))
    return {name: mean([value for other, value in zip(groups, values) if other == name]) for name in names}


def text(columns: Columns, *names: str) -> list[str]:
    """Return the texts of some columns. Raises ValueError for one that is no text."""
    values = [columns[name] for name in names]
    if not all(isinstance(value, str) for value in values):
        raise ValueError(f"{' and '.join(names)} must be text")
    return values
