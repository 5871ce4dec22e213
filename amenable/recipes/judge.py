"""Audit of a judge that is a model: is it swayed by position, length or its own words, and does it agree with people.

    amenable judge --judge judge:http://127.0.0.1:8018/v1:MODEL --data runs/labels.db

Asks the judge about pairs that people compared, in both orders of the answers (evaluation/judge_audit.py), prints what
it finds and writes judge.json. Replies are cached: the same command again sends nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from amenable.data.column_mapping import parse_mapping
from amenable.data.columns import TARGETS
from amenable.data.types import Ranking
from amenable.evaluation.judge_audit import audit, draw_pairs
from amenable.files import write_text
from amenable.generation.remote_model import parse_address
from amenable.recipes.reports.compare_reward_models import for_each_block
from amenable.recipes.reports.formatting import decimal, plural, share
from amenable.recipes.reports.terminal import Grid, fixed_width, print_lines, rich_table
from amenable.rewards.model_judge import load_judge
from amenable.rewards.options import RewardOptions, Scoring
from amenable.train import plan

Row = dict[str, Any]

CACHE = "verdicts.jsonl"


@dataclass(frozen=True)
class Config:
    """Audit a judge that is a model."""

    judge: str = ""
    """judge:URL:MODEL, as in --judge of annotate"""
    data: Path = Path("runs/labels.db")
    """people's rankings or pairs: a file, a folder of files, or a store of labels"""
    columns: tuple[str, ...] = ()
    """TARGET=COLUMN: columns of rankings that have other names, as in prompt=question chosen=better"""
    max_pairs: int = 200
    """pairs drawn from the rankings, one of each; four questions a pair; 0 takes all"""
    own_model: str = ""
    """name of the judge's model in the column `models` of the rankings; by default the MODEL of --judge"""
    out: Path = Path("runs/judge")
    scoring: Scoring = field(default_factory=RewardOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        plan.require_at_least(0, self, "max_pairs", "seed")
        parse_mapping(self.columns, TARGETS)


def run(config: Config) -> Path:
    """Audit the judge, print and write what it does, and return the folder."""
    plan.forbid(not config.judge, "no judge is named", "give --judge judge:URL:MODEL")
    own = config.own_model or parse_address(config.judge, "judge:")[1]
    rankings = read_rankings(config.data, config.columns)
    pairs = draw_pairs(rankings, config.max_pairs, own, config.seed)
    options = config.scoring
    cache = options.judge_cache or config.out / CACHE
    judge = load_judge(config.judge, options.judge_rubric, cache, options.judge_workers, options.reward_timeout)
    figures = audit(judge, pairs, rankings, options.judge_workers, config.seed)
    report = {"judge": config.judge, "own_model": own, "data": str(config.data), **judge.take_counts(), **figures}
    path = config.out / "judge.json"
    write_text(path, json.dumps(report, indent=1, ensure_ascii=False))
    console = fixed_width(Console(stderr=True), 110)
    console.print(rich_table(table(report)))
    print_lines(console, [*findings(report), f"all figures: {path}"], soft_wrap=True)
    return config.out


def read_rankings(data: Path, columns: Sequence[str]) -> list[Ranking]:
    """Read people's rankings of a file, a folder or a store of labels."""
    rankings: list[Ranking] = []
    for_each_block(data, 0, columns, rankings.extend)
    return rankings


def table(report: Mapping[str, Any]) -> Grid:
    """Return the shares of an audit with their intervals over prompts, and what a fair judge would have."""
    position, padding = report["position"], report["padding"]
    rows = [
        ("agrees with people", report["agreement"], agreement_of_people(report["people"])),
        ("same verdict in both orders", position["consistent"], "100%"),
        ("answer shown first wins", position["first_wins"], "50%"),
        ("padded answer wins against itself", padding["padded_wins"], "0%"),
    ]
    if (length := report["length"]) is not None:
        rows += [
            ("longer answer wins", length["judge"], f"people: {share(length['people'], 'share')}"),
            ("agrees where people preferred the longer", length["agreement_longer"], ""),
            ("agrees where people preferred the shorter", length["agreement_shorter"], ""),
        ]
    if (own := report["self_preference"]) is not None:
        rows.append((f"{report['own_model']} wins", own["judge"], f"people: {share(own['people'], 'share')}"))
    cells = [(name, share(row, "share"), str(row["n"]) if row else "0", fair) for name, row, fair in rows]
    note = f"{plural(report['pairs'], 'pair')} of {plural(report['prompts'], 'prompt')}; 95 % intervals over prompts"
    return Grid("The judge", ("", "share", "pairs", "to compare with"), cells, note)


def agreement_of_people(people: Mapping[str, Any]) -> str:
    """Return people's agreement with each other as text."""
    return f"people with each other: {share(people, 'share')}" if people["n"] else "no pair was ranked by two people"


def findings(report: Mapping[str, Any]) -> list[str]:
    """Return the biases whose interval leaves out what a fair judge would have, in sentences."""
    first = report["position"]["first_wins"]
    lines = []
    if not first["low"] <= 0.5 <= first["high"]:
        side = "first" if first["share"] > 0.5 else "second"
        lines.append(f"It prefers the answer shown {side}: ask in both orders, as amenable does.")
    if report["padding"]["padded_wins"]["share"] > report["padding"]["original_wins"]["share"]:
        lines.append("It prefers an answer whose words are repeated to the answer itself.")
    for name, reason in (("length", "the longer answer"), ("self_preference", report["own_model"])):
        gap = (report[name] or {}).get("difference")
        if gap is not None and gap["low"] is not None and not gap["low"] <= 0 <= gap["high"]:
            much = f"{decimal(100 * abs(gap['value']), 0)} points {'more' if gap['value'] > 0 else 'less'} often"
            lines.append(f"It prefers {reason} {much} than people do.")
    if report["agreement"]["low"] <= 0.5:
        lines.append("Its agreement with people cannot be told from chance.")
    return lines or ["No bias can be told from none on these pairs."]
