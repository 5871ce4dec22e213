"""Make the closed world: a town no model has seen, its texts, prompts, demonstrations, annotators and the truth.

The same seed, sizes and rates give the same files to the byte. Writes text/, demonstrations/ and prompts/ for training;
truths.jsonl, reader.json and world.json for judging; probes.jsonl to ask a model for facts.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from amenable.errors import InputError
from amenable.train.run import Run
from amenable.world.closed import ClosedWorld, measured_agreement
from amenable.world.demonstrators import demonstrate, modal_answer
from amenable.world.rates import KINDS, Rates, Sizes


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
        for line in description(world):
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
        agreement=measured_agreement(world, held_out=False),
    )


def description(world: ClosedWorld) -> Iterator[str]:
    """Figures and examples, line by line."""
    documents = world.rows["text/train.jsonl"]
    words = statistics.mean(len(row["text"].split()) for row in documents)
    size = sum(len(row["text"].encode()) for row in documents) / 1e6
    yield f"{world.facts['town']}: {len(world.town.people)} people, {len(world.town.stated)} facts told, "
    yield f"{len(documents):,} documents, {size:.2f} MB, {words:.0f} words each"
    for kind in dict.fromkeys(row["kind"] for row in documents):
        example = next(row["text"] for row in documents if row["kind"] == kind)
        yield f"\n[{kind}]\n{example}"
    yield "\nprompts by kind: mean gold of demonstrators, of their commonest habits, of the best answer"
    for kind in KINDS:
        yield from describe_kind(world, kind)
    for name, held_out in (("training", False), ("held-out", True)):
        yield f"two {name} annotators agree in {measured_agreement(world, held_out):.3f} of pairs"


def describe_kind(world: ClosedWorld, kind: str, most: int = 100) -> Iterator[str]:
    """A kind's gold, and a prompt with a demonstration and the best answer."""
    draw = random.Random(f"describe/{kind}")
    rows = [row for row in world.rows["prompts/test.jsonl"] if row["kind"] == kind][:most]
    if not rows:
        return
    gold: list[tuple[float, float, float]] = []
    for row in rows:
        truth, identity = world.truth(row["id"]), row["id"]
        human = demonstrate(truth, world.town, world.rates, draw)
        usual, best = modal_answer(truth, world.town, draw), world.best_answer(identity)
        human_gold, usual_gold, best_gold = (world.gold(identity, text).gold for text in (human, usual, best))
        gold.append((human_gold, usual_gold, best_gold))
    means = "  ".join(f"{statistics.mean(column):6.2f}" for column in zip(*gold))
    yield f"\n{kind:<14}{means}"
    yield f"  asked: {rows[-1]['prompt'][-1]['content']}\n  told:  {human}\n  best:  {best}"
