"""Report of `amenable personalize`: what a person preferred, and the model's answers before and after.

Figures of answers are means over held-out prompts, changes are paired by prompt, with bootstrap intervals over prompts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from amenable.data.batches import shuffled
from amenable.data.files import read_json_lines
from amenable.evaluation.content import gain_at_equal_length
from amenable.evaluation.metrics import perplexity
from amenable.evaluation.preference import DECODINGS, mean_win_rate
from amenable.feedback.consistency import order_of, split_contradictory
from amenable.functional.statistics import bootstrap_mean, decisive_size
from amenable.recipes.reports.formatting import decimal, duration, estimate, percent, plural, share
from amenable.recipes.reports.publish import publish
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.terminal import Grid
from amenable.recipes.rounds_labels import Round, prompt_key
from amenable.seeds import seeded_generator

Row = dict[str, Any]

BEFORE = "before"
EXAMPLES = 12
"""prompts whose answers are shown, drawn at random"""
HEADS = ("", "words", "change of words", "ended", "KL, nats", "perplexity", "content at equal length")
NOTE = (
    "means over held-out questions, changes paired by question, with 95 % intervals over questions; KL and perplexity:"
    " of the answers under the model as it was; content: the share of an answer's new words that are in a person's"
    " answer, less that of the answer before, cut to as many words"
)


def write(folder: Path, evaluation: str, turns: Sequence[Round], kl_budget: float, command: str) -> None:
    """Write report.json and report.html into a folder that holds an evaluation, and print the table. kl_budget: nats an
    answer that the policies were to be within."""
    figures = collect(folder, evaluation, turns, kl_budget)
    grid = table(figures)
    page = render("personal.jinja", css="report.css", figures=figures, grid=grid, command=command)
    publish(folder, "report", figures, page, grid, 130)


def collect(folder: Path, evaluation: str, turns: Sequence[Round], kl_budget: float) -> Row:
    """Return everything that report.json holds."""
    prompts = {str(row["id"]): row for row in read_json_lines(folder / "prompts" / "test.jsonl")}
    rows = read_json_lines(folder / evaluation / "samples.jsonl")
    rows = [{**row, "reference": prompts[str(row["id"])].get("reference")} for row in rows]
    labels = [row for turn in turns for row in read_json_lines(turn.annotations / "labels.jsonl")]
    names = [BEFORE, *(turn.name for turn in turns)]
    figures: Row = {
        "prompts": len(rows),
        "kl_budget": kl_budget,
        "budget_prompts": len({row["id"] for row in read_json_lines(turns[-1].labels / "validation.jsonl")}),
        "labels": label_figures(labels),
        "models": {name: {each: answer_figures(name, each, rows) for each in DECODINGS} for name in names},
    }
    chosen = sorted(shuffled(len(rows), 0, 1)[:EXAMPLES])
    examples = [example(rows[i], [BEFORE, names[-1]]) for i in chosen]
    return {**figures, "headline": headline(figures), "examples": examples}


def label_figures(rows: Sequence[Row]) -> Row:
    """Return the number of comparisons, a person's time, agreement with themselves, and what the preferred answers
    have in common; shares with their intervals, None where there is no comparison to count."""
    consistent, contradictions = split_contradictory(rows)
    decided = [row for row in consistent if len(set(row["ranking"])) == 2]
    seconds = [float(row["seconds"]) for row in rows]
    return {
        "comparisons": len(rows),
        "prompts": len({row["id"] for row in rows}),
        "decided": len(decided),
        "contradictions": len(contradictions),
        "seconds": sum(seconds),
        "repeated_alike": share_of(repeated_alike(rows)),
        "shorter": share_of([float(gap < 0) for row in decided if (gap := preferred_gap(row, word_counts(row)))]),
        "ended": share_of([float(gap > 0) for row in decided if (gap := preferred_gap(row, ended_flags(row)))]),
    }


def share_of(values: Sequence[float]) -> Row | None:
    """Return the mean of values from 0 to 1 with its interval; None where there are none."""
    return mean_win_rate(torch.tensor(values, dtype=torch.float64)) if values else None


def repeated_alike(rows: Sequence[Row]) -> list[float]:
    """Return, for each pair that a person compared twice, 1 where the second answer was the first one, else 0."""
    by_pair: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        by_pair[row["annotator"], prompt_key(row), frozenset(row["completions"])].append(row)
    return [
        float(order_of(first) == order_of(second))
        for first, second, *_ in (each for each in by_pair.values() if len(each) > 1)
    ]


def preferred_gap(row: Row, values: Sequence[float]) -> float:
    """Return a figure of the preferred answer less that of the other."""
    better = 0 if row["ranking"][0] < row["ranking"][1] else 1
    return values[better] - values[1 - better]


def word_counts(row: Row) -> list[float]:
    """Return the number of words of each answer."""
    return [float(len(text.split())) for text in row["completions"]]


def ended_flags(row: Row) -> list[float]:
    """Return 1 for each answer that ended by itself, 0 for one that was cut."""
    return [float(ended) for ended in row.get("ended") or [True] * len(row["completions"])]


def answer_figures(name: str, decoding: str, rows: Sequence[Row]) -> Row:
    """Return length, change of length, KL, perplexity and content of a model's answers."""
    answers, before = ([row["answers"][each][decoding] for row in rows] for each in (name, BEFORE))
    words, words_before = ([len(answer["text"].split()) for answer in each] for each in (answers, before))
    gains = [
        gain_at_equal_length(after["text"], first["text"], row["prompt"][-1]["content"], row["reference"])
        for row, after, first in zip(rows, answers, before)
        if row["reference"] is not None
    ]
    is_base = name == BEFORE
    return {
        "words": sum(words) / len(rows),
        "change": None if is_base else mean_row([a - b for a, b in zip(words, words_before)]),
        "ended": sum(answer["ended"] for answer in answers) / len(rows),
        "kl": sum(answer["kl"] for answer in answers) / len(rows),
        "perplexity": perplexity(answers),
        "content": None if is_base or not gains else mean_row(gains),
    }


def mean_row(values: Sequence[float]) -> Row | None:
    """Return the mean of some values with its bootstrap interval; None for fewer than two."""
    if len(values) < 2:
        return None
    mean, low, high = bootstrap_mean(torch.tensor(values, dtype=torch.float64), seeded_generator(0, "personal"))
    return {"value": mean, "low": low, "high": high}


def headline(figures: Row) -> list[str]:
    """Return the result in sentences: the labels and what they say, and how the answers changed."""
    labels, last = figures["labels"], list(figures["models"])[-1]
    after, before = figures["models"][last]["sampled"], figures["models"][BEFORE]["sampled"]
    lines = [
        f"{plural(labels['comparisons'], 'comparison')} of {labels['prompts']} pairs in {duration(labels['seconds'])};"
        f" {labels['decided']} prefer an answer and contradict no other."
    ]
    lines += [
        preference_line(labels[key], of)
        for key, of in (("shorter", "the shorter answer"), ("ended", "the answer that ended over the one that was cut"))
        if labels[key]
    ]
    if labels["repeated_alike"]:
        lines.append(f"Of the pairs shown twice {share(labels['repeated_alike'])} were answered alike.")
    change = estimate(after["change"], 1)
    lines.append(
        f"On {figures['prompts']} held-out questions, sampled, the answers have {decimal(after['words'], 0)} words in"
        f" place of {decimal(before['words'], 0)}, a change of {change}, and {percent(after['ended'])} end by"
        f" themselves in place of {percent(before['ended'])}, at {decimal(after['kl'])} nats from the model as it was."
    )
    if after["kl"] > figures["kl_budget"]:
        lines.append(
            f"That is above the budget of {figures['kl_budget']:g} nats: training measures the KL on its"
            f" {figures['budget_prompts']} held-out comparisons, which is rough; a lower --kl-budget stays closer."
        )
    return lines


def preference_line(row: Row, of: str) -> str:
    """Return what share of the comparisons prefers an answer, and how many more would tell if these do not."""
    line = f"{of[0].upper()}{of[1:]} was preferred in {share(row)} of {row['n']}."
    if row["low"] <= 0.5 <= row["high"]:
        size = decisive_size(row["wins"])
        more = (
            f"about {size - row['n']} more at this rate would" if math.isfinite(size) else "no number at this rate will"
        )
        line = f"{line[:-1]}: too few to tell from chance, {more}."
    return line


def table(figures: Row) -> Grid:
    """Return the table of models and decodings."""
    rows = [
        (
            f"{name.replace('-', ' ')}, {decoding}",
            decimal(row["words"], 1),
            estimate(row["change"], 1),
            percent(row["ended"]),
            decimal(row["kl"]),
            decimal(row["perplexity"], 1),
            estimate(row["content"], 3),
        )
        for name, by_decoding in figures["models"].items()
        for decoding, row in by_decoding.items()
    ]
    return Grid(f"Before and after, on {figures['prompts']} questions", HEADS, rows, NOTE)


def example(row: Row, models: Sequence[str]) -> Row:
    """Return a prompt with the sampled answers of some models."""
    answers = [{"name": name, **pick(row["answers"][name]["sampled"])} for name in models]
    return {"prompt": row["prompt"], "answers": answers}


def pick(answer: Mapping[str, Any]) -> Row:
    """Return what an example shows of an answer."""
    return {"text": answer["text"], "ended": answer["ended"]}
