"""Report of `amenable overopt`: gold and reward of held-out answers against the root of KL, with fitted laws.

A curve is one policy's way, or the best of n, on the same prompts. Gold and reward are gains over the model that it
started from. The laws are those of functional/overoptimization.py; their intervals are percentiles over resampled
prompts, and hold no spread between seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from amenable.data.files import read_json_lines
from amenable.data.samples import Sample
from amenable.data.turns import conversation
from amenable.evaluation.best_of import expected, sizes
from amenable.functional.overoptimization import Law, bootstrap_gains, fit_law, law_at, peak_distance
from amenable.functional.statistics import best_of_n_kl
from amenable.recipes.reports.charts import Series, line_chart
from amenable.recipes.reports.formatting import NONE, decimal, estimate, signed
from amenable.recipes.reports.publish import publish
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.terminal import Grid
from amenable.seeds import seeded_generator

Row = dict[str, Any]
Gold = Callable[[Sequence[Sample]], list[list[float] | None]]
"""samples -> the truth about each completion; None for a sample that cannot be judged"""

BEST_OF_N = "best of n"
LAW = "alpha", "beta", "peak_kl"
"""figures of a fitted law, each with its interval"""
DRAWS = 1000
"""resamples of the prompts"""
LEAST_POINTS = 3
"""settings that a law is fitted to"""
LEAST_KL = 0.05
"""nats below which a setting says nothing of a law"""
NAMES = {
    "centre": "all labels, the policy's size",
    "small": "smaller reward model",
    "large": "larger reward model",
    "labels-4": "a quarter of the labels",
    "labels-16": "a sixteenth of the labels",
    "flipped": "a quarter of the labels wrong",
    "priced": "with a price on KL",
    "ensemble": "the worst of three reward models",
}
KINDS = {BEST_OF_N: BEST_OF_N, "ppo": "PPO", "rloo": "RLOO", "grpo": "GRPO"}
ENSEMBLE = "ensemble"
COMPARED = ("ppo-priced", "rloo", "grpo")
"""beside PPO and the best of n at the centre"""
AGAINST_WORST = tuple(f"{name}-{ENSEMBLE}" for name in (BEST_OF_N, "ppo", "rloo", "grpo"))
"""against the ensemble, whose score is that of the worst"""


@dataclass(frozen=True)
class Settings:
    """Folder of the runs, and the names of their reward models."""

    out: Path
    rewards: Sequence[str]
    """names of the reward models"""
    centre: str
    seed: int


@dataclass(frozen=True)
class Curve:
    """Gold and reward [S, N] of N prompts at S settings, the first the start, and the KL [S] of each setting."""

    law: Law
    kl: Tensor
    gold: Tensor
    reward: Tensor


def write(settings: Settings, gold: Gold, best_of: Mapping[str, Path]) -> Path:
    """Write overopt.json and overopt.html, print the table, and return the folder.

    best_of: files of gold and reward of many answers to each prompt, by the name of the reward model.
    """
    figures = collect(settings, gold, best_of)
    html = page(figures, f"amenable overopt --out {settings.out}")
    return publish(settings.out, "overopt", figures, html, table(figures))


def collect(settings: Settings, gold: Gold, best_of: Mapping[str, Path]) -> Row:
    """Return the figures of all curves, the points of DPO, and a headline."""
    curves = {f"{BEST_OF_N}-{name}": best_of_n(path) for name, path in best_of.items()}
    names = [*(f"ppo-{name}" for name in settings.rewards), *COMPARED, *AGAINST_WORST[1:]]
    curves |= {name: along_the_way(settings.out / name, settings.out / "answers", gold) for name in names}
    rows = {name: figures_of(curve, settings.seed) for name, curve in curves.items()}
    points = dpo_points(settings.out, gold)
    return {
        "centre": settings.centre,
        "rewards": list(settings.rewards),
        "prompts": int(curves[f"ppo-{settings.centre}"].gold.shape[1]),
        "curves": rows,
        "dpo": points,
        "headline": headline(rows, settings),
    }


def best_of_n(path: Path) -> Curve:
    """Return the expected gold and reward of the best of n, for n = 1, 2, 4 .. (evaluation/best_of.py)."""
    rows = read_json_lines(path)
    reward, order = torch.tensor([row["reward"] for row in rows], dtype=torch.float64).sort(dim=1)
    gold = torch.tensor([row["gold"] for row in rows], dtype=torch.float64).gather(1, order)
    counts = sizes(reward.shape[1])
    kl = torch.tensor([best_of_n_kl(n) for n in counts], dtype=torch.float64)
    return Curve("best-of-n", kl, *(torch.stack([expected(values, n) for n in counts]) for values in (gold, reward)))


def along_the_way(folder: Path, answers: Path, gold: Gold) -> Curve:
    """Return gold and reward of an online run's answers to the same held-out prompts at each measured step.

    answers: run directory of samples that has the prompts.
    """
    prompts = {row["id"]: conversation(row["prompt"], "prompt") for row in read_json_lines(answers / "samples.jsonl")}
    rows = [row for row in read_json_lines(folder / "answers.jsonl") if row["id"] in prompts]
    steps = sorted({row["step"] for row in rows})
    by_step = [{row["id"]: row for row in rows if row["step"] == step} for step in steps]
    ids = [name for name in by_step[0] if all(name in answered for answered in by_step)]
    table = [[answered[name] for name in ids] for answered in by_step]
    judged = [judge(gold, [(prompts[row["id"]], row) for row in step_rows], "completion") for step_rows in table]
    columns = (torch.tensor([[row[key] for row in step_rows] for step_rows in table]) for key in ("kl", "score"))
    kl, reward = (column.double() for column in columns)
    return Curve("rl", kl.mean(1), torch.tensor(judged, dtype=torch.float64), reward)


def judge(gold: Gold, rows: Sequence[tuple[Any, Row]], key: str) -> list[float]:
    """Return the gold of one answer to each prompt, in the rows' column `key`."""
    samples = [Sample(row["id"], prompt, (row[key],), (row["ended"],)) for prompt, row in rows]
    return [scores[0] if scores is not None else math.nan for scores in gold(samples)]


def dpo_points(out: Path, gold: Gold) -> list[Row]:
    """Return the gain of gold and reward, and KL, of each DPO policy, beside the SFT model's answers."""
    rows = read_json_lines(out / "evaluate" / "samples.jsonl")
    models = list(rows[0]["answers"]) if rows else []
    figures = {}
    for model in models:
        answers = [{**row["answers"][model]["sampled"], "id": row["id"]} for row in rows]
        prompts = [conversation(row["prompt"], "prompt") for row in rows]
        truth = torch.tensor(judge(gold, list(zip(prompts, answers)), "text"), dtype=torch.float64)
        rewards = torch.tensor([answer["reward"] for answer in answers], dtype=torch.float64)
        figures[model] = (truth.mean(), rewards.mean(), sum(answer["kl"] for answer in answers) / len(answers))
    start = figures.pop("sft", None)
    if start is None:
        return []
    return [
        {"name": name, "kl": kl, "gold": float(truth - start[0]), "reward": float(reward - start[1])}
        for name, (truth, reward, kl) in figures.items()
    ]


def figures_of(curve: Curve, seed: int) -> Row:
    """Return a curve's points, its law with intervals, its highest gold and what is lost from there to its end."""
    gains = bootstrap_gains(curve.gold, DRAWS, seeded_generator(seed, "over-optimization"))
    rewards = curve.reward.mean(1)
    means = [0.0, *gains[0].tolist()]
    low, high = ([0.0, *bound.tolist()] for bound in percentiles(gains))
    points = [
        {"kl": float(kl), "gold": gold, "low": a, "high": b, "reward": float(reward - rewards[0])}
        for kl, gold, a, b, reward in zip(curve.kl, means, low, high, rewards)
    ]
    peak = max(range(len(points)), key=lambda i: points[i]["gold"])
    return {
        "points": points,
        "peak_kl": points[peak]["kl"],
        "peak_gold": points[peak]["gold"],
        "end": points[-1],
        "lost": lost_after_peak(curve, seed),
        "law": law_of(curve, gains),
    }


def lost_after_peak(curve: Curve, seed: int) -> Row:
    """Return gold at the end less gold at its highest, with its interval: the highest is chosen on half of the prompts,
    and both are measured on the other half."""
    chosen, measured = curve.gold[:, ::2], curve.gold[:, 1::2]
    peak = int(chosen.mean(1).argmax())
    both = torch.stack([measured[peak], measured[-1]])
    return with_bounds(bootstrap_gains(both, DRAWS, seeded_generator(seed, "peak"))[:, 0])


def law_of(curve: Curve, gains: Tensor) -> Row | None:
    """Return alpha, beta and the peak of the law fitted to a curve, with intervals; None for too few settings."""
    usable = curve.kl[1:] > LEAST_KL
    if int(usable.sum()) < LEAST_POINTS:
        return None
    distances = curve.kl[1:][usable].sqrt()
    alphas, betas = fit_law(distances, gains[:, usable], curve.law)
    alpha, beta = float(alphas[0]), float(betas[0])
    fitted = torch.tensor([law_at(float(d), alpha, beta, curve.law) for d in distances], dtype=torch.float64)
    measured = gains[0, usable]
    unexplained = float((measured - fitted).square().sum() / (measured - measured.mean()).square().sum())
    peaks = torch.tensor([peak_distance(float(a), float(b), curve.law) ** 2 for a, b in zip(alphas, betas)])
    return {
        "law": curve.law,
        "alpha": with_bounds(alphas),
        "beta": with_bounds(betas),
        "peak_kl": {key: value if math.isfinite(value) else None for key, value in with_bounds(peaks).items()},
        "explained": 1 - unexplained,
    }


def with_bounds(draws: Tensor) -> Row:
    """Return the value of all prompts, the first of the draws, with its percentile interval over the others."""
    low, high = percentiles(draws[:, None])
    return {"value": float(draws[0]), "low": float(low), "high": float(high)}


def percentiles(draws: Tensor) -> tuple[Tensor, Tensor]:
    """Return the 2.5 and 97.5 % percentiles [S] of the draws but the first, which holds all prompts; draws [D, S]."""
    ordered = draws[1:].sort(dim=0).values
    count = len(ordered)
    return ordered[int(0.025 * count)], ordered[min(count - 1, int(0.975 * count))]


def headline(rows: Mapping[str, Row], settings: Settings) -> list[str]:
    """Return the result in sentences: where gold is highest at the centre, what is lost after that, the advice, and the
    curves that do not show the papers' shapes."""
    centre = rows[f"ppo-{settings.centre}"]
    lines = [advice(centre)]
    priced = rows["ppo-priced"]["end"]
    lines.append(
        f"With a price on KL the last policy has {signed(priced['gold'])} gold at {decimal(priced['kl'])} nats, without"
        f" {signed(centre['end']['gold'])} at {decimal(centre['end']['kl'])}; stopping at the highest gold would have"
        f" given {signed(centre['peak_gold'])}."
    )
    lines.append(f"Gold at the end against the worst of three reward models: {against_worst(rows, settings.centre)}.")
    straight = [name for name, row in rows.items() if not shows_fall(row)]
    if straight:
        lines.append(
            f"Gao et al. have gold fall in the end on every curve; here {len(straight)} of {len(rows)} do not show it"
            " (the table says which)."
        )
    return lines


def against_worst(rows: Mapping[str, Row], centre: str) -> str:
    """Return gold at the end of each way against the ensemble, beside that against the reward model of the centre."""
    parts = []
    for name in AGAINST_WORST:
        kind = name.removesuffix(f"-{ENSEMBLE}")
        alone = rows[kind if kind in rows else f"{kind}-{centre}"]
        after, before = (signed(row["end"]["gold"]) for row in (rows[name], alone))
        parts.append(f"{KINDS[kind]} {after} in place of {before}")
    return ", ".join(parts)


def advice(row: Row) -> str:
    """Return how far to optimise against the reward model of the centre."""
    if row["lost"]["high"] < 0:
        return (
            f"Stop PPO at about {decimal(row['peak_kl'], 1)} nats: gold is highest there, {signed(row['peak_gold'])},"
            f" and {decimal(-row['lost']['value'])} of it are lost by {decimal(row['end']['kl'], 1)} nats."
        )
    return (
        f"PPO's gold was not shown to fall up to {decimal(row['end']['kl'], 1)} nats, where it is"
        f" {signed(row['end']['gold'])}: this reward model was not over-optimised so far."
    )


def shows_fall(row: Row) -> bool:
    """Return True where beta is above 0 beyond chance: gold falls in the end by the fitted law."""
    return row["law"] is not None and row["law"]["beta"]["low"] > 0


def label(name: str) -> str:
    """Return a curve's name as the report writes it."""
    kind = next(kind for kind in KINDS if name.startswith(kind))
    reward = name.removeprefix(kind).removeprefix("-")
    return f"{KINDS[kind]}, {NAMES[reward]}" if reward else KINDS[kind]


def table(figures: Row) -> Grid:
    """Return curves x measures."""
    measures = ("alpha", "beta", "peak of the law, nats", "explained", "falls")
    heads = ("", *measures, "highest gold", "at, nats", "lost by the end")
    rows: list[tuple[str, ...]] = []
    for name, row in figures["curves"].items():
        law = row["law"]
        cells = [estimate(law[key], unbounded="never") for key in LAW] if law else [NONE] * len(LAW)
        explained = f"{100 * law['explained']:.0f}%" if law else NONE
        falls = "yes" if shows_fall(row) else "not shown"
        measured = (signed(row["peak_gold"]), decimal(row["peak_kl"]), estimate(row["lost"]))
        rows.append((label(name), *cells, explained, falls, *measured))
    for row in figures["dpo"]:
        rows.append(
            (row["name"].replace("dpo-", "DPO, beta "), *5 * (NONE,), signed(row["gold"]), decimal(row["kl"]), NONE)
        )
    note = f"Gains over the SFT model on {figures['prompts']} held-out prompts; intervals over prompts, one seed."
    return Grid("The laws, and what was measured", heads, rows, note)


def charts(figures: Row) -> list[Markup]:
    """Draw gold against the root of KL: of PPO by reward model, of the best of n by reward model, of the algorithms at
    the centre and against the ensemble; and gold beside reward at the centre."""
    rewards, centre, curves = figures["rewards"], figures["centre"], figures["curves"]

    def series(name: str, colour: int, key: str = "gold", title: str = "") -> Series:
        points = [(math.sqrt(max(0.0, point["kl"])), point[key]) for point in curves[name]["points"]]
        return Series(title or label(name), points, colour)

    def of_rewards(kind: str) -> list[Series]:
        return [series(f"{kind}-{name}", i, title=NAMES[name]) for i, name in enumerate(rewards, start=1)]

    algorithms = [series(f"{kind}-{centre}", i, title=KINDS[kind]) for i, kind in enumerate(("ppo", BEST_OF_N), 1)]
    algorithms += [series(name, i) for i, name in enumerate(COMPARED, 3)]
    dpo = [(math.sqrt(max(0.0, point["kl"])), point["gold"]) for point in figures["dpo"]]
    algorithms.append(Series("DPO, by beta", sorted(dpo), len(algorithms) + 1))
    against = [
        series(name, i, title=KINDS[name.removesuffix(f"-{ENSEMBLE}")]) for i, name in enumerate(AGAINST_WORST, 1)
    ]
    truth = [
        series(f"ppo-{centre}", 1, title="gold"),
        series(f"ppo-{centre}", 2, "reward", "reward that was trained on"),
    ]
    drawn = (
        ("PPO: gold over √KL, by reward model", of_rewards("ppo")),
        ("Best of n: gold over √KL, by reward model", of_rewards(BEST_OF_N)),
        ("Gold over √KL, by algorithm, all labels", algorithms),
        ("Gold over √KL, against the worst of three reward models", against),
        ("PPO, all labels: gold and reward over √KL", truth),
    )
    drawn_charts = [line_chart(title, lines, "root of KL") for title, lines in drawn]
    return [chart for chart in drawn_charts if chart is not None]


def page(figures: Row, command: str) -> str:
    """Return the whole page; nothing in it is fetched from anywhere."""
    return render(
        "overopt.jinja",
        css="report.css",
        js="report.js",
        headline=figures["headline"],
        charts=charts(figures),
        grid=table(figures),
        command=command,
    )
