"""report.html: one file that opens anywhere, in which every figure of a demo can be looked at.

The words and tables are in report.jinja, which escapes all that a model or a user wrote; style and script go inside the
file, so that nothing is ever fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from amenable.claims.stage_folders import Stage, named
from amenable.data.files import read_json_lines
from amenable.recipes.reports import answer_browser, claims_table, curves, diagram, inspector, rendering, tables, words
from amenable.recipes.reports.report_data import Figures, judges_of, pair_of, preferred
from amenable.recipes.reports.stage_cards import step

CORE = ("base", "prompted", "sft", "dpo", "ppo", "ppo-ptx")
"""the models whose answers are shown where there are too many to show all"""
MANY = 6
"""models from which on tables stand one below the other, and only the CORE answers at first"""


def render(figures: Figures, stages: list[Stage], run: Path) -> str:
    """The whole page of a run, whose first finished demo `stages` are where it has several."""
    after, before = pair_of(figures) or ("ppo", "sft")
    found = answer_browser.explorer(stages)
    headline, details = words.summary(figures, stages)
    return rendering.render(
        "report.jinja",
        css="report.css",
        js="report.js",
        name_of=words.name_of,
        plain=words.plain,
        percent=words.percent,
        figures=figures,
        headline=headline,
        details=details,
        tiles=tiles(figures),
        missing=missing_line(figures),
        shown_seed=stages[0].folder.parent.name,
        claims=claims_table.table(figures["claims"], stages, stages[0].folder.parent),
        tally=claims_table.tally(figures["claims"]),
        steps=[step(stage) for stage in stages],
        drawing=diagram.draw(stages),
        tables=both(tables.model_table, figures) if figures["models"] else [],
        many=len(figures["models"]) > MANY,
        suites=tables.suite_table(figures),
        tasks=tables.task_table(figures),
        judge=words.JUDGES.get(judges_of(figures) or ""),
        matrices=both(tables.preference_matrix, figures),
        kinds=both(tables.kind_table, figures),
        over=curves.over_optimisation(figures),
        curves=curves.panels(stages, figures),
        reward=tables.reward_bars(figures, named(stages, "reward")),
        reward_models=tables.reward_models(stages),
        margins=tables.margin_bars(named(stages, "reward")),
        calibration=tables.calibration(named(stages, "reward")),
        found=found,
        packed=packed_answers(found, figures),
        marks=[(place, answer_browser.MARKS[place][2]) for place in found.marks],
        shown=answer_browser.SHOWN,
        after=after,
        before=before,
        iterations=answer_browser.iterations(named(stages, "ppo") or online(stages)),
        inspectors=inspectors(stages),
        commands={stage.command: step(stage)["command"] for stage in reversed(stages)},
        duration=words.duration(figures["seconds"]),
        command=f"amenable report --run {run}",
    )


def both(table: Any, figures: Figures) -> list[Any]:
    """A table sampled and greedy, leaving out what there is nothing to show of."""
    return [made for decoding in words.DECODINGS if (made := table(figures, decoding))]


def packed_answers(found: answer_browser.Explorer, figures: Figures) -> Markup:
    """The explorer's data, models in the colours they have everywhere."""
    colours = {name: curves.colour_of(place) for place, name in enumerate(figures["models"])}
    names = found.models
    few = len(names) <= MANY
    return answer_browser.packed(
        found,
        [words.name_of(name) for name in names],
        [colours.get(name, 0) for name in names],
        [few or name in CORE for name in names],
    )


def inspectors(stages: Sequence[Stage]) -> list[tuple[str, Markup]]:
    """The token inspector of the first run that kept traces, with its command."""
    traced = [stage for stage in stages if (stage.folder / "traces.jsonl").is_file()]
    made = [
        (f"amenable inspect {stage.folder}", inspector.part(read_json_lines(stage.folder / "traces.jsonl")))
        for stage in traced
    ]
    return [(command, part) for command, part in made if part][:1]


def online(stages: Sequence[Stage]) -> Stage | None:
    """Return the first run of an online algorithm, one with the option to trace prompts."""
    return next((stage for stage in stages if "num_traced_prompts" in stage.config), None)


def missing_line(figures: Figures) -> str:
    """What an unfinished run lacks, and what to do about it."""
    told = []
    if figures["unfinished"]:
        told.append(
            f"Not done yet: {', '.join(figures['unfinished'])}. The command that began this run goes on with it."
        )
    present = {*figures["unfinished"], *(stage["command"] for stage in figures["stages"])}
    absent = [name for name in figures["missing"] if name not in present]
    if absent:
        told.append(f"Not in this folder: {', '.join(absent)}.")
    if figures["unjudged"]:
        told.append(f"The claims could not be judged: {figures['unjudged']}.")
    return " ".join(told)


def tiles(figures: Figures) -> list[dict[str, str]]:
    """The few numbers that a reader should leave with."""
    pair, judges = pair_of(figures), judges_of(figures)
    made = []
    for decoding in words.DECODINGS:
        row = preferred(figures, *pair, decoding, judges) if pair and judges else None
        if row is not None and pair is not None:
            label = f"{words.name_of(pair[0])} preferred to {words.name_of(pair[1])}, {decoding}"
            note = f"95% interval {words.span(row['low'], row['high'])}, {row['n']} prompts"
            made.append({"value": words.percent(row["wins"]), "label": label, "note": note})
    if pair is not None:
        after, before = (figures["models"][name] for name in pair)
        for decoding, new, old in (("sampled", after, before), ("greedy", after["greedy"], before["greedy"])):
            if new["gold"] is not None and old["gold"] is not None:
                value, note = (
                    words.signed(new["gold"] - old["gold"]),
                    f"{words.plain(old['gold'])} → {words.plain(new['gold'])}",
                )
                made.append({"value": value, "label": f"gold over {words.name_of(pair[1])}, {decoding}", "note": note})
    return made
