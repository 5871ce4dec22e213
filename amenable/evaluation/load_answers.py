"""Answers in the run directories of `evaluate`, several folders merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amenable.data.files import read_json_rows
from amenable.errors import InputError

TEST = "test"
"""the suite of the prompts in --data"""

Row = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """Prompts, and every model's answers to them."""

    prompts: dict[tuple[str, str], Row] = field(default_factory=dict)
    """suite, id, kind and prompt, by (suite, id)"""
    rows: dict[tuple[str, str, str], dict[str, Row]] = field(default_factory=dict)
    """answers by prompt id, by (model, decoding, suite)"""
    folders: dict[str, Path] = field(default_factory=dict)
    """run directory of each model's evaluation"""

    @property
    def models(self) -> list[str]:
        """Names of the models in the order of the folders."""
        return list(self.folders)

    def of(self, model: str, decoding: str = "sampled", suite: str = TEST) -> dict[str, Row]:
        """Return a model's answers to a suite by prompt id; empty where there are none."""
        return self.rows.get((model, decoding, suite), {})


def read_answers(folders: Sequence[Path]) -> Answers:
    """Read the answers of finished evaluations; unfinished ones are skipped.

    Raises InputError where two folders have a model of the same name.
    """
    answers = Answers()
    for folder in folders:
        if not (folder / "finished.json").exists() or not (folder / "samples.jsonl").exists():
            continue
        rows = [row for _, row in read_json_rows(folder / "samples.jsonl")]
        for name in dict.fromkeys(name for row in rows for name in row["answers"]):
            if name in answers.folders:
                where = f"{answers.folders[name]} and {folder}"
                raise InputError(f"both have a model '{name}'", where, "evaluate them under different names")
            answers.folders[name] = folder
        for row in rows:
            add_row(answers, row)
    return answers


def add_row(answers: Answers, row: Row) -> None:
    """Add a row of samples.jsonl: a prompt with the answers of one evaluation's models."""
    suite = row.get("suite") or TEST
    prompt = {key: value for key, value in row.items() if key not in ("answers", "step")}
    answers.prompts.setdefault((suite, row["id"]), prompt)
    for name, by_decoding in row["answers"].items():
        for decoding, answer in by_decoding.items():
            if answer is not None:
                answers.rows.setdefault((name, decoding, suite), {})[row["id"]] = answer
