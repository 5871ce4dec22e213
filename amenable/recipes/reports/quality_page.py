"""Report of `amenable quality`: every measure of every test with its interval, models side by side by paired tests, the
worst answers first.

Differences are of each other model from the first, over the same rows. Their p-values are corrected together (Holm,
1979), those of measures for which neither side is better left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from amenable.evaluation.content import repetition, words_of
from amenable.evaluation.paired import STATISTICS, difference, statistic_difference
from amenable.evaluation.tasks.form import summary
from amenable.functional.statistics import holm
from amenable.recipes.reports.charts import calibration_chart
from amenable.recipes.reports.formatting import NONE, decimal, plural
from amenable.recipes.reports.publish import publish
from amenable.recipes.reports.quality_measures import OTHERS, SECTIONS, measure_of, section_of
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.terminal import Grid

Row = dict[str, Any]
Results = Mapping[str, Mapping[str, Row]]
"""metrics of each model by test, as evaluation.json has them"""
LENGTHS = "answers"
"""name of the test of all answers' length and repetition"""
LEVEL = 0.05
"""corrected p-value below which a difference counts"""


def write(folder: Path, results: Results, examples: int, command: str) -> Path:
    """Write report.json and report.html, print the main measures, and return the folder. examples: answers of each test
    that are shown."""
    figures = collect(results, examples)
    return publish(folder, "report", {"command": command, **figures}, page(figures, command), table(figures))


def collect(results: Results, examples: int) -> Row:
    """Return what the page shows: the models, a headline, and each test with its measures, differences, reliability
    and worst answers."""
    tests = {name: figures_of(models, examples) for name, models in results.items()}
    if lengths := length_figures(results):
        tests[LENGTHS] = lengths
    correct_p_values(tests)
    names = list(next(iter(results.values())))
    return {"models": names, "headline": headline(names, tests), "tests": tests}


def figures_of(models: Mapping[str, Row], examples: int) -> Row:
    """Return the figures of a test: measures and differences by name and model, bins of the reliability diagram, and
    examples."""
    first = next(iter(models.values()))
    rows = aligned({name: measured(metrics) for name, metrics in models.items()})
    first_rows = next(iter(rows.values()))
    names = list(dict.fromkeys([first["metric"], *(name for each in models.values() for name in each["metrics"])]))
    return {
        "form": first["form"],
        "main": first["metric"],
        "n": first["n"],
        "measures": {
            name: {model: interval_of(metrics["metrics"].get(name)) for model, metrics in models.items()}
            for name in names
        },
        "differences": {
            **{name: differences(name, rows) for name in names if name in first_rows},
            **{
                name: statistic_differences(name, models)
                for name in names
                if name in STATISTICS and "confidence" in first
            },
        },
        "reliability": {model: metrics["reliability"] for model, metrics in models.items() if "reliability" in metrics},
        "examples": chosen_examples(models, rows, first["metric"], examples) if "examples" in first else [],
    }


def measured(metrics: Row) -> dict[str, list[float | None]]:
    """Return the values of each measure row by row; of a test with one such measure that alone."""
    return dict(metrics.get("rows") or {metrics["metric"]: metrics.get("right", metrics.get("values"))})


def aligned(rows: Mapping[str, Mapping[str, list[float | None]]]) -> dict[str, dict[str, list[float | None]]]:
    """Return the measures of every model, those of any; a measure that none of a model's answers has is None in each
    row."""
    count = max(len(values) for own in rows.values() for values in own.values())
    names = dict.fromkeys(name for own in rows.values() for name in own)
    return {model: {name: own.get(name, [None] * count) for name in names} for model, own in rows.items()}


def interval_of(values: Sequence[float | None] | None) -> Row | None:
    """Return value, low and high of a metric under these names."""
    return None if values is None else dict(zip(("value", "low", "high"), values, strict=True))


def differences(name: str, rows: Mapping[str, Mapping[str, list[float | None]]]) -> dict[str, Row | None]:
    """Return the difference of each other model from the first in a measure."""
    first, *others = rows
    return {other: difference(rows[first][name], rows[other][name]) for other in others if name in rows[other]}


def statistic_differences(name: str, models: Mapping[str, Row]) -> dict[str, Row | None]:
    """Return the difference of each other model from the first in the calibration error, or the area under the ROC."""
    first, *others = models
    known = models[first]["confidence"]
    return {other: statistic_difference(name, known, models[other]["confidence"]) for other in others}


def length_figures(results: Results) -> Row | None:
    """Return length, repetition and emptiness of all answers to all tests, as the figures of a test; None where no
    answer was generated."""
    texts: dict[str, list[str]] = {}
    for models in results.values():
        for model, metrics in models.items():
            texts.setdefault(model, []).extend(flat(metrics.get("texts", ())))
    if not texts or not all(texts.values()) or len(set(map(len, texts.values()))) > 1:
        return None
    rows: dict[str, dict[str, list[float | None]]] = {
        model: {
            "words": [float(len(words_of(text))) for text in own],
            "repetition": [repetition(text) for text in own],
            "empty": [not text.strip() for text in own],
        }
        for model, own in texts.items()
    }
    names = list(next(iter(rows.values())))
    return {
        "form": LENGTHS,
        "main": "words",
        "n": len(next(iter(texts.values()))),
        "measures": {
            name: {model: interval_of(summary([v for v in own[name] if v is not None])) for model, own in rows.items()}
            for name in names
        },
        "differences": {name: differences(name, rows) for name in names},
        "reliability": {},
        "examples": [],
    }


def flat(texts: Sequence[str | Sequence[str]]) -> Iterator[str]:
    """Yield texts, those of a conversation's turns one by one."""
    for text in texts:
        if isinstance(text, str):
            yield text
        else:
            yield from text


def correct_p_values(tests: Mapping[str, Row]) -> None:
    """Add `holm` to all differences: p corrected for their number; None where neither side of a measure is better."""
    rows = [
        (name, row)
        for test in tests.values()
        for name, by_model in test["differences"].items()
        for row in by_model.values()
        if row is not None
    ]
    directed = [row for name, row in rows if measure_of(name).better]
    for _, row in rows:
        row["holm"] = None
    for row, p_value in zip(directed, holm([row["p"] for row in directed]), strict=True):
        row["holm"] = p_value


def chosen_examples(
    models: Mapping[str, Row], rows: Mapping[str, Mapping[str, list[float | None]]], main: str, count: int
) -> list[Row]:
    """Return the rows with the worst answers of all models together, then half as many others on which models differ
    most; each has prompt, note, and every model's answers with the value of the main measure. An answer that is as good
    as can be is never among the worst."""
    sides = {name: measure_of(name).better for name in next(iter(rows.values()))}
    totals = [
        (sum(goodness(own[main][i], sides[main] or 1) for own in rows.values()), overall(rows, sides, i), i)
        for i in range(len(next(iter(rows.values()))[main]))
    ]
    perfect = len(rows) * max(0, sides[main] or 1) if measure_of(main).is_share else math.inf
    worst = [i for total, _, i in sorted(totals) if total < perfect][:count]
    spreads = sorted((-spread([own[main][i] for own in rows.values()]), i) for *_, i in totals if i not in worst)
    different = [i for gap, i in spreads if gap < 0][: (count + 1) // 2]
    return [
        {**example(models, rows, main, i), "kind": kind}
        for kind, chosen in (("worst", worst), ("different", different))
        for i in chosen
    ]


def overall(rows: Mapping[str, Mapping[str, list[float | None]]], sides: Mapping[str, int], i: int) -> float:
    """Return how good the answers to row i are, over all measures with a better side and all models."""
    return sum(goodness(own[name][i], side) for own in rows.values() for name, side in sides.items())


def goodness(value: float | None, side: int) -> float:
    """Return a value with the sign of the side that is better; 0 for None."""
    return 0.0 if value is None else side * float(value)


def spread(values: Sequence[float | None]) -> float:
    """Return the difference of the greatest and the least value."""
    known = [float(value) for value in values if value is not None]
    return max(known) - min(known) if known else 0.0


def example(models: Mapping[str, Row], rows: Mapping[str, Mapping[str, list[float | None]]], main: str, i: int) -> Row:
    """Return row i of a test: its prompt, and the answers of every model."""
    answers = []
    for model, metrics in models.items():
        own = metrics["examples"][i]
        labels = own.get("labels") or [""] * len(own["answers"])
        cases = [{"label": label, "text": text} for label, text in zip(labels, own["answers"], strict=True)]
        value = rows[model][main][i]
        answers.append({"model": model, "cases": cases, "value": value, "remark": own.get("remark", "")})
    first = next(iter(models.values()))["examples"][i]
    return {"prompt": first["prompt"], "note": first.get("note", ""), "answers": answers}


def headline(names: Sequence[str], tests: Mapping[str, Row]) -> list[str]:
    """Return the result in sentences: what each other model is surely better and worse at than the first."""
    first, *others = names
    if not others:
        return [f"'{first}' on {plural(len(tests), 'test')}; a second model would stand beside it, row by row."]
    lines = []
    for other in others:
        sides: dict[bool, list[str]] = {True: [], False: []}
        for test_name, test in tests.items():
            for name, by_model in test["differences"].items():
                row, measure = by_model.get(other), measure_of(name)
                if row is not None and row["holm"] is not None and row["holm"] < LEVEL:
                    sides[row["value"] * measure.better > 0].append(
                        f"{measure.label} ({gap_text(name, row)}, {test_name})"
                    )
        parts = [
            f"{word}: {'; '.join(sides[good])}" for good, word in ((True, "better"), (False, "worse")) if sides[good]
        ]
        none = f"'{other}' cannot be told from '{first}' by any measure."
        lines.append(f"'{other}' beside '{first}' is {'. It is '.join(parts)}." if parts else none)
    return lines


def value_text(name: str, row: Row | None) -> str:
    """Return a measure's value with its interval."""
    if row is None or row["value"] is None:
        return NONE
    share = measure_of(name).is_share
    ends = [row[key] for key in ("value", "low", "high") if row[key] is not None]
    texts = [decimal(100 * end, 0) if share else decimal(end, 3) for end in ends]
    unit = "%" if share else ""
    return f"{texts[0]}{unit} ({texts[1]}–{texts[2]})" if len(texts) == 3 else f"{texts[0]}{unit}"


def gap_text(name: str, row: Row) -> str:
    """Return a difference with its sign, in points where the measure is a share."""
    share = measure_of(name).is_share
    text = decimal(100 * row["value"], 0) if share else decimal(row["value"], 3)
    sign = "+" if row["value"] > 0 and text.strip("0.") else ""
    return f"{sign}{text}{' points' if share else ''}"


def difference_cell(name: str, row: Row | None) -> Row:
    """Return the cell of a difference: text, interval with p, and the side it surely lies on."""
    if row is None:
        return {"text": NONE, "note": "", "side": ""}
    measure = measure_of(name)
    scale, digits = (100, 0) if measure.is_share else (1, 3)
    ends = (
        "" if row["low"] is None else f"{decimal(scale * row['low'], digits)} to {decimal(scale * row['high'], digits)}"
    )
    p_value = f"p {p_text(row['p'])}" + ("" if row["holm"] is None else f", corrected {p_text(row['holm'])}")
    side = ""
    if row["holm"] is not None and row["holm"] < LEVEL:
        side = "good" if row["value"] * measure.better > 0 else "bad"
    return {"text": gap_text(name, row), "note": "; ".join(filter(None, (ends, p_value))), "side": side}


def p_text(value: float) -> str:
    """Return a p-value with two digits, or a bound.

    >>> p_text(0.034), p_text(0.00001), p_text(1.0)
    ('0.034', '< 0.001', '1')
    """
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def rows_of(test: Row, models: Sequence[str]) -> list[Row]:
    """Return the table of a test: label, arrow of the better side, a cell a model, and its differences."""
    arrows = {1: "↑", -1: "↓", 0: ""}
    return [
        {
            "label": measure_of(name).label,
            "arrow": arrows[measure_of(name).better],
            "cells": [value_text(name, by_model.get(model)) for model in models],
            "differences": [
                difference_cell(name, test["differences"].get(name, {}).get(model)) for model in models[1:]
            ],
        }
        for name, by_model in test["measures"].items()
    ]


def sections_of(figures: Row) -> list[Row]:
    """Return the sections of the page in their order, each with its tests; tests of other forms, and the length of all
    answers, come last."""
    order = {section.title: i for i, section in enumerate([*SECTIONS.values(), OTHERS])}
    sections: dict[str, Row] = {}
    for name, test in figures["tests"].items():
        if test["form"] == LENGTHS:
            title, note = (
                "Length and repetition",
                "Of all answers to the tests above. Repeated: 4-grams of words that stand earlier in the answer.",
            )
        else:
            title, note = section_of(test["form"]).title, section_of(test["form"]).note
        section = sections.setdefault(title, {"title": title, "note": note, "tests": []})
        section["tests"].append(
            {
                "name": name,
                "form": test["form"],
                "rows": rows_of(test, figures["models"]),
                "n": test["n"],
                "chart": reliability_chart(name, test),
                "examples": test["examples"],
                "main": measure_of(test["main"]).label,
            }
        )
    return sorted(sections.values(), key=lambda section: order.get(section["title"], len(order)))


def reliability_chart(name: str, test: Row) -> Markup | None:
    """Draw confidence against the share of right answers, a curve a model; None where there is no confidence."""
    groups = [(model, bins, colour) for colour, (model, bins) in enumerate(test["reliability"].items(), start=1)]
    return calibration_chart(f"{name}: confidence against share right", groups, "answers", low=0.0)


def bars_of(figures: Row) -> list[Row]:
    """Return the main measure of each test whose values are shares, as bars with intervals, in per cent."""
    groups = []
    for name, test in figures["tests"].items():
        measure, main = measure_of(test["main"]), test["measures"][test["main"]]
        if not all(row is not None and 0 <= row["value"] <= 1 for row in main.values()):
            continue
        bars = [
            {
                "model": model,
                "value": 100 * row["value"],
                "low": 100 * (row["value"] if row["low"] is None else max(0.0, row["low"])),
                "high": 100 * (row["value"] if row["high"] is None else min(1.0, row["high"])),
            }
            for model, row in main.items()
        ]
        groups.append({"name": name, "label": measure.label, "bars": bars})
    return groups


def table(figures: Row) -> Grid:
    """Return the main measure of each test x models, with the differences from the first."""
    models = figures["models"]
    rows = []
    for name, test in figures["tests"].items():
        main = rows_of({**test, "measures": {test["main"]: test["measures"][test["main"]]}}, models)[0]
        gaps = [f"{cell['text']} ({cell['note']})" if cell["note"] else cell["text"] for cell in main["differences"]]
        rows.append((name, main["label"], str(test["n"]), *main["cells"], *gaps))
    heads = ("test", "measure", "rows", *models, *(f"{model} − {models[0]}" for model in models[1:]))
    return Grid("Main measures", heads, rows, "95 % intervals; p is corrected for all differences (Holm)")


def page(figures: Row, command: str) -> str:
    """Return the whole page; nothing in it is fetched from anywhere."""
    return render(
        "quality.jinja",
        css="report.css",
        models=figures["models"],
        headline=figures["headline"],
        bars=bars_of(figures),
        sections=sections_of(figures),
        value=lambda value: NONE if value is None else f"{float(value):.2g}" if not math.isnan(value) else NONE,
        command=command,
    )
