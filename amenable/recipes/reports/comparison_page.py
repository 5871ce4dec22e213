"""A comparison as sentences, tables and a page: `a` on the left, `b` on the right, and the difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console

from amenable.evaluation.load_answers import TEST
from amenable.evaluation.preference import DECODINGS
from amenable.recipes.reports import claims_table, formatting, reward_comparison
from amenable.recipes.reports.formatting import NONE, change, decimal, display_name, percent
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.report_page import preference_tile
from amenable.recipes.reports.tables import MEASURES
from amenable.recipes.reports.terminal import Grid, fixed_width, print_lines, rich_table

Row = dict[str, Any]

GROUPS = {"won": "Where {b} does best against {a}", "lost": "Where {b} does worst", "drawn": "Drawn at random"}
"""groups of examples, with their titles"""


def headline(comparison: Row) -> list[str]:
    """Return the result in a few sentences."""
    if comparison["rankings"] is not None:
        return reward_comparison.sentences(comparison["rankings"])
    if comparison["answers"] is not None:
        return policy_sentences(comparison["answers"], *side_names(comparison))
    if comparison["claims"]:
        both = [row for row in comparison["claims"] if "a" in row and "b" in row]
        same = sum(row["a"]["verdict"] == row["b"]["verdict"] for row in both)
        return [f"Of {len(both)} claims that both examined, {same} came to the same verdict."]
    if comparison["evaluations"]:
        names = dict.fromkeys(display_name(row["model"]) for row in comparison["evaluations"])
        return [f"Both measured {', '.join(names)}."]
    return [f"They differ in {formatting.plural(len(comparison['options']), 'option')}."]


def side_names(comparison: Row) -> tuple[str, str]:
    """Return the names of both sides; empty where several rewards are compared."""
    a, b = ((comparison.get(side) or {}).get("name", "") for side in ("a", "b"))
    return a, b


def title(comparison: Row) -> str:
    """Return the title of the comparison."""
    a, b = side_names(comparison)
    return f"{b} against {a}" if a else " · ".join(comparison["rankings"]["models"])


def tiles(comparison: Row) -> list[Row]:
    """Return the preferences and the changes of gold as large numbers."""
    answers, (a, b) = comparison["answers"], side_names(comparison)
    if answers is None:
        return []
    tiles: list[Row] = [
        preference_tile(row, f"{b} preferred to {a}, {decoding}")
        for decoding in DECODINGS
        if (row := answers[decoding]["preference"]) is not None
    ]
    for decoding in DECODINGS:
        if (row := answers[decoding]["gold"]) is not None:
            value, _, note = change(row).partition(" ")
            tiles.append({"value": value, "label": f"gold over {a}, {decoding}", "note": note.strip("()")})
    return tiles


def policy_sentences(answers: Row, a: str, b: str) -> list[str]:
    """Return preference, gold and KL of b against a as sentences."""
    rows = {decoding: answers[decoding]["preference"] for decoding in DECODINGS}
    shares = [
        f"on {percent(row['wins'])} of {row['n']} prompts ({formatting.interval(row['low'], row['high'])}) {decoding}"
        for decoding, row in rows.items()
        if row is not None
    ]
    sentences = [f"{b} is preferred to {a} {' and '.join(shares)}."] if shares else []
    for key in ("gold", "reward"):
        gains = gains_by_decoding({decoding: answers[decoding][key] for decoding in DECODINGS})
        sentences += [f"Its {key} changes by {gains}."] if gains else []
    kl = answers["sampled"]["kl"]
    return sentences + ([f"It is {decimal(kl)} nats an answer away from {a} (KL, sampled)."] if kl is not None else [])


def gains_by_decoding(gains: Row) -> str:
    """Return gains with their intervals, joined; empty where none was measured."""
    return " and ".join(f"{change(row)} {decoding}" for decoding, row in gains.items() if row is not None)


def result_grids(comparison: Row) -> list[Grid]:
    """Return the tables of what both sides were measured on: answers, rankings, evaluations."""
    a, b = side_names(comparison)
    answers, rankings = comparison["answers"], comparison["rankings"]
    grids = [answer_grid(answers, decoding, a, b) for decoding in DECODINGS] if answers is not None else []
    grids += reward_comparison.grids(rankings) if rankings is not None else []
    return grids + [evaluation_grid(row, a, b) for row in comparison["evaluations"]]


def run_grids(comparison: Row) -> list[Grid]:
    """Return the tables of differences between the run directories, leaving out empty ones."""
    a, b = side_names(comparison)
    inputs = [(row["name"], *sides(row, address)) for row in comparison["inputs"]]
    figures = [
        (row["name"], *sides(row), difference(row.get("a"), row.get("b"), to_text))
        for row in comparison["figures"]
        if row["name"].count(".") < 2  # deeper ones (by annotator) are in compare.json alone
    ]
    metrics = [(row["name"], metric_text(row["a"]), metric_text(row["b"])) for row in comparison["metrics"]]
    grids = [
        Grid("Options that differ", ("", a, b), [(row["name"], *sides(row)) for row in comparison["options"]]),
        Grid("What went in and differs", ("", a, b), inputs, "with the hash of it"),
        Grid("Versions that differ", ("", a, b), [(row["name"], *sides(row)) for row in comparison["versions"]]),
        Grid("Closing figures", ("", a, b, "difference"), figures),
        Grid("Metrics", ("", a, b), metrics, "last value (lowest to highest)"),
    ]
    return [grid for grid in grids if grid.rows]


def answer_grid(answers: Row, decoding: str, a: str, b: str) -> Grid:
    """Return both models' figures under one decoding."""
    rows = []
    for row in answers[decoding]["measures"]:
        label, _, formatter = MEASURES[row["name"]]
        rows.append((label, formatter(row["a"]), formatter(row["b"]), difference(row["a"], row["b"], formatter)))
    note = f"{answers['prompts']} prompts, {percent(answers[decoding]['same'])} of the answers are the same"
    return Grid(f"Answers, {decoding}", ("", a, b, "difference"), rows, note)


def evaluation_grid(row: Row, a: str, b: str) -> Grid:
    """Return one model's figures in two evaluations, and gold's paired difference where both had the same prompts."""
    greedy = {measure["name"]: measure for measure in row["greedy"]}
    rows = []
    for sampled in row["sampled"]:
        label, _, formatter = MEASURES[sampled["name"]]
        values = [measure.get(side) for measure in (sampled, greedy.get(sampled["name"], {})) for side in ("a", "b")]
        rows.append((label, *map(formatter, values)))
    gains = gains_by_decoding(row["gain"])
    note = f"gold changes by {gains} on the same prompts" if gains else ""
    suite = "" if row["suite"] == TEST else f", {row['suite']}"
    heads = ("", f"{a}, sampled", f"{b}, sampled", f"{a}, greedy", f"{b}, greedy")
    return Grid(f"{display_name(row['model'])}{suite}", heads, rows, note)


def address(fact: dict[str, str]) -> str:
    """Return the end of a path and the beginning of its content's hash.

    >>> address({"path": "/home/me/runs/demo/world/prompts/ppo.jsonl", "sha256": "0123456789abcdef"})
    'world/prompts/ppo.jsonl 0123456'
    """
    return f"{'/'.join(Path(fact['path']).parts[-3:])} {fact['sha256'][:7]}"


def metric_text(metric: Row) -> str:
    """Return a metric's last value and range."""
    return f"{to_text(metric['last'])} ({to_text(metric['low'])} to {to_text(metric['high'])})"


def to_text(value: Any) -> str:
    """Format any value in few characters.

    >>> to_text(0.000123456), to_text(-1.5), to_text(25000), to_text(None), to_text(["a", "b"]), to_text(True)
    ('0.0001235', '−1.5', '25,000', 'none', 'a, b', 'true')
    """
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, (int, float)):
        return (f"{value:,}" if isinstance(value, int) else f"{value:.4g}").replace("-", "−")
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def sides(row: Row, formatter: Callable[[Any], str] = to_text) -> tuple[str, ...]:
    """Return both values of a row; a missing side is a dash."""
    return tuple(formatter(row[side]) if side in row else NONE for side in ("a", "b"))


def difference(a: float | None, b: float | None, formatter: Callable[[float], str]) -> str:
    """Return b less a, with its sign; empty where either is missing."""
    if a is None or b is None:
        return ""
    text = formatter(b - a).replace("-", "−")
    return text if text.startswith("−") or not text.strip("0.%") else f"+{text}"


def print_comparison(comparison: Row, page: Path, console: Console) -> None:
    """Print the comparison on a terminal."""
    console = fixed_width(console, 110)
    print_lines(console, [title(comparison), *comparison["notes"]])
    for grid in (*result_grids(comparison), *run_grids(comparison)):
        print_lines(console, ["", f"{grid.title}{': ' if grid.note else ''}{grid.note}"])
        console.print(rich_table(grid))
    for claim in claims(comparison):
        verdicts = [f"{row['verdict']} {row['measured']}".strip() if row else NONE for row in claim["sides"]]
        print_lines(console, [f"{claim['id']}  {claim['words']}: {' | '.join(verdicts)}"])
    print_lines(console, [*headline(comparison), f"page: {page}"], soft_wrap=True)


def claims(comparison: Row) -> list[Row]:
    """Return every claim with both verdicts, as claims_table formats them."""
    return [
        {
            "id": row["name"],
            "words": row["claim"],
            "sides": [claims_table.verdict_row(row[side]) if side in row else None for side in ("a", "b")],
        }
        for row in comparison["claims"]
    ]


def page(comparison: Row, charts: Sequence[Markup], command: str) -> str:
    """Return the whole page."""
    a, b = side_names(comparison)
    rankings = comparison["rankings"]
    return render(
        "compare.jinja",
        css="report.css",
        js="report.js",
        comparison=comparison,
        title=title(comparison),
        a=a,
        b=b,
        headline=headline(comparison),
        tiles=tiles(comparison),
        groups=GROUPS,
        judge=formatting.JUDGES.get((comparison["answers"] or {}).get("judges") or ""),
        result_grids=result_grids(comparison),
        rewards=list(reward_comparison.by_accuracy(rankings)) if rankings is not None else [],
        calibration=reward_comparison.charts(rankings) if rankings is not None else [],
        run_grids=run_grids(comparison),
        claims=claims(comparison),
        charts=charts,
        decimal=decimal,
        command=command,
    )
