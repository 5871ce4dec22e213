"""Single tokens of a policy that learned online: answers coloured by their numbers, iteration by iteration.

Reads traces.jsonl of a run of `ppo` or another online algorithm, finished or still going, and writes a file that opens
anywhere: every column of a token (reward, KL to the reference, value, advantage, probability ratio ...), and what else
could have been drawn in its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from amenable.claims.stage_folders import read_json, read_yaml
from amenable.data.files import read_json_lines
from amenable.errors import InputError
from amenable.model_folder import adapter_of
from amenable.models.adapter_files import describe_adapter
from amenable.recipes.reports.inspector import page
from amenable.train.run import write_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Config:
    """Show what an online algorithm did to single tokens."""

    run: tyro.conf.Positional[Path] = Path("runs/ppo")
    """the run directory of `amenable ppo`, or of another online algorithm; or an adapter's folder"""
    out: Path | None = None
    """the page; inspect.html in the run directory unless given"""


def run(config: Config) -> Path:
    """Write the page and return its path. A model's adapter is described; an adapter alone has no page."""
    if adapter := adapter_of(config.run):
        print(f"{adapter}: {describe_adapter(adapter)}")
        if adapter == config.run:
            return adapter
    rows = read_traces(config.run)
    out = config.out or config.run / "inspect.html"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, page(rows, config.run))
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", out, "give --out another file") from None
    print(f"{len({row['step'] for row in rows})} iterations: {out}")
    return out


def read_traces(folder: Path) -> list[Row]:
    """Return the rows of a run's traces.jsonl. InputError for a run that traces nothing, and for one without traces."""
    options = read_yaml(folder / "config.yaml") or {}
    if "num_traced_prompts" not in options:
        hint = "name a folder that an online algorithm such as 'amenable ppo' wrote, as runs/ppo"
        raise InputError("is no run of an online algorithm", folder, hint)
    rows = read_json_lines(folder / "traces.jsonl")
    if not rows and options.get("num_traced_prompts") and read_json(folder / "finished.json") is None:
        raise InputError("has no traces yet", folder, "they begin with its first step: wait for it")
    if not rows:
        raise InputError("keeps no traces", folder, "run it again with --num-traced-prompts 6 and another --out")
    return rows
