"""A comparison as sentences, tables and a page: `a` on the left, `b` on the right, and what lies between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from amenable.recipes.reports import claims_table, words
from amenable.recipes.reports.compare_evaluations import TEST
from amenable.recipes.reports.merge_evaluations import DECODINGS
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.tables import MEASURES

Row = dict[str, Any]

GROUPS = {"won": "Where {b} does best against {a}", "lost": "Where {b} does worst", "drawn": "Drawn at random"}
"""examples, by how they were chosen"""


@dataclass(frozen=True)
class Grid:
    """One table: what is told, of each of the two, and how far they are apart."""

    title: str
    heads: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


def headline(found: Row) -> list[str]:
    """What a reader should leave with, a sentence each."""
    a, b = found["a"]["name"], found["b"]["name"]
    if found["answers"] is not None:
        return contest_told(found["answers"], a, b)
    if found["rankings"] is not None:
        return orders_told(found["rankings"], a, b)
    if found["claims"]:
        both = [row for row in found["claims"] if "a" in row and "b" in row]
        same = sum(row["a"]["verdict"] == row["b"]["verdict"] for row in both)
        return [f"Of {len(both)} claims that both examined, {same} came to the same verdict."]
    if found["evaluations"]:
        names = dict.fromkeys(words.name_of(row["model"]) for row in found["evaluations"])
        return [f"Both measured {', '.join(names)}."]
    count = len(found["options"])
    return [f"They differ in {count} option{'' if count == 1 else 's'}."]


def tiles(found: Row) -> list[Row]:
    """The preferences and the changes of gold as large numbers."""
    answers, a, b = found["answers"], found["a"]["name"], found["b"]["name"]
    if answers is None:
        return []
    made = []
    for name in DECODINGS:
        if (row := answers[name]["preference"]) is not None:
            note = f"95% interval {words.span(row['low'], row['high'])}, {row['n']} prompts"
            made.append({"value": words.percent(row["wins"]), "label": f"{b} preferred to {a}, {name}", "note": note})
    for name in DECODINGS:
        if (row := answers[name]["gold"]) is not None:
            value, _, note = change(row).partition(" ")
            made.append({"value": value, "label": f"gold over {a}, {name}", "note": note.strip("()")})
    return made


def contest_told(answers: Row, a: str, b: str) -> list[str]:
    """Preference, gold and KL of b against a."""
    shares = [(name, answers[name]["preference"]) for name in DECODINGS]
    preferred = [
        f"on {words.percent(row['wins'])} of {row['n']} prompts ({words.span(row['low'], row['high'])}) {name}"
        for name, row in shares
        if row is not None
    ]
    told = [f"{b} is preferred to {a} {' and '.join(preferred)}."] if preferred else []
    for key, what in (("gold", "gold"), ("reward", "reward")):
        moves = [f"{change(row)} {name}" for name in DECODINGS if (row := answers[name][key]) is not None]
        told += [f"Its {what} changes by {' and '.join(moves)}."] if moves else []
    kl = answers["sampled"]["kl"]
    return told + ([f"It is {words.plain(kl)} nats an answer away from {a} (KL, sampled)."] if kl is not None else [])


def orders_told(rankings: Row, a: str, b: str) -> list[str]:
    """Agreement and accuracy of two reward models."""
    agree, gain = rankings["agreement"], rankings["gain"]
    told = []
    if agree is not None:
        share, within = words.percent(agree["value"]), words.span(agree["low"], agree["high"])
        told.append(f"{a} and {b} agree on {share} of {agree['n']:,} pairs of answers ({within}).")
    if gain is not None:
        points = change({key: None if gain[key] is None else 100 * gain[key] for key in ("value", "low", "high")})
        told.append(f"The accuracy of {b} differs from that of {a} by {points} percentage points.")
    return told


def change(row: Row) -> str:
    """
    >>> change({"value": 0.5, "low": -0.25, "high": 1.25})
    '+0.50 (−0.25 to +1.25)'
    """
    if row["low"] is None or row["high"] is None:
        return words.signed(row["value"])
    return f"{words.signed(row['value'])} ({words.signed(row['low'])} to {words.signed(row['high'])})"


def trials(found: Row) -> list[Grid]:
    """What the two came to when they were put to the same test."""
    a, b = found["a"]["name"], found["b"]["name"]
    answers, rankings = found["answers"], found["rankings"]
    made = [measured(answers, decoding, a, b) for decoding in (DECODINGS if answers is not None else ())]
    made += [ordered(rankings, a, b)] if rankings is not None else []
    return made + [evaluated(row, a, b) for row in found["evaluations"]]


def written_down(found: Row) -> list[Grid]:
    """What the runs themselves wrote down, where it is not the same."""
    a, b = found["a"]["name"], found["b"]["name"]
    made = [
        Grid("Options that differ", ("", a, b), [(row["name"], *texts(row)) for row in found["options"]]),
        Grid("What went in and differs", ("", a, b), [source(row) for row in found["inputs"]], "with the hash of it"),
        Grid("Versions that differ", ("", a, b), [(row["name"], *texts(row)) for row in found["versions"]]),
        Grid("Closing figures", ("", a, b, "difference"), [figure(row) for row in found["figures"] if is_plain(row)]),
        Grid("Metrics", ("", a, b), [metric(row) for row in found["metrics"]], "last value (lowest to highest)"),
    ]
    return [grid for grid in made if grid.rows]


def measured(answers: Row, decoding: str, a: str, b: str) -> Grid:
    """Both models' figures under one decoding."""
    note = f"{answers['prompts']} prompts, {words.percent(answers[decoding]['same'])} of the answers are the same"
    rows = [measure(row) for row in answers[decoding]["measures"]]
    return Grid(f"Answers, {decoding}", ("", a, b, "difference"), rows, note)


def measure(row: Row) -> tuple[str, ...]:
    label, _, written = MEASURES[row["name"]]
    return label, written(row["a"]), written(row["b"]), gap(row["a"], row["b"], written)


def ordered(rankings: Row, a: str, b: str) -> Grid:
    """Accuracy and loss of two reward models on the same rankings."""
    one, other = rankings["a"], rankings["b"]
    accuracies = [
        f"{words.percent(told['accuracy'])} ({words.span(told['low'], told['high'])})" for told in (one, other)
    ]
    losses = [words.plain(told["loss"], 3) for told in (one, other)]
    rows = [
        ("Accuracy", *accuracies, gap(one["accuracy"], other["accuracy"], words.percent)),
        ("Loss", *losses, gap(one["loss"], other["loss"], lambda value: words.plain(value, 3))),
    ]
    return Grid(
        "The same rankings", ("", a, b, "difference"), rows, f"{rankings['rankings']} rankings, {one['pairs']} pairs"
    )


def evaluated(row: Row, a: str, b: str) -> Grid:
    """One model's figures in two evaluations, and gold's paired difference where both asked the same prompts."""
    greedy = {told["name"]: told for told in row["greedy"]}
    rows = []
    for told in row["sampled"]:
        label, _, written = MEASURES[told["name"]]
        also = greedy.get(told["name"], {"a": None, "b": None})
        rows.append((label, *(written(value) for value in (told["a"], told["b"], also["a"], also["b"]))))
    moves = [f"{change(gained)} {name}" for name, gained in row["gain"].items() if gained is not None]
    note = f"gold changes by {' and '.join(moves)} on the same prompts" if moves else ""
    suite = "" if row["suite"] == TEST else f", {row['suite']}"
    heads = ("", f"{a}, sampled", f"{b}, sampled", f"{a}, greedy", f"{b}, greedy")
    return Grid(f"{words.name_of(row['model'])}{suite}", heads, rows, note)


def source(row: Row) -> tuple[str, ...]:
    return row["name"], *(address(row[side]) if side in row else words.NONE for side in ("a", "b"))


def address(fact: dict[str, str]) -> str:
    """The end of a path and the beginning of its content's hash.

    >>> address({"path": "/home/me/runs/demo/world/prompts/ppo.jsonl", "sha256": "0123456789abcdef"})
    'world/prompts/ppo.jsonl 0123456'
    """
    return f"{'/'.join(Path(fact['path']).parts[-3:])} {fact['sha256'][:7]}"


def is_plain(row: Row) -> bool:
    """Whether a closing figure is one that people watch: deeper ones (by annotator) are in compare.json."""
    return str(row["name"]).count(".") < 2


def figure(row: Row) -> tuple[str, ...]:
    return row["name"], *texts(row), gap(row.get("a"), row.get("b"), text)


def metric(row: Row) -> tuple[str, ...]:
    return row["name"], *(f"{text(o['last'])} ({text(o['low'])} to {text(o['high'])})" for o in (row["a"], row["b"]))


def texts(row: Row) -> tuple[str, str]:
    """Both values of a row; what is not there is a dash."""
    one, other = (text(row[side]) if side in row else words.NONE for side in ("a", "b"))
    return one, other


def text(value: Any) -> str:
    """Any value in few characters.

    >>> text(0.000123456), text(-1.5), text(25000), text(None), text(["a", "b"]), text(True)
    ('0.0001235', '−1.5', '25,000', 'none', 'a, b', 'true')
    """
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    if isinstance(value, (int, float)):
        return (f"{value:,}" if isinstance(value, int) else f"{value:.4g}").replace("-", "−")
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def gap(a: float | None, b: float | None, written: Callable[[float], str]) -> str:
    """b less a, with its sign; nothing where either is missing."""
    if a is None or b is None:
        return ""
    told = written(b - a).replace("-", "−")
    return told if told.startswith("−") or not told.strip("0.%") else f"+{told}"


def tell(found: Row, page: Path, console: Console) -> None:
    """The comparison on a terminal."""
    if not console.is_terminal:
        console = Console(file=console.file, width=110)
    for line in (f"{found['b']['name']} against {found['a']['name']}", *found["notes"]):
        console.print(line, highlight=False, markup=False)
    for grid in (*trials(found), *written_down(found)):
        console.print()
        console.print(f"{grid.title}{': ' if grid.note else ''}{grid.note}", highlight=False, markup=False)
        console.print(drawn(grid))
    for claim in claims(found):
        verdicts = " | ".join(
            f"{one['verdict']} {one['measured']}".strip() if one else words.NONE for one in claim["sides"]
        )
        console.print(f"{claim['id']}  {claim['words']}: {verdicts}", highlight=False, markup=False)
    for line in (*headline(found), f"page: {page}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def drawn(grid: Grid) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, head in enumerate(grid.heads):
        table.add_column(head, justify="right" if place else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*row)
    return table


def claims(found: Row) -> list[Row]:
    """Every claim with both verdicts, as claims_table writes them."""
    return [
        {
            "id": row["name"],
            "words": row["claim"],
            "sides": [claims_table.shown(row[side]) if side in row else None for side in ("a", "b")],
        }
        for row in found["claims"]
    ]


def page(found: Row, charts: Sequence[Markup], command: str) -> str:
    """The whole page."""
    return render(
        "compare.jinja",
        css="report.css",
        js="report.js",
        found=found,
        a=found["a"]["name"],
        b=found["b"]["name"],
        headline=headline(found),
        tiles=tiles(found),
        groups=GROUPS,
        judge=words.JUDGES.get((found["answers"] or {}).get("judges") or ""),
        trials=trials(found),
        written_down=written_down(found),
        claims=claims(found),
        charts=charts,
        plain=words.plain,
        command=command,
    )
