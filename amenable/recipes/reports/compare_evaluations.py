"""Two evaluations, or two demos: the figures and claims that both have, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amenable.claims.stage_folders import read_json, read_stages, seed_folders
from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.evaluation.load_answers import TEST
from amenable.evaluation.preference import DECODINGS
from amenable.recipes.reports import diff_runs
from amenable.recipes.reports.compare_policies import gain, measures

Row = dict[str, Any]


def evaluations(a: Path, b: Path) -> list[Row]:
    """Return the figures of every model that two evaluations share, by suite, and the gain of its gold from a to b."""
    figures = [read_json(folder / "evaluation.json") or {} for folder in (a, b)]
    rows_a, rows_b = (read_json_lines(folder / "samples.jsonl") for folder in (a, b))
    return [{**row, "gain": gold_gain(rows_a, rows_b, row["model"], row["suite"])} for row in shared_figures(*figures)]


def demos(a: Path, b: Path) -> Row:
    """Return the claims of two demos, the figures of shared models, and the options in which their stages differ."""
    reports = [report_of(demo) for demo in (a, b)]
    return {"claims": claims(*reports), "models": shared_figures(*reports), "options": stage_options(a, b)}


def shared_figures(a: Row, b: Row) -> list[Row]:
    """Return the figures of models in two evaluations or reports, by suite and decoding; the test prompts first."""
    suites_a, suites_b = ({TEST: figures.get("models") or {}, **(figures.get("suites") or {})} for figures in (a, b))
    return [
        {
            "model": name,
            "suite": suite,
            "sampled": measures(model_a, model_b),
            "greedy": measures(model_a.get("greedy") or {}, model_b.get("greedy") or {}),
            "gain": {},
        }
        for suite, models in suites_a.items()
        for name, model_a in models.items()
        if (model_b := suites_b.get(suite, {}).get(name)) is not None
    ]


def gold_gain(a: Sequence[Row], b: Sequence[Row], model: str, suite: str) -> Row:
    """Return by decoding the gain of a model's gold from a to b, over the prompts that it answered in both."""
    rows_a, rows_b = ({row["id"]: row for row in rows if row.get("suite", TEST) == suite} for rows in (a, b))
    gains: Row = {}
    for decoding in DECODINGS:
        pairs = [
            (before, after)
            for name in rows_a
            if name in rows_b
            if (before := (rows_a[name]["answers"].get(model) or {}).get(decoding))
            if (after := (rows_b[name]["answers"].get(model) or {}).get(decoding))
        ]
        gains[decoding] = gain(pairs, "gold")
    return gains


def report_of(demo: Path) -> Row:
    """Read report.json of a demo; InputError where there is none."""
    report = read_json(demo / "report.json")
    if report is None:
        raise InputError("has no report.json", demo, f"'amenable report --run {demo}' writes it")
    return report


def claims(a: Row, b: Row) -> list[Row]:
    """Return every claim of two reports with its verdict in each that has it."""
    claims_a, claims_b = ({claim["id"]: claim for claim in report.get("claims") or []} for report in (a, b))
    rows = [diff_runs.row_of(name, claims_a, claims_b) for name in dict.fromkeys([*claims_a, *claims_b])]
    return [{**row, "claim": (row["a"] if "a" in row else row["b"])["claim"]} for row in rows]


def stage_options(a: Path, b: Path) -> list[Row]:
    """Return the options in which the stages of two demos differ, the stage's name before them; of several seeds the
    first's. An option that names the same files, each of its own demo, does not differ."""
    stages_a, stages_b = (
        {stage.name: stage for stage in read_stages((seed_folders(demo) or [demo])[0])} for demo in (a, b)
    )
    return [
        {**row, "name": f"{name}.{row['name']}"}
        for name in stages_a
        if name in stages_b
        for row in diff_runs.options(stages_a[name], stages_b[name])
        if not ({"a", "b"} <= row.keys() and str(row["a"]).replace(str(a), str(b)) == str(row["b"]))
    ]
