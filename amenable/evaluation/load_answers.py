"""What models answered, read from the run directories of `evaluate`: several folders as one."""

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
    said: dict[tuple[str, str, str], dict[str, Row]] = field(default_factory=dict)
    """answers by prompt id, by (model, decoding, suite)"""
    folders: dict[str, Path] = field(default_factory=dict)
    """where each model was evaluated"""

    @property
    def models(self) -> list[str]:
        """The models in the order in which they were found."""
        return list(self.folders)

    def of(self, model: str, decoding: str = "sampled", suite: str = TEST) -> dict[str, Row]:
        """A model's answers to a suite by the prompt's id; empty where there are none."""
        return self.said.get((model, decoding, suite), {})


def read_answers(folders: Sequence[Path]) -> Answers:
    """The answers in these evaluations; one that is not finished is passed over.

    InputError where two folders have a model of the same name: nobody could tell whose answer is meant.
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
            add(answers, row)
    return answers


def add(answers: Answers, row: Row) -> None:
    """One row of samples.jsonl: a prompt with the answers of one evaluation's models."""
    suite = row.get("suite") or TEST
    asked = {key: value for key, value in row.items() if key not in ("answers", "step")}
    answers.prompts.setdefault((suite, row["id"]), asked)
    for name, by_decoding in row["answers"].items():
        for decoding, answer in by_decoding.items():
            if answer is not None:
                answers.said.setdefault((name, decoding, suite), {})[row["id"]] = answer
