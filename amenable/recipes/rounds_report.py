"""The report of rounds of labelling: rounds.json, rounds.html, and a table on the terminal.

Of every policy gold (where a world knows it), the reward that the newest reward model gives, and its win rate against
the policy before; of every round its labels, the agreement of annotators, and the accuracy of its reward model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup
from rich.console import Console

from amenable.claims.stage_folders import number, read_json
from amenable.data.files import read_json_lines
from amenable.data.types import Message, Ranking
from amenable.evaluation.preference import DECODINGS, mean_win_rate
from amenable.feedback.agreement import by_item, pair_labels, pairwise_agreement
from amenable.files import write_text
from amenable.recipes import rounds_labels
from amenable.recipes.reports import formatting
from amenable.recipes.reports.charts import Series, line_chart
from amenable.recipes.reports.compare_policies import gain
from amenable.recipes.reports.curves import measured_series
from amenable.recipes.reports.formatting import NONE, change, decimal, percent, share
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.report_data import headline_judges, preference_of
from amenable.recipes.reports.terminal import Grid, fixed_width, print_lines, rich_table
from amenable.recipes.rounds_labels import Round

Row = dict[str, Any]

MEASURES = ("gold", "gold_low", "gold_high", "reward", "kl", "length", "truthful", "harmful")


def write(evaluation: Path, rounds: Sequence[Round], old: Mapping[str, Path], command: str) -> None:
    """Write rounds.json and rounds.html beside an evaluation of finished rounds, and print the tables.

    rounds: in their order, last the one-shot baseline, where there is one. old: the policies from before, by name,
    SFT first.
    """
    figures, out = collect(evaluation, rounds, old), evaluation.parent
    write_text(out / "rounds.json", json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(out / "rounds.html", page(figures, command))
    print_rounds(figures, out / "rounds.html", Console())


def collect(evaluation: Path, rounds: Sequence[Round], old: Mapping[str, Path]) -> Row:
    """Return everything that rounds.json holds."""
    results = read_json(evaluation / "evaluation.json") or {"models": {}, "preference": []}
    rows, judges = read_json_lines(evaluation / "samples.jsonl"), headline_judges(results)
    return {
        "prompts": len(rows),
        "judges": judges,
        "old": list(old),
        "rounds": [round_row(turn, old) for turn in rounds],
        "models": {name: model_row(figures) for name, figures in results["models"].items()},
        "against": [against_row(*pair, results, rows, judges) for pair in compared_pairs(rounds, list(old))],
    }


def compared_pairs(rounds: Sequence[Round], old: Sequence[str]) -> list[tuple[str, str]]:
    """Return pairs (new, old): every round with the policy before it, the last with SFT and the one-shot baseline."""
    names = [turn.name for turn in rounds if turn.rounds == 1]
    pairs = list(zip(names, [old[-1], *names]))
    others = [old[0], *(turn.name for turn in rounds if turn.rounds > 1)]
    return pairs + [(names[-1], other) for other in others if (names[-1], other) not in pairs]


def round_row(turn: Round, old: Mapping[str, Path]) -> Row:
    """Return a round's labels and the results of its reward model and policy."""
    rows = turn.rankings
    labels, reward, policy = (
        read_json(path / "finished.json") for path in (turn.annotations, turn.reward, turn.policy)
    )
    splits = {name: (reward or {}).get(name) for name in ("validation", "heldout")}
    return {
        "name": turn.name,
        "at_once": turn.rounds > 1,
        **sampled_policies(turn, rows, old),
        "labels": {
            "prompts": len({row["id"] for row in rows}),
            "rankings": len(rows),
            "pairs": sum(a != b for row in rows for a, b in combinations(row["ranking"], 2)),
            "seconds": sum(row["seconds"] for row in rows) if rows and "seconds" in rows[0] else None,
        },
        "agreement": people_agreement(rows) if labels is None else number(labels, "agreement.all"),
        "accuracy": {
            name: {key: number(figures, key) for key in ("accuracy", "low", "high", "pairs")}
            for name, figures in splits.items()
            if figures
        },
        "score": number(policy, "objective/scores"),
        "kl": number(policy, "objective/kl"),
    }


def sampled_policies(turn: Round, rows: Sequence[Row], old: Mapping[str, Path]) -> Row:
    """Return the policies whose answers were ranked, and the newest one's win rate against the best before it."""
    sft = next(iter(old))
    if not turn.before:
        return {"newest": sft, "best": sft, "newest_preferred": None}
    newest, best = turn.before[-1], rounds_labels.best_previous_policy(turn, old[sft])
    name = next((earlier.name for earlier in turn.before if earlier.policy == best), sft)
    return {
        "newest": newest.name,
        "best": name,
        "newest_preferred": rounds_labels.win_rate(rows, newest.policy, best),
    }


def people_agreement(rows: Sequence[Row]) -> float | None:
    """Return the share of pairs on which people agree who ranked the same answers; None where nobody did."""
    rankings = [
        Ranking(
            tuple(Message(message["role"], message["content"]) for message in row["prompt"]),
            tuple(row["completions"]),
            tuple(map(float, row["ranking"])),
            row["id"],
            row["annotator"],
        )
        for row in rows
    ]
    return pairwise_agreement([pair_labels(item) for item in by_item(rankings)]).share


def model_row(figures: Row) -> Row:
    """Return a policy's figures, by decoding."""
    by_decoding = {"sampled": figures, "greedy": figures.get("greedy") or {}}
    return {decoding: {key: number(values, key) for key in MEASURES} for decoding, values in by_decoding.items()}


def against_row(new: str, old: str, evaluation: Row, rows: Sequence[Row], judges: str | None) -> Row:
    """Return preference and gains of the policy `new` over `old`, by decoding."""
    row: Row = {"new": new, "old": old}
    for decoding in DECODINGS:
        pairs = [(sample["answers"][old][decoding], sample["answers"][new][decoding]) for sample in rows]
        row[decoding] = {
            "preference": preference_of(evaluation, new, old, decoding, judges) if judges else None,
            "gold": gain(pairs, "gold"),
            "reward": gain(pairs, "reward"),
            "reward_agrees": reward_agreement(pairs),
        }
    return row


def reward_agreement(pairs: Sequence[tuple[Row, Row]]) -> Row | None:
    """Return the share of prompts on which reward and gold prefer the same answer, where both see a difference."""
    gaps = [[gap(a, b, key) for key in ("gold", "reward")] for a, b in pairs]
    votes = [float((gold > 0) == (reward > 0)) for gold, reward in gaps if gold and reward]
    return mean_win_rate(torch.tensor(votes, dtype=torch.float64)) if votes else None


def gap(a: Row, b: Row, key: str) -> float | None:
    """Return b's figure less a's; None where either was not measured."""
    low, high = number(a, key), number(b, key)
    return None if low is None or high is None else high - low


def print_rounds(figures: Row, page: Path, console: Console) -> None:
    """Print the rounds on a terminal."""
    console = fixed_width(console, 150)
    for grid in grids(figures):
        print_lines(console, ["", grid.title])
        console.print(rich_table(grid))
    print_lines(console, [*headline(figures), f"page: {page}"], soft_wrap=True)


def grids(figures: Row) -> list[Grid]:
    """Return the tables of the page and the terminal."""
    rounds = [round_cells(row) for row in figures["rounds"]]
    models = [model_cells(name, row) for name, row in figures["models"].items()]
    against = [against_cells(row) for row in figures["against"]]
    title = f"The policies on {figures['prompts']} prompts that none has seen"
    return [
        Grid("What was asked, and learned", ROUND_HEADS, rounds, ROUND_NOTE),
        Grid(title, MODEL_HEADS, models, MODEL_NOTE),
        Grid("One against another", AGAINST_HEADS, against, AGAINST_NOTE),
    ]


ROUND_HEADS = ("", "answers by", "rankings", "pairs", "agreement", "accuracy", "of others", "newest preferred", "score")
ROUND_NOTE = (
    "agreement: of two annotators; accuracy: of the reward model on held-out rankings of the rounds, and on others that"
    " the base run holds out; newest preferred: to the best before it, in the labels; score: of PPO, by its own reward"
    " model"
)
MODEL_HEADS = ("", "gold, sampled", "gold, greedy", "reward, sampled", "reward, greedy", "KL", "words")
MODEL_NOTE = "95 % intervals; the reward is the newest reward model's, whichever a policy has learned from"
AGAINST_HEADS = (
    *("", "preferred, sampled", "preferred, greedy", "gold, sampled", "gold, greedy"),
    "reward sides with gold",
)
AGAINST_NOTE = (
    "preferred: in both orders, ties half; reward sides with gold: of the prompts where both see a difference; all"
    " intervals are over prompts, and say nothing of how other runs of the same training would differ"
)


def round_cells(row: Row) -> tuple[str, ...]:
    """Return a row of the table of rounds."""
    return (
        display_name(row["name"]),
        ", ".join(map(display_name, dict.fromkeys((row["newest"], row["best"])))),
        f"{row['labels']['rankings']:,}",
        f"{row['labels']['pairs']:,}",
        percent(row["agreement"]),
        *(share(row["accuracy"].get(name), "accuracy") for name in ("validation", "heldout")),
        share(row["newest_preferred"]),
        decimal(row["score"]),
    )


def model_cells(name: str, row: Row) -> tuple[str, ...]:
    """Return a row of the table of policies."""
    sampled = row["sampled"]
    figures = (with_interval(row[decoding], key) for key in ("gold", "reward") for decoding in DECODINGS)
    return (display_name(name), *figures, decimal(sampled["kl"]), decimal(sampled["length"], 1))


def against_cells(row: Row) -> tuple[str, ...]:
    """Return a row of the table of comparisons."""
    preferences = [share(row[decoding]["preference"]) for decoding in DECODINGS]
    gains = [row[decoding]["gold"] for decoding in DECODINGS]
    golds = [change(gain) if gain else NONE for gain in gains]
    agreement = share(row["sampled"]["reward_agrees"])
    return (f"{display_name(row['new'])} over {display_name(row['old'])}", *preferences, *golds, agreement)


def with_interval(figures: Row, key: str) -> str:
    """Return a figure, with its interval where it has one."""
    low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
    interval = f" ({decimal(low)} to {decimal(high)})" if low is not None and high is not None else ""
    return decimal(figures[key]) + interval


def display_name(name: str) -> str:
    """Return a policy's name as the report writes it.

    >>> display_name("round-2"), display_name("sft"), display_name("once-3")
    ('round 2', 'SFT', 'all at once')
    """
    return "all at once" if name.startswith("once-") else formatting.display_name(name).replace("round-", "round ")


def headline(figures: Row) -> list[str]:
    """Return the result in a few sentences: the labels, and the last round's policy against the others."""
    sentences, one_shot = [label_sentence(figures)], [row["name"] for row in figures["rounds"] if row["at_once"]]
    last = rounds_of(figures)[-1]["name"]
    for pair in (pair for pair in figures["against"] if pair["new"] == last):
        row, gold = pair["sampled"]["preference"], pair["sampled"]["gold"]
        if row is None:
            continue
        new, old = display_name(pair["new"]), display_name(pair["old"])
        gold_change = f"; its gold differs by {change(gold)}" if gold is not None else ""
        sentence = f"{new} is preferred to {old} on {share(row)} of {row['n']} prompts, sampled{gold_change}."
        conclusion = f" {verdict(row)}" if pair["old"] in one_shot else ""
        sentences.append(sentence[0].upper() + sentence[1:] + conclusion)
    return sentences


def rounds_of(figures: Row) -> list[Row]:
    """Return the rounds without the one-shot baseline."""
    return [row for row in figures["rounds"] if not row["at_once"]]


def label_sentence(figures: Row) -> str:
    """Return the number of labels and people's time as a sentence."""
    labels = [row["labels"] for row in rounds_of(figures)]
    rankings, pairs = (sum(row[key] for row in labels) for key in ("rankings", "pairs"))
    seconds = sum(row["seconds"] or 0.0 for row in labels)
    time = f" in {formatting.duration(seconds)} of people's time" if seconds else ""
    return f"{formatting.plural(len(labels), 'round')}, {rankings:,} rankings with {pairs:,} ordered pairs{time}."


def verdict(row: Row) -> str:
    """Return the conclusion on rounds against the one-shot baseline, from a preference with its interval."""
    if row["low"] > 0.5:
        return "Asking in rounds beat asking for as many labels at once."
    if row["high"] < 0.5:
        return "Asking in rounds did not beat asking for as many labels at once: it did worse."
    return "Asking in rounds did not beat asking for as many labels at once: no difference can be told at this size."


def charts(figures: Row) -> list[Markup]:
    """Draw gold by round, proxy against gold, and the reward model's accuracy."""
    names = [figures["old"][0], *(row["name"] for row in rounds_of(figures))]
    one_shot = [row["name"] for row in figures["rounds"] if row["at_once"]]
    steps = {name: float(i) for i, name in enumerate(names)} | dict.fromkeys(one_shot, len(names) - 1.0)

    def series(names: Sequence[str], decoding: str, key: str, label: str, colour: int) -> Series:
        models = [(steps[name], figures["models"][name][decoding]) for name in names if name in figures["models"]]
        return banded(label, [{"round": step, **row} for step, row in models], key, colour)

    def accuracy(split: str, label: str, colour: int) -> Series:
        rows = [(float(i), row["accuracy"].get(split) or {}) for i, row in enumerate(rounds_of(figures), start=1)]
        bounds = {"accuracy_low": "low", "accuracy_high": "high"}
        points = [{"round": i, **row} | {name: row.get(key) for name, key in bounds.items()} for i, row in rows]
        return banded(label, points, "accuracy", colour)

    gold = [series(names, "sampled", "gold", "sampled", 1), series(names, "greedy", "gold", "greedy", 2)]
    gold += [
        series(one_shot, decoding, "gold", f"all at once, {decoding}", colour)
        for decoding, colour in (("sampled", 3), ("greedy", 4))
    ]
    proxy = [series(names, "sampled", key, key, colour) for key, colour in (("reward", 5), ("gold", 1))]
    drawn = (
        line_chart("Gold after each round (0: SFT)", gold, "round"),
        line_chart("Proxy against gold, sampled", proxy, "round"),
        line_chart(
            "Accuracy of the reward model",
            [accuracy("validation", "new", 1), accuracy("heldout", "base run's", 3)],
            "round",
        ),
    )
    return [chart for chart in drawn if chart is not None]


def banded(label: str, rows: Sequence[Row], key: str, colour: int) -> Series:
    """Return a figure by round; with a band where more than one round has an interval."""
    series = measured_series(label, rows, "round", key, colour)
    return series if len(series.band) > 1 else Series(label, series.points, colour)


def page(figures: Row, command: str) -> str:
    """Return the whole page; nothing in it is fetched from anywhere."""
    return render(
        "rounds.jinja",
        css="report.css",
        js="report.js",
        headline=headline(figures),
        judge=formatting.JUDGES.get(figures["judges"] or ""),
        grids=grids(figures),
        charts=charts(figures),
        command=command,
    )
