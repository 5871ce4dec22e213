"""report.html: one file that opens anywhere, with every figure of a demo.

Text and layout are in report.jinja, which escapes all that a model or a user wrote; style and script go inside the
file, so that nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from amenable.claims.stage_folders import Stage, find_stage
from amenable.data.files import read_json_lines
from amenable.evaluation.preference import DECODINGS
from amenable.recipes.reports import (
    answer_browser,
    claims_table,
    curves,
    diagram,
    formatting,
    inspector,
    rendering,
    tables,
)
from amenable.recipes.reports.formatting import decimal, display_name, percent
from amenable.recipes.reports.report_data import (
    Figures,
    by_decoding,
    headline_judges,
    headline_pair,
    headline_preferences,
)
from amenable.recipes.reports.stage_cards import card
from amenable.recipes.reports.summary import summary

CORE = ("base", "prompted", "sft", "dpo", "ppo", "ppo-ptx")
"""the models whose answers are shown where there are too many to show all"""
MANY = 6
"""models from which on tables stand one below the other, and only the CORE answers at first"""


def render(figures: Figures, stages: list[Stage], run: Path) -> str:
    """Return the whole page of a run, whose first finished demo `stages` are where it has several."""
    after, before = headline_pair(figures) or ("ppo", "sft")
    browser = answer_browser.load(stages)
    headline, details = summary(figures, stages)
    demo, reward = stages[0].folder.parent, find_stage(stages, "reward")
    cards = {stage.name: card(stage) for stage in stages}
    return rendering.render(
        "report.jinja",
        css="report.css",
        js="report.js",
        display_name=display_name,
        decimal=decimal,
        percent=percent,
        figures=figures,
        headline=headline,
        details=details,
        tiles=tiles(figures),
        missing=missing_line(figures),
        shown_seed=demo.name,
        claims=claims_table.table(figures["claims"], stages, demo),
        tally=claims_table.tally(figures["claims"]),
        steps=list(cards.values()),
        drawing=diagram.draw(stages),
        tables=for_each_decoding(tables.model_table, figures) if figures["models"] else [],
        many=len(figures["models"]) > MANY,
        suites=tables.suite_table(figures),
        tasks=tables.task_table(figures),
        judge=formatting.JUDGES.get(headline_judges(figures) or ""),
        matrices=for_each_decoding(tables.preference_matrix, figures),
        kinds=for_each_decoding(tables.kind_table, figures),
        over=curves.over_optimisation(figures),
        curves=curves.panels(stages, figures),
        reward=tables.reward_bars(figures, reward),
        reward_models=tables.reward_models(stages),
        margins=tables.margin_bars(reward),
        calibration=tables.calibration(reward),
        browser=browser,
        answers_json=answers_json(browser, figures),
        marks=[(i, answer_browser.MARKS[i][2]) for i in browser.marks],
        shown=answer_browser.SHOWN,
        after=after,
        before=before,
        iterations=answer_browser.iterations(find_stage(stages, "ppo") or first_online(stages)),
        inspectors=inspectors(stages),
        commands={stage.command: cards[stage.name]["command"] for stage in reversed(stages)},
        duration=formatting.duration(figures["seconds"]),
        command=f"amenable report --run {run}",
    )


def for_each_decoding(table: Callable[[Figures, str], Any], figures: Figures) -> list[Any]:
    """Return a table for each decoding, leaving out empty ones."""
    return [rows for decoding in DECODINGS if (rows := table(figures, decoding))]


def answers_json(browser: answer_browser.AnswerBrowser, figures: Figures) -> Markup:
    """Return the browser's data, models in the colours they have everywhere."""
    colours = {name: curves.colour_of(i) for i, name in enumerate(figures["models"])}
    names = browser.models
    return answer_browser.to_json(
        browser,
        [display_name(name) for name in names],
        [colours.get(name, 0) for name in names],
        [len(names) <= MANY or name in CORE for name in names],
    )


def inspectors(stages: Sequence[Stage]) -> list[tuple[str, Markup]]:
    """Return the token inspector of the first run that has traces, with its command."""
    for stage in stages:
        if rows := read_json_lines(stage.folder / "traces.jsonl"):
            return [(f"amenable inspect {stage.folder}", inspector.part(rows))]
    return []


def first_online(stages: Sequence[Stage]) -> Stage | None:
    """Return the first run of an online algorithm, one with the option to trace prompts."""
    return next((stage for stage in stages if "num_traced_prompts" in stage.config), None)


def missing_line(figures: Figures) -> str:
    """Return the sentences on an unfinished run's missing stages."""
    sentences = []
    if figures["unfinished"]:
        stages = ", ".join(figures["unfinished"])
        sentences.append(f"Not done yet: {stages}. The command that began this run goes on with it.")
    present = {*figures["unfinished"], *(stage["command"] for stage in figures["stages"])}
    absent = [name for name in figures["missing"] if name not in present]
    if absent:
        sentences.append(f"Not in this folder: {', '.join(absent)}.")
    if figures["unjudged"]:
        sentences.append(f"The claims could not be judged: {figures['unjudged']}.")
    return " ".join(sentences)


def tiles(figures: Figures) -> list[dict[str, str]]:
    """Return the headline's win rates and changes of gold as large numbers."""
    pair = headline_pair(figures)
    if pair is None:
        return []
    after, before = map(display_name, pair)
    tiles = [
        preference_tile(row, f"{after} preferred to {before}, {decoding}")
        for decoding, row in headline_preferences(figures).items()
    ]
    for decoding in DECODINGS:
        new, old = (by_decoding(figures["models"][name], decoding)["gold"] for name in pair)
        if new is not None and old is not None:
            value, note = formatting.signed(new - old), f"{decimal(old)} → {decimal(new)}"
            tiles.append({"value": value, "label": f"gold over {before}, {decoding}", "note": note})
    return tiles


def preference_tile(row: Figures, label: str) -> dict[str, str]:
    """Return the tile of one win rate."""
    note = f"95% interval {formatting.interval(row['low'], row['high'])}, {row['n']} prompts"
    return {"value": percent(row["wins"]), "label": label, "note": note}
