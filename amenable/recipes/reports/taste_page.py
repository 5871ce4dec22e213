"""Report of `amenable real`: how often each model's answers keep the taste, beside what that costs.

The cost is the KL to the model as it was, the perplexity of the answers under it, and content: the share of an answer's
new words that are in a person's reference, less that of the first model's answer cut to as many words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from amenable.data.batches import shuffled
from amenable.data.files import read_json_lines
from amenable.evaluation.content import gain_at_equal_length, yes_or_no
from amenable.evaluation.metrics import perplexity
from amenable.functional.statistics import bootstrap_mean, wilson
from amenable.recipes.reports.charts import Series, line_chart
from amenable.recipes.reports.formatting import NONE, decimal, estimate, interval, percent
from amenable.recipes.reports.publish import publish
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.terminal import Grid
from amenable.seeds import seeded_generator

Row = dict[str, Any]

BASE, PROMPTED = "base", "prompted"
POLICIES = ("resampled", "rloo", "ppo", "dpo", "distilled")
"""trained models, that of the headline first"""
EVALUATIONS = "evaluate-base", "evaluate", "evaluate-rloo", "evaluate-resampled"
"""folders of answers, first those of the model as it was; the last is there where the taste scores"""
NAMES = {
    "base": "the model as it was",
    "prompted": "with the instruction",
    "best of n": "best of 16",
    "dpo": "DPO",
    "dpo prompted": "DPO with the instruction",
    "ppo": "PPO",
    "rloo": "RLOO",
    "resampled": "resampling and SFT",
    "distilled": "the instruction, distilled",
}
MAX_PERPLEXITY, MIN_CONTENT, SLACK = 8.0, -0.03, 0.05
"""aims of a policy: perplexity under the model as it was; lower end of the interval of its content; how far its rate
may be below that of the instruction"""
SAMPLES, WORSE = 8, 6
"""prompts whose answers are shown: drawn at random, and where content falls most"""


@dataclass(frozen=True)
class Settings:
    """Configuration of a run as the report names it."""

    taste: str
    is_brief: bool
    """True for the default taste"""
    instruction: str
    kl_budget: float


def write(folder: Path, roots: Sequence[Path], settings: Settings) -> Path:
    """Write report.json and report.html, print the table, and return the folder."""
    figures = collect(roots, settings)
    page = report_page(figures, f"amenable real --out {folder}")
    return publish(folder, "report", figures, page, table(figures), 120)


def collect(roots: Sequence[Path], settings: Settings) -> Row:
    """Return the figures of all models over the prompts of all roots, a headline, and examples."""
    rows = [row for root in roots for row in read_answers(root)]
    models = [name for name in NAMES if any(name in row["answers"] for row in rows)]
    figures: Row = {
        "taste": settings.taste,
        "instruction": settings.instruction,
        "kl_budget": settings.kl_budget,
        "prompts": len(rows),
        "seeds": len(roots),
        "models": {name: model_figures(name, rows) for name in models},
    }
    return {**figures, "headline": headline(figures, settings), "examples": examples(rows, models)}


def read_answers(root: Path) -> Iterator[Row]:
    """Yield the prompts of a root with all models' answers, from all of its evaluations, each with the root's name and
    the reference answer of its prompt."""
    files = [root / name / "samples.jsonl" for name in EVALUATIONS]
    rows, *others = (read_json_lines(file) for file in files if file.exists())
    policies: dict[str, Row] = {row["id"]: {} for row in rows}
    for row in chain.from_iterable(others):
        policies[row["id"]] |= row["answers"]
    references = {row["id"]: row.get("reference") for row in read_json_lines(root / "prompts" / "test.jsonl")}
    for row in rows:
        answers = row["answers"] | policies[row["id"]]
        yield {**row, "answers": answers, "root": root.name, "reference": references[row["id"]]}


def model_figures(name: str, rows: Sequence[Row]) -> Row:
    """Return the figures of a model under both decodings; those of greedy answers are None where there are none."""
    figures = {}
    for decoding in ("sampled", "greedy"):
        answered = [row for row in rows if row["answers"].get(name, {}).get(decoding)]
        figures[decoding] = decoding_figures(name, decoding, answered) if answered else None
    return figures


def decoding_figures(name: str, decoding: str, rows: Sequence[Row]) -> Row:
    """Return rate, length, KL, perplexity and content of a model's answers, with intervals over prompts."""
    answers = [row["answers"][name][decoding] for row in rows]
    scores, count = [answer["reward"] for answer in answers], len(answers)
    is_rate = set(scores) <= {0.0, 1.0}
    low, high = wilson(sum(scores), count) if is_rate else mean_interval(scores)[1:]
    seeds = dict.fromkeys(row["root"] for row in rows)
    by_seed = [[s for s, row in zip(scores, rows) if row["root"] == root] for root in seeds]
    return {
        "n": count,
        "is_rate": is_rate,
        "score": sum(scores) / count,
        "low": low,
        "high": high,
        "by_seed": [sum(values) / len(values) for values in by_seed],
        "ended": sum(answer["ended"] for answer in answers) / count,
        "words": sum(len(answer["text"].split()) for answer in answers) / count,
        "kl": sum(answer["kl"] for answer in answers) / count,
        "perplexity": perplexity(answers),
        "content": content(name, decoding, rows),
    }


def content(name: str, decoding: str, rows: Sequence[Row]) -> Row | None:
    """Return the mean gain of content at equal length over the first model, with its interval; None for that model
    itself, and without reference answers."""
    if name == BASE:
        return None
    gains = [gain for row in rows if (gain := gain_of(row, name, decoding)) is not None]
    if not gains:
        return None
    value, low, high = mean_interval(gains)
    return {"value": value, "low": low, "high": high, "n": len(gains)}


def gain_of(row: Row, name: str, decoding: str) -> float | None:
    """Return the content that an answer gains at equal length; None without a reference."""
    before = row["answers"].get(BASE, {}).get(decoding)
    if row["reference"] is None or before is None:
        return None
    prompt = row["prompt"][-1]["content"]
    return gain_at_equal_length(row["answers"][name][decoding]["text"], before["text"], prompt, row["reference"])


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of some values with its bootstrap interval."""
    return bootstrap_mean(torch.tensor(values, dtype=torch.float64), seeded_generator(0, "taste"))


def headline(figures: Row, settings: Settings) -> list[str]:
    """Return the result in sentences: what was learned and by how much the policy misses the aims, the rates, and by
    how much the other policies miss the aims."""
    models = {name: row["sampled"] for name, row in figures["models"].items()}
    trained = [name for name in POLICIES if name in models]
    if not trained:
        return ["No policy was trained."]
    policy, *others = trained
    lessons = "The model learned to stop, not to know more; " if settings.is_brief else ""
    lines = [f"{lessons}{verdict(models, policy, settings)}."]
    after, before = models[policy], models[BASE]
    where = f"{after['n']} questions that it was not trained on"
    lines.append(
        f"Answers of {NAMES[policy]} score {score_text(after)} on {where}, at {decimal(after['kl'])} nats from the"
        f" model as it was, whose answers score {score_text(before)}."
    )
    if PROMPTED in models:
        lines.append(f"Asked '{settings.instruction}' the model as it was scores {score_text(models[PROMPTED])}.")
    if others:
        lines.append(f"Beside it: {'; '.join(verdict(models, name, settings) for name in others)}.")
    return lines


def verdict(models: Mapping[str, Row], name: str, settings: Settings) -> str:
    """Return whether a policy meets every aim, or by how much it falls short."""
    lacks = misses(models, name, settings)
    return f"{NAMES[name]} falls short: it {', '.join(lacks)}" if lacks else f"{NAMES[name]} meets every aim"


def misses(models: Mapping[str, Row], name: str, settings: Settings) -> list[str]:
    """Return the aims that a policy misses, and by how much."""
    row, missed = models[name], []
    if PROMPTED in models and row["is_rate"] and (gap := models[PROMPTED]["score"] - row["score"]) > SLACK:
        missed.append(f"scores {100 * gap:.0f} points less than the instruction ({100 * SLACK:.0f} are allowed)")
    if row["kl"] > settings.kl_budget:
        missed.append(f"is {row['kl'] - settings.kl_budget:.2g} nats beyond the KL budget")
    if row["perplexity"] > MAX_PERPLEXITY:
        missed.append(f"has a perplexity of {row['perplexity']:.1f}, above {MAX_PERPLEXITY:g}")
    if row["content"] is not None and row["content"]["low"] < MIN_CONTENT:
        missed.append(f"may lose {-row['content']['low']:.3f} of content, more than {-MIN_CONTENT:g}")
    return missed


def score_text(row: Row) -> str:
    """Return a score with its interval, as per cent where it is a rate."""
    if row["is_rate"]:
        return f"{percent(row['score'])} ({interval(row['low'], row['high'])})"
    return f"{decimal(row['score'])} ({decimal(row['low'])} to {decimal(row['high'])})"


def table(figures: Row) -> Grid:
    """Return models x measures, sampled, and the score of greedy answers."""
    heads = ("", "score", "greedy", "ended", "words", "KL, nats", "perplexity", "content at equal length")
    rows = []
    for name, row in figures["models"].items():
        sampled, greedy = row["sampled"], row["greedy"]
        rows.append(
            (
                NAMES[name],
                score_text(sampled),
                score_text(greedy) if greedy else NONE,
                percent(sampled["ended"]),
                decimal(sampled["words"], 0),
                decimal(sampled["kl"]),
                decimal(sampled["perplexity"], 1),
                estimate(sampled["content"], 3),
            )
        )
    note = (
        f"{figures['prompts']} prompts, {figures['seeds']} seed{'s' * (figures['seeds'] > 1)}; intervals over prompts"
    )
    return Grid("All ways side by side", heads, rows, note)


def chart(figures: Row) -> Markup | None:
    """Draw score against KL, a dot a model, and for rates the least KL of each rate."""
    models = {name: row["sampled"] for name, row in figures["models"].items()}
    series = [
        Series(NAMES[name], [(row["kl"], row["score"])], colour)
        for colour, (name, row) in enumerate(models.items(), start=1)
    ]
    start = models[BASE]["score"]
    if all(row["is_rate"] for row in models.values()) and 0 < start < 1:
        rates = [start + (0.999 - start) * i / 40 for i in range(41)]
        series.append(Series("least KL, were all prompts alike", [(least_kl(r, start), r) for r in rates], 0))
    return line_chart("Score against KL in nats, sampled", series, "KL, nats")


def least_kl(rate: float, start: float) -> float:
    """Return KL(Bernoulli(rate) || Bernoulli(start)) in nats: no policy changes a rate at less (data processing)."""
    return rate * math.log(rate / start) + (1 - rate) * math.log((1 - rate) / (1 - start))


def examples(rows: Sequence[Row], models: Sequence[str]) -> Row:
    """Return prompts with all models' answers: drawn at random; where the headline's policy loses most content; and yes
    or no questions whose answer changed from that of the reference."""
    policy = next((name for name in POLICIES if name in models), None)
    if policy is None:
        return {"random": [], "worse": [], "turned": []}
    gains = [(gain, i) for i, row in enumerate(rows) if (gain := gain_of(row, policy, "sampled")) is not None]
    worse = [example(rows[i], models) for _, i in sorted(gains)[:WORSE]]
    chosen = sorted(shuffled(len(rows), 0, 1)[:SAMPLES])
    return {
        "random": [example(rows[i], models) for i in chosen],
        "worse": worse,
        "turned": [example(row, models) for row in rows if has_turned(row, policy)],
        "yes_or_no": {name: right_answers(rows, name) for name in (BASE, policy)},
    }


def has_turned(row: Row, policy: str) -> bool:
    """Return True where the first model's greedy yes or no is the reference's and the policy's is the other."""
    right = yes_or_no(row["reference"] or "")
    before, after = (yes_or_no(row["answers"][name]["greedy"]["text"]) for name in (BASE, policy))
    return right is not None and before == right and after not in (right, None)


def right_answers(rows: Sequence[Row], name: str) -> Row:
    """Count the questions whose reference begins with yes or no, and a model's greedy answers that begin alike."""
    pairs = [(yes_or_no(row["reference"] or ""), yes_or_no(row["answers"][name]["greedy"]["text"])) for row in rows]
    questions = [pair for pair in pairs if pair[0] is not None]
    answered = [pair for pair in questions if pair[1] is not None]
    return {"questions": len(questions), "answered": len(answered), "right": sum(a == b for a, b in answered)}


def example(row: Row, models: Sequence[str]) -> Row:
    """Return a prompt, its reference, and each model's sampled answer."""
    sampled = [(i, name, row["answers"].get(name, {}).get("sampled")) for i, name in enumerate(models, start=1)]
    answers = [{"name": NAMES[name], "colour": i, **answer} for i, name, answer in sampled if answer]
    return {"prompt": row["prompt"], "kind": row["kind"], "reference": row["reference"], "answers": answers}


def report_page(figures: Row, command: str) -> str:
    """Return the whole page; nothing in it is fetched from anywhere."""
    return render(
        "taste.jinja",
        css="report.css",
        js="report.js",
        figures=figures,
        grid=table(figures),
        chart=chart(figures),
        decimal=decimal,
        command=command,
    )
