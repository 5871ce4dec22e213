"""What PPO did to single tokens: a page that colours watched answers by their numbers, iteration by iteration.

Reads traces.jsonl of a run of `ppo`, finished or still going, and writes a file that opens anywhere: reward, KL to the
reference, value, advantage and probability ratio of every token, and what else could have been drawn in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from amenable.claims.stage_folders import read_json, read_yaml
from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.recipes.reports.inspector import page
from amenable.train.run import write_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Show what PPO did to single tokens."""

    run: tyro.conf.Positional[Path] = Path("runs/ppo")
    """the run directory of `amenable ppo`"""
    out: Path | None = None
    """the page; inspect.html in the run directory unless given"""


def run(config: Config) -> Path:
    """Write the page and return its path."""
    rows = read_traces(config.run)
    out = config.out or config.run / "inspect.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page(rows, config.run))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", out, "give --out another file") from None
    print(f"{len({row['step'] for row in rows})} iterations of PPO: {out}")
    return out


def read_traces(folder: Path) -> list[Row]:
    """The rows of a run's traces.jsonl. InputError for a folder that is no run of PPO, and for one without traces."""
    options = read_yaml(folder / "config.yaml") or {}
    if options.get("command") != "ppo":
        raise InputError("is no run of PPO", folder, "name a folder that 'amenable ppo' wrote, such as runs/ppo")
    rows = read_json_lines(folder / "traces.jsonl")
    if not rows and options.get("num_traced_prompts") and read_json(folder / "finished.json") is None:
        raise InputError("has no traces yet", folder, "they begin with its first step: wait for it")
    if not rows:
        raise InputError("keeps no traces", folder, "run it again with --num-traced-prompts 6 and another --out")
    return rows
