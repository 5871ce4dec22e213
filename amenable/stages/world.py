"""Make the closed world: a town no model has seen, its texts, prompts, demonstrations, annotators and the truth.

The same seed, sizes and rates give the same files to the byte. Writes text/, demonstrations/, public/ and prompts/ for
training; prompts/test.jsonl, suites/, tasks/ and few_shot.jsonl to ask models; truths.jsonl, reader.json and world.json
to judge their answers; probes.jsonl to ask a model for facts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from amenable.errors import InputError
from amenable.files import disk_errors, matches_manifest
from amenable.train.run import Run
from amenable.train.run_folder import is_empty_run
from amenable.train.stage_report import StageReport
from amenable.world.closed_world import VERSION, ClosedWorld, measure_agreement
from amenable.world.description import describe
from amenable.world.settings import Rates, Sizes

REPORT = StageReport("World", "A small town is made up: its texts, requests, and the truth behind them.")


@dataclass(frozen=True)
class Config:
    """Make the closed world that everything else can be tried on."""

    out: Path = Path("runs/world")
    seed: int = 0
    sizes: Sizes = field(default_factory=Sizes)
    """how much of everything"""
    rates: Rates = field(default_factory=Rates)
    """how often texts and people err"""
    describe: bool = False
    """print figures, and examples of every kind"""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}", how="it must be 0 or more")


def run(config: Config) -> Path:
    """Make the world and return its folder. The same world already there is left as it is; it is made again to compare
    only where a file is not what the folder's manifest says."""
    run = Run(config.out, "world", replace(config, describe=False))
    begun = (config.out / "config.yaml").exists()
    known = begun and run.skip_finished()
    if known and not config.describe and is_as_made(config.out):
        return config.out
    world = ClosedWorld.make(config.seed, config.sizes, config.rates)
    if known or not (begun or is_empty_run(config.out)):
        world.write(config.out)  # refuses a folder that holds anything else
    if config.describe:
        for line in describe(world):
            print(line)
    if known:
        return config.out
    run.begin()
    write(world, config.out)
    documents = world.rows["text/train.jsonl"]
    return run.finish(
        town=world.facts["town"],
        documents=len(documents),
        bytes=sum(len(row["text"].encode()) for row in documents),
        prompts=sum(len(rows) for name, rows in world.rows.items() if name.startswith("prompts/")),
        demonstrations=len(world.rows["demonstrations/train.jsonl"]),
        agreement=measure_agreement(world, world.panel),
    )


def is_as_made(out: Path) -> bool:
    """Return True if a finished world's files are unchanged, and written by this version of the world."""
    return matches_manifest(out) and json.loads((out / "world.json").read_text("utf-8"))["version"] == VERSION


def write(world: ClosedWorld, out: Path) -> None:
    """Write every file of the world into its run directory, over those of a stopped run."""
    with disk_errors(out):
        for name, text in world.contents().items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(text.encode())
