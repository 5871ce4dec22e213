"""Make the closed world: a town no model has seen, its texts, prompts, demonstrations, annotators and the truth.

The same seed, sizes and rates give the same files to the byte. Writes text/, demonstrations/, public/ and prompts/ for
training; prompts/test.jsonl, suites/, tasks/ and few_shot.jsonl to ask models; truths.jsonl, reader.json and world.json
to judge their answers; probes.jsonl to ask a model for facts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from amenable.errors import InputError
from amenable.train.run import Run
from amenable.world.closed import ClosedWorld, measured_agreement
from amenable.world.description import describe
from amenable.world.rates import Rates, Sizes


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
    """Make the world and return its folder. The same world already there is left as it is."""
    run = Run(config.out, "world", replace(config, describe=False))
    known = (config.out / "config.yaml").exists() and run.done()
    world = ClosedWorld.make(config.seed, config.sizes, config.rates)
    world.write(config.out)
    if config.describe:
        for line in describe(world):
            print(line)
    if known:
        return config.out
    run.claim()
    documents = world.rows["text/train.jsonl"]
    return run.finish(
        town=world.facts["town"],
        documents=len(documents),
        bytes=sum(len(row["text"].encode()) for row in documents),
        prompts=sum(len(rows) for name, rows in world.rows.items() if name.startswith("prompts/")),
        demonstrations=len(world.rows["demonstrations/train.jsonl"]),
        agreement=measured_agreement(world, world.panel),
    )
