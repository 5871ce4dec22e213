"""Report of `amenable race`: what each algorithm makes of the same number of answers, over seeds.

Gold is the closed world's utility, reward what the algorithms learn from. Differences from the SFT model are paired: of
each test prompt the mean over seeds, with a 95 % interval from the prompts' spread.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from amenable.claims.evidence import curves_of
from amenable.claims.stage_folders import read_json
from amenable.claims.verdicts import Curve
from amenable.data.files import read_json_lines
from amenable.evaluation.preference import GoldCache
from amenable.functional.statistics import mean_interval
from amenable.recipes.reports.charts import Series, line_chart
from amenable.recipes.reports.formatting import NONE, decimal, plural, signed
from amenable.recipes.reports.publish import publish
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.terminal import Grid
from amenable.world.closed_world import ClosedWorld

Row = dict[str, Any]
Tuned = Mapping[str, Mapping[float, float]]
"""gold on validation prompts by algorithm and learning rate"""

SFT = "sft"


@dataclass(frozen=True)
class Settings:
    """Configuration of a race as the report names it."""

    answers: int
    world: Path
    tuned: Tuned
    tuning_answers: int
    """those that a learning rate was tried on"""


def write(folder: Path, roots: Sequence[Path], settings: Settings) -> Path:
    """Write race.json and race.html, print the table, and return the folder."""
    figures = collect(roots, settings)
    return publish(folder, "race", figures, page(figures, f"amenable race --out {folder}"), table(figures))


def collect(roots: Sequence[Path], settings: Settings) -> Row:
    """Return the figures of all algorithms over the roots, one a seed, and a headline."""
    gold = GoldCache(ClosedWorld.load(settings.world))
    answers = [read_json_lines(root / "evaluate" / "samples.jsonl") or [] for root in roots]
    algorithms = {name: figures_of(name, roots, answers, gold) for name in settings.tuned}
    begin = means(answers, SFT)
    seconds = min(row["seconds"] for row in algorithms.values())
    for row in algorithms.values():
        row["gold_in_time"] = at_seconds(row, seconds)
    figures: Row = {
        "answers": settings.answers,
        "seeds": len(roots),
        "prompts": len(answers[0]),
        "sft": begin,
        "equal_seconds": seconds,
        "tuning_answers": settings.tuning_answers,
        "tuning": {name: {f"{rate:g}": value for rate, value in row.items()} for name, row in settings.tuned.items()},
        "algorithms": algorithms,
    }
    return {**figures, "headline": headline(figures)}


def figures_of(name: str, roots: Sequence[Path], answers: Sequence[Sequence[Row]], gold: GoldCache) -> Row:
    """Return an algorithm's figures: its source, what it reaches on test prompts, what that costs, its way there."""
    folders = [root / name for root in roots]
    finished = [read_json(folder / "finished.json") or {} for folder in folders]
    stage = finished[0]["stage"]
    source = Path(str(importlib.import_module(f"amenable.stages.{stage.replace('-', '_')}").__file__))
    curves = [curve for folder in folders if (curve := curves_of(folder, gold)) is not None]
    learning = mean([row["seconds"] for row in finished])
    labelling = 0.0 if curves else mean([label_seconds(root) for root in roots])
    return {
        "stage": stage,
        "file": f"amenable/stages/{source.name}",
        "lines": len(source.read_text("utf-8").splitlines()),
        **means(answers, name),
        "gain": change(answers, name, "sampled", "gold"),
        "gain_greedy": change(answers, name, "greedy", "gold"),
        "reward_gain": change(answers, name, "sampled", "reward"),
        "reward_gain_greedy": change(answers, name, "greedy", "reward"),
        "entropy": mean_of_present([row.get("objective/entropy") for row in finished]),
        "seconds": learning + labelling,
        "peak_bytes": mean_of_present([peak_of(folder) for folder in folders]),
        "curve": curve_rows(curves) if curves else [],
    }


def means(answers: Sequence[Sequence[Row]], name: str) -> Row:
    """Return the means of a model's sampled answers to all prompts of all seeds."""
    rows = [row["answers"][name]["sampled"] for seed in answers for row in seed]
    return {key: mean([row[key] for row in rows]) for key in ("gold", "reward", "kl", "tokens")}


def change(answers: Sequence[Sequence[Row]], name: str, decoding: str, key: str) -> Row:
    """Return the rise of a figure from the SFT model to another: the mean over prompts of the mean over seeds, with its
    interval over prompts, and the mean of each seed."""
    model, sft = (
        torch.tensor([[row["answers"][of][decoding][key] for row in rows] for rows in answers], dtype=torch.float64)
        for of in (name, SFT)
    )
    mean, low, high = mean_interval((model - sft).mean(0))
    return {"value": mean, "low": low, "high": high, "seeds": (model - sft).mean(1).tolist()}


def beats_sft(row: Row) -> bool:
    """Return True where an algorithm's greedy answers have more gold than the SFT model's, beyond chance and with every
    seed."""
    return bool(row["gain_greedy"]["low"] > 0 and min(row["gain_greedy"]["seeds"]) > 0)


def verdict(row: Row) -> str:
    """Return whether an algorithm beats the SFT model, greedy against greedy, and if it does not, why."""
    gold, reward = row["gain_greedy"], row["reward_gain_greedy"]
    if beats_sft(row):
        return "beats it"
    if gold["low"] > 0:
        return "does not with every seed"
    if reward["low"] <= 0:
        return "does not: nor does its reward rise"
    if gold["high"] < 0:
        return "does not: its reward rises, gold falls"
    return "does not: its reward rises, gold does not beyond chance"


def label_seconds(root: Path) -> float:
    """Return the seconds of sampling and labelling what an offline algorithm learns from."""
    return sum(
        float((read_json(root / name / "finished.json") or {}).get("seconds", 0.0)) for name in ("sample", "annotate")
    )


def peak_of(folder: Path) -> float | None:
    """Return the largest memory of the processes that a run had, in bytes; None where it was not measured."""
    peaks = [row["peak_bytes"] for row in read_json_lines(folder / "timings.jsonl") or [] if row.get("peak_bytes")]
    return max(peaks, default=None)


def curve_rows(curves: Sequence[Mapping[str, Curve]]) -> list[Row]:
    """Return gold, reward and KL on held-out prompts at each measured step, means over seeds."""
    steps = curves[0]["gold"].steps
    return [
        {
            "step": step,
            "share": step / steps[-1],
            "kl": mean([float(seed["gold"].kl[i]) for seed in curves]),
            "gold": mean([float(seed["gold"].values[i].mean()) for seed in curves]),
            "reward": mean([float(seed["proxy"].values[i].mean()) for seed in curves]),
        }
        for i, step in enumerate(steps)
    ]


def at_seconds(row: Row, seconds: float) -> float | None:
    """Return gold on held-out prompts once so many seconds have passed, between two measured steps; None for an
    algorithm without a curve. A run's seconds are spread evenly over its steps."""
    share = seconds / row["seconds"]
    for before, after in zip(row["curve"], row["curve"][1:]):
        if before["share"] <= share <= after["share"] + 1e-9:
            weight = (share - before["share"]) / (after["share"] - before["share"])
            return float(before["gold"] + weight * (after["gold"] - before["gold"]))
    return None


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def mean_of_present(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None; None without any."""
    present = [value for value in values if value is not None]
    return mean(present) if present else None


def headline(figures: Row) -> list[str]:
    """Return the result in sentences: who beats the SFT model in gold, greedy against greedy, and who does not."""
    rows = figures["algorithms"]
    better = [name for name, row in rows.items() if beats_sft(row)]
    rest = [name for name in rows if name not in better]
    best = max(rows, key=lambda name: rows[name]["gain"]["value"])
    start = decimal(figures["sft"]["gold"])
    lines = [f"{best} gains most gold: {gain_text(rows[best]['gain'])} over the SFT model's {start}."]
    count, names = f"{len(better)} of {len(rows)}", f": {', '.join(better)}" if better else ""
    lines.append(f"Greedy against greedy, {count} beat the SFT model beyond chance{names}.")
    for reason in dict.fromkeys(verdict(rows[name]) for name in rest):
        alike = [name for name in rest if verdict(rows[name]) == reason]
        gains = ", ".join(signed(rows[name]["gain_greedy"]["value"]) for name in alike)
        lines.append(f"{', '.join(alike)} {reason if len(alike) == 1 else of_several(reason)} ({gains}).")
    return lines


def of_several(reason: str) -> str:
    """Return a verdict as one of several algorithms.

    >>> of_several("does not: its reward rises, gold falls")
    'do not: their rewards rise, gold falls'
    """
    plurals = {"nor does its reward rise": "nor do their rewards rise", "its reward rises": "their rewards rise"}
    for single, several in {"does not": "do not", **plurals}.items():
        reason = reason.replace(single, several)
    return reason


def gain_text(row: Row) -> str:
    """Return a change with its interval."""
    return f"{signed(row['value'])} ({decimal(row['low'])} to {decimal(row['high'])})"


def table(figures: Row) -> Grid:
    """Return algorithms x measures."""
    in_time = f"gold at {figures['equal_seconds']:.0f} s"
    measures = (
        "gold over SFT",
        "greedy over SFT",
        "greedy against greedy",
        "reward over SFT",
        "KL, nats",
        "entropy",
        "tokens",
    )
    rows = []
    ranked = sorted(figures["algorithms"].items(), key=lambda item: -item[1]["gain"]["value"])
    for name, row in ranked:
        memory = row["peak_bytes"]
        rows.append(
            (
                name,
                gain_text(row["gain"]),
                gain_text(row["gain_greedy"]),
                verdict(row),
                gain_text(row["reward_gain"]),
                decimal(row["kl"]),
                decimal(row["entropy"], 1),
                decimal(row["tokens"], 1),
                decimal(row["gold_in_time"]),
                decimal(row["seconds"], 0),
                NONE if memory is None else f"{memory / 2**30:.2f} GiB",
                str(row["lines"]),
            )
        )
    count = figures["seeds"]
    note = (
        f"{figures['answers']} sampled answers each, {plural(count, 'seed')}, {figures['prompts']} test prompts; the"
        f" SFT model's gold is {decimal(figures['sft']['gold'])}; intervals over prompts, paired. Seconds of one"
        " thread, two runs side by side; those of offline algorithms hold sampling and labelling."
    )
    heads = ("", *measures, in_time, "seconds", "memory", "lines")
    return Grid("The same number of answers", heads, rows, note)


def tuning_grid(figures: Row) -> Grid:
    """Return algorithms x learning rates."""
    rates = list(dict.fromkeys(rate for row in figures["tuning"].values() for rate in row))
    rows = [(name, *(decimal(row[rate]) for rate in rates)) for name, row in figures["tuning"].items()]
    answers, tried = figures["answers"], figures["tuning_answers"]
    note = f"Gold on validation prompts after {tried} answers; the best of a row was taken."
    if tried < answers:
        note += f" Gold that a rate loses between these and {answers} answers is not in it: --tuning-share 1 tries all."
    return Grid("Learning rates", ("", *rates), rows, note)


def online_algorithms(figures: Row) -> dict[str, Row]:
    """Return the figures of the algorithms that have a curve, by name."""
    return {name: row for name, row in figures["algorithms"].items() if row["curve"]}


def charts(figures: Row) -> list[Markup]:
    """Draw gold on held-out prompts along the way of each online algorithm: against KL, answers and seconds."""
    online = online_algorithms(figures)
    axes = (
        ("Gold of held-out prompts against KL in nats", "KL, nats", lambda row, point: point["kl"]),
        ("Gold against answers", "answers", lambda row, point: point["share"] * figures["answers"]),
        ("Gold against seconds", "seconds", lambda row, point: point["share"] * row["seconds"]),
    )
    drawn = []
    for title, unit, x in axes:
        series = [
            Series(name, [(x(row, point), point["gold"]) for point in row["curve"]], colour)
            for colour, (name, row) in enumerate(online.items(), start=1)
        ]
        drawn.append(line_chart(title, series, unit, keys=False))
    return [chart for chart in drawn if chart is not None]


def page(figures: Row, command: str) -> str:
    """Return the whole page; nothing in it is fetched from anywhere."""
    return render(
        "race.jinja",
        css="report.css",
        js="report.js",
        headline=figures["headline"],
        charts=charts(figures),
        online=list(online_algorithms(figures)),
        grids=[table(figures), tuning_grid(figures)],
        files={name: row["file"] for name, row in figures["algorithms"].items()},
        command=command,
    )
