"""What rounds of labelling came to: rounds.json, rounds.html, and a table on the terminal.

Of every policy gold (where a world knows it), the reward that the newest reward model gives, and how often it is
preferred to the one before; of every round its labels, how far annotators agree, and how well its reward model orders
answers.
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
from amenable.feedback.agreement import by_item, pair_labels, pairwise_agreement
from amenable.files import write_text
from amenable.recipes import rounds_labels
from amenable.recipes.reports import compare_policies, words
from amenable.recipes.reports.charts import Point, Series, line_chart
from amenable.recipes.reports.comparison_page import Grid, change, drawn
from amenable.recipes.reports.rendering import render
from amenable.recipes.reports.report_data import judges_of, preferred
from amenable.recipes.rounds_labels import Turn

Row = dict[str, Any]

DECODINGS = ("sampled", "greedy")
MEASURES = ("gold", "gold_low", "gold_high", "reward", "kl", "length", "truthful", "harmful")


def write(evaluation: Path, turns: Sequence[Turn], old: Mapping[str, Path], command: str) -> None:
    """Write rounds.json and rounds.html beside an evaluation of finished rounds, and print what they say.

    turns: the rounds, and last the one that asks for everything at once, where there is one. old: the policies from
    before, by name, SFT first.
    """
    found, out = figures(evaluation, turns, old), evaluation.parent
    write_text(out / "rounds.json", json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False))
    write_text(out / "rounds.html", page(found, command))
    tell(found, out / "rounds.html", Console())


def figures(evaluation: Path, turns: Sequence[Turn], old: Mapping[str, Path]) -> Row:
    """Everything that rounds.json holds."""
    measured = read_json(evaluation / "evaluation.json") or {"models": {}, "preference": []}
    rows, judges = read_json_lines(evaluation / "samples.jsonl"), judges_of(measured)
    return {
        "prompts": len(rows),
        "judges": judges,
        "old": list(old),
        "rounds": [round_of(turn, old) for turn in turns],
        "models": {name: measures(told) for name, told in measured["models"].items()},
        "against": [against(*pair, measured, rows, judges) for pair in pairs_of(turns, list(old))],
    }


def pairs_of(turns: Sequence[Turn], old: Sequence[str]) -> list[tuple[str, str]]:
    """Who is compared: every round with the policy before it, the last one with SFT and with what asks only once."""
    names = [turn.name for turn in turns if turn.rounds == 1]
    pairs = list(zip(names, [old[-1], *names]))
    others = [old[0], *(turn.name for turn in turns if turn.rounds > 1)]
    return pairs + [(names[-1], other) for other in others if (names[-1], other) not in pairs]


def round_of(turn: Turn, old: Mapping[str, Path]) -> Row:
    """A round's labels and what was learned from them."""
    rows = turn.rankings
    asked, judged, improved = (read_json(path / "finished.json") for path in (turn.asked, turn.reward, turn.policy))
    sets = {name: (judged or {}).get(name) for name in ("validation", "heldout")}
    return {
        "name": turn.name,
        "at_once": turn.rounds > 1,
        **answerers(turn, rows, old),
        "labels": {
            "prompts": len({row["id"] for row in rows}),
            "rankings": len(rows),
            "pairs": sum(a != b for row in rows for a, b in combinations(row["ranking"], 2)),
            "seconds": sum(row["seconds"] for row in rows) if rows and "seconds" in rows[0] else None,
        },
        "agreement": between_people(rows) if asked is None else number(asked, "agreement.all"),
        "accuracy": {
            name: {key: number(told, key) for key in ("accuracy", "low", "high", "pairs")}
            for name, told in sets.items()
            if told
        },
        "score": number(improved, "objective/scores"),
        "kl": number(improved, "objective/kl"),
    }


def answerers(turn: Turn, rows: Sequence[Row], old: Mapping[str, Path]) -> Row:
    """Whose answers were ranked, and how often the newest policy's were preferred to those of the best before it."""
    sft = next(iter(old))
    if not turn.before:
        return {"newest": sft, "best": sft, "newest_preferred": None}
    newest, best = turn.before[-1], rounds_labels.best_before(turn, old[sft])
    name = next((one.name for one in turn.before if one.policy == best), sft)
    share = rounds_labels.preferred(rows, newest.policy, best)
    return {"newest": newest.name, "best": name, "newest_preferred": share}


def between_people(rows: Sequence[Row]) -> float | None:
    """Share of pairs on which people agree who ranked the same answers; None where nobody did."""
    rankings = [
        Ranking(
            tuple(Message(turn["role"], turn["content"]) for turn in row["prompt"]),
            tuple(row["completions"]),
            tuple(map(float, row["ranking"])),
            row["id"],
            row["annotator"],
        )
        for row in rows
    ]
    return pairwise_agreement([pair_labels(item) for item in by_item(rankings)]).share


def measures(told: Row) -> Row:
    """A policy's figures, by decoding."""
    by_decoding = {"sampled": told, "greedy": told.get("greedy") or {}}
    return {decoding: {key: number(found, key) for key in MEASURES} for decoding, found in by_decoding.items()}


def against(new: str, old: str, evaluation: Row, rows: Sequence[Row], judges: str | None) -> Row:
    """How much better one policy is than another, by decoding."""
    told: Row = {"new": new, "old": old}
    for decoding in DECODINGS:
        said = [(row["answers"][old][decoding], row["answers"][new][decoding]) for row in rows]
        told[decoding] = {
            "preference": preferred(evaluation, new, old, decoding, judges) if judges else None,
            "gold": compare_policies.gain(said, "gold"),
            "reward": compare_policies.gain(said, "reward"),
            "reward_agrees": sides(said),
        }
    return told


def sides(said: Sequence[tuple[Row, Row]]) -> Row | None:
    """On which share of prompts the reward model prefers the answer of more gold, where both tell a difference."""
    gaps = [[difference(a, b, key) for key in ("gold", "reward")] for a, b in said]
    votes = [float((gold > 0) == (reward > 0)) for gold, reward in gaps if gold and reward]
    return rounds_labels.mean_win_rate(torch.tensor(votes, dtype=torch.float64)) if votes else None


def difference(a: Row, b: Row, key: str) -> float | None:
    """How much more b has of something; None where it was not measured."""
    low, high = number(a, key), number(b, key)
    return None if low is None or high is None else high - low


def tell(found: Row, page: Path, console: Console) -> None:
    """The rounds on a terminal."""
    if not console.is_terminal:
        console = Console(file=console.file, width=150)
    for grid in grids(found):
        console.print()
        console.print(grid.title, highlight=False, markup=False)
        console.print(drawn(grid))
    for line in (*headline(found), f"page: {page}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def grids(found: Row) -> list[Grid]:
    """The tables of the page and the terminal."""
    models = [
        (told_name(name), *(cell(told[decoding], key) for key in ("gold", "reward") for decoding in DECODINGS))
        + tuple(words.plain(told["sampled"][key], digits) for key, digits in (("kl", 2), ("length", 1)))
        for name, told in found["models"].items()
    ]
    heads = ("", "gold, sampled", "gold, greedy", "reward, sampled", "reward, greedy", "KL", "words")
    note = "95 % intervals; the reward is the newest reward model's, whichever a policy has learned from"
    return [
        Grid("What was asked, and learned", ROUND_HEADS, [round_cells(one) for one in found["rounds"]], ROUND_NOTE),
        Grid(f"The policies on {found['prompts']} prompts that none has seen", heads, models, note),
        Grid("One against another", AGAINST_HEADS, [against_cells(one) for one in found["against"]], AGAINST_NOTE),
    ]


ROUND_HEADS = ("", "answers by", "rankings", "pairs", "agreement", "accuracy", "of others", "newest preferred", "score")
ROUND_NOTE = (
    "agreement: of two annotators; accuracy: of the reward model on held-out rankings of the rounds, and on others that"
    " the home keeps; newest preferred: to the best before it, in the labels; score: of PPO, by its own reward model"
)
AGAINST_HEADS = (
    "",
    "preferred, sampled",
    "preferred, greedy",
    "gold, sampled",
    "gold, greedy",
    "reward sides with gold",
)
AGAINST_NOTE = (
    "preferred: in both orders, ties half; reward sides with gold: of the prompts where both see a difference; all"
    " intervals are over prompts, and say nothing of how other runs of the same training would differ"
)


def round_cells(one: Row) -> tuple[str, ...]:
    """A row of the first table."""
    both = dict.fromkeys((one["newest"], one["best"]))
    accuracy = [share(one["accuracy"].get(name), "accuracy") for name in ("validation", "heldout")]
    return (
        told_name(one["name"]),
        ", ".join(map(told_name, both)),
        f"{one['labels']['rankings']:,}",
        f"{one['labels']['pairs']:,}",
        words.percent(one["agreement"]),
        *accuracy,
        share(one["newest_preferred"]),
        words.plain(one["score"]),
    )


def against_cells(one: Row) -> tuple[str, ...]:
    """A row of the last table."""
    preferences = [share(one[decoding]["preference"]) for decoding in DECODINGS]
    golds = [change(told) if (told := one[decoding]["gold"]) else words.NONE for decoding in DECODINGS]
    agrees = share(one["sampled"]["reward_agrees"])
    return (f"{told_name(one['new'])} over {told_name(one['old'])}", *preferences, *golds, agrees)


def cell(told: Row, key: str) -> str:
    """A figure, with its interval where it has one."""
    low, high = told.get(f"{key}_low"), told.get(f"{key}_high")
    within = f" ({words.plain(low)} to {words.plain(high)})" if low is not None and high is not None else ""
    return words.plain(told[key]) + within


def share(told: Row | None, key: str = "wins") -> str:
    """A share with its interval."""
    if told is None or told[key] is None:
        return words.NONE
    return f"{words.percent(told[key])} ({words.span(told['low'], told['high'])})"


def told_name(name: str) -> str:
    """
    >>> told_name("round-2"), told_name("sft"), told_name("once-3")
    ('round 2', 'SFT', 'all at once')
    """
    return "all at once" if name.startswith("once-") else words.name_of(name).replace("round-", "round ")


def headline(found: Row) -> list[str]:
    """What a reader should leave with, a sentence each: what the last round's policy has come to."""
    told, at_once = [spent(found)], [one["name"] for one in found["rounds"] if one["at_once"]]
    last = next(one["name"] for one in reversed(found["rounds"]) if not one["at_once"])
    for one in (one for one in found["against"] if one["new"] == last):
        row, gold = one["sampled"]["preference"], one["sampled"]["gold"]
        if row is None:
            continue
        new, old = told_name(one["new"]), told_name(one["old"])
        moved = f"; its gold differs by {change(gold)}" if gold is not None else ""
        said = f"{new} is preferred to {old} on {share(row)} of {row['n']} prompts, sampled{moved}."
        told.append(said[0].upper() + said[1:] + (f" {verdict(row)}" if one["old"] in at_once else ""))
    return told


def spent(found: Row) -> str:
    """How many labels the rounds took."""
    rounds = [one for one in found["rounds"] if not one["at_once"]]
    rankings, pairs = (sum(one["labels"][key] for one in rounds) for key in ("rankings", "pairs"))
    seconds = sum(one["labels"]["seconds"] or 0.0 for one in rounds)
    time = f" in {words.duration(seconds)} of people's time" if seconds else ""
    count = f"{len(rounds)} round{'s' if len(rounds) > 1 else ''}"
    return f"{count}, {rankings:,} rankings with {pairs:,} ordered pairs{time}."


def verdict(row: Row) -> str:
    """Whether asking in rounds was worth it, from a preference with its interval."""
    if row["low"] > 0.5:
        return "Asking in rounds beat asking for as many labels at once."
    if row["high"] < 0.5:
        return "Asking in rounds did not beat asking for as many labels at once: it did worse."
    return "Asking in rounds did not beat asking for as many labels at once: no difference can be told at this size."


def charts(found: Row) -> list[Markup]:
    """Gold by round, proxy against gold, and the reward model's accuracy."""
    names = [found["old"][0], *(one["name"] for one in found["rounds"] if not one["at_once"])]
    at_once = [one["name"] for one in found["rounds"] if one["at_once"]]
    places = {name: float(place) for place, name in enumerate(names)} | dict.fromkeys(at_once, len(names) - 1.0)
    gold = [
        curve(found, names, places, decoding, "gold", decoding, colour)
        for decoding, colour in (("sampled", 1), ("greedy", 2))
    ]
    once = [
        curve(found, at_once, places, decoding, "gold", f"all at once, {decoding}", colour)
        for decoding, colour in (("sampled", 3), ("greedy", 4))
    ]
    proxy = [curve(found, names, places, "sampled", key, key, colour) for key, colour in (("reward", 5), ("gold", 1))]
    accuracy = [
        accuracies(found, name, said, colour)
        for name, said, colour in (("validation", "new", 1), ("heldout", "home's", 3))
    ]
    made = (
        line_chart("Gold after each round (0: SFT)", [*gold, *once], "round"),
        line_chart("Proxy against gold, sampled", proxy, "round"),
        line_chart("Accuracy of the reward model", accuracy, "round"),
    )
    return [chart for chart in made if chart is not None]


def curve(
    found: Row, names: Sequence[str], places: Mapping[str, float], decoding: str, key: str, said: str, colour: int
) -> Series:
    """A figure of some policies, with its interval where there is one."""
    known = [(places[name], found["models"][name][decoding]) for name in names if name in found["models"]]
    points: list[Point] = [(x, told[key]) for x, told in known if told[key] is not None]
    ends = [(x, told.get(f"{key}_low"), told.get(f"{key}_high")) for x, told in known]
    band = [(x, low, high) for x, low, high in ends if low is not None and high is not None]
    return Series(said, points, colour, band if len(band) > 1 else ())


def accuracies(found: Row, name: str, said: str, colour: int) -> Series:
    """The accuracy of every round's reward model on one set of rankings."""
    rounds = [one["accuracy"].get(name) for one in found["rounds"] if not one["at_once"]]
    known = [
        (float(place), told) for place, told in enumerate(rounds, start=1) if told and told["accuracy"] is not None
    ]
    band = [(x, told["low"], told["high"]) for x, told in known if told["low"] is not None]
    return Series(said, [(x, told["accuracy"]) for x, told in known], colour, band if len(band) > 1 else ())


def page(found: Row, command: str) -> str:
    """The whole page; nothing in it is fetched from anywhere."""
    return render(
        "rounds.jinja",
        css="report.css",
        js="report.js",
        headline=headline(found),
        judge=words.JUDGES.get(found["judges"] or ""),
        grids=grids(found),
        charts=charts(found),
        command=command,
    )
