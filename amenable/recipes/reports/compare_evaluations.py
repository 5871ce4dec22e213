"""Two evaluations, or two demos: what both of them measured, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amenable.claims.stage_folders import Stage, read_json, read_stages, seed_folders
from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.recipes.reports import diff_runs
from amenable.recipes.reports.compare_policies import gain, measures
from amenable.recipes.reports.merge_evaluations import DECODINGS

Row = dict[str, Any]
TEST = "test"
"""the suite of the prompts that every model is asked"""


def evaluations(a: Path, b: Path) -> list[Row]:
    """The figures of every model that two evaluations share, by suite, and how much higher its gold is in b."""
    one, other = (read_json(folder / "evaluation.json") or {} for folder in (a, b))
    first, second = (read_json_lines(folder / "samples.jsonl") for folder in (a, b))
    return [{**row, "gain": paired(first, second, row["model"], row["suite"])} for row in shared_figures(one, other)]


def demos(a: Path, b: Path) -> Row:
    """The claims of two demos, the figures of the models in both, and the options in which their stages differ."""
    one, other = report_of(a), report_of(b)
    return {"claims": claims(one, other), "models": shared_figures(one, other), "options": stage_options(a, b)}


def shared_figures(a: Row, b: Row) -> list[Row]:
    """What two evaluations or reports measured of the models in both, by suite and decoding; the test prompts first."""
    one, other = ({TEST: told.get("models") or {}, **(told.get("suites") or {})} for told in (a, b))
    return [
        {
            "model": name,
            "suite": suite,
            "sampled": measures(found, other[suite][name]),
            "greedy": measures(found.get("greedy") or {}, other[suite][name].get("greedy") or {}),
            "gain": {},
        }
        for suite, models in one.items()
        for name, found in models.items()
        if name in other.get(suite, {})
    ]


def paired(a: Sequence[Row], b: Sequence[Row], model: str, suite: str) -> Row:
    """By decoding: how much higher a model's gold is in b than in a, over the prompts that it answered in both."""
    one, other = ({row["id"]: row for row in rows if row.get("suite", TEST) == suite} for rows in (a, b))
    found: Row = {}
    for decoding in DECODINGS:
        said = [
            (before, after)
            for name in one
            if name in other
            if (before := (one[name]["answers"].get(model) or {}).get(decoding))
            if (after := (other[name]["answers"].get(model) or {}).get(decoding))
        ]
        found[decoding] = gain(said, "gold")
    return found


def report_of(demo: Path) -> Row:
    """What report.json of a demo holds."""
    found = read_json(demo / "report.json")
    if found is None:
        raise InputError("has no report.json", demo, f"'amenable report --run {demo}' writes it")
    return found


def claims(a: Row, b: Row) -> list[Row]:
    """Every claim with what became of it in each of two reports; one that a report does not know is left out there."""
    one, other = ({claim["id"]: claim for claim in told.get("claims") or []} for told in (a, b))
    rows = [diff_runs.row_of(name, one, other) for name in dict.fromkeys([*one, *other])]
    return [{**row, "claim": (row["a"] if "a" in row else row["b"])["claim"]} for row in rows]


def stage_options(a: Path, b: Path) -> list[Row]:
    """The options in which the stages of two demos differ, the stage's name before them."""
    one, other = ({stage.name: stage for stage in stages_of(demo)} for demo in (a, b))
    return [
        {**row, "name": f"{name}.{row['name']}"}
        for name in one
        if name in other
        for row in diff_runs.options(one[name], other[name])
        if not lies_within(row, a, b)
    ]


def stages_of(demo: Path) -> list[Stage]:
    """The stages of a demo; of one with several seeds, those of the first."""
    return read_stages((seed_folders(demo) or [demo])[0])


def lies_within(row: Row, a: Path, b: Path) -> bool:
    """Whether an option names the same files, each of its own demo."""
    return "a" in row and "b" in row and str(row["a"]).replace(str(a), str(b)) == str(row["b"])
