"""Ensembles of reward models: options, and the further members, trained one after another.

    FOLDER                  the first member, a reward model like any other
    FOLDER/member-2 ...     the further members
    FOLDER/ensemble.json    which they are, and how scores are combined: `rewards/model.py` loads them as one reward

A SPEC may name another combination: FOLDER:min, FOLDER:mean, FOLDER:std, FOLDER:var.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amenable.files import write_text
from amenable.functional.rewards import Combination
from amenable.models.decoder import Decoder
from amenable.rewards.model import ENSEMBLE
from amenable.seeds import derive_seed, seeded_generator
from amenable.train import plan
from amenable.train.run import Run
from amenable.train.run_options import AdapterOptions

MAX_MEMBERS = 100


@dataclass(frozen=True, kw_only=True)
class EnsembleOptions(AdapterOptions):
    """Options of a stage that trains reward models."""

    members: int = 1
    """reward models of an ensemble, each with an order of its own; further ones are in the folder, as member-2 ..."""
    member_models: tuple[Path, ...] = ()
    """bodies of the further members, such as SFT models of other seeds; by default that of --model"""
    from_scratch: bool = False
    """random weights of the shape of --model, another draw for each member, in place of its own"""
    member: int = 1
    """number of this member, which its order follows from"""
    combination: Combination = "mean"
    """score of an ensemble: the members' mean, the least, or the mean less their std or variance"""
    combination_coefficient: float = 1.0
    """how often std or variance is taken off"""

    def __post_init__(self) -> None:
        super().__post_init__()
        plan.require_at_least(1, self, "members", "member")
        plan.require_at_least(0, self, "combination_coefficient")
        plan.forbid(self.members > MAX_MEMBERS, f"members is {self.members}", f"it must be {MAX_MEMBERS} or less")
        other = self.member_models and len(self.member_models) != self.members - 1
        problem = f"{len(self.member_models)} member_models for {self.members} members"
        plan.forbid(other, problem, "give one for each member after the first, or none")
        part = self.lora.rank or self.virtual_tokens or self.frozen_layers
        problem = "--from-scratch trains all weights: random ones that stay as they are know nothing"
        plan.forbid(self.from_scratch and part, problem, "leave out --lora.rank, --frozen-layers and virtual tokens")

    @property
    def order_seed(self) -> int:
        """Seed of the order of this member's data."""
        return self.seed if self.member == 1 else derive_seed(self.seed, "member", self.member)

    @property
    def member_inputs(self) -> dict[str, Path | None]:
        """The bodies of further members, for a run's lineage."""
        return {f"member_models {number}": path for number, path in enumerate(self.member_models, start=2)}


def initialize(decoder: Decoder, options: EnsembleOptions) -> None:
    """Draw a member's weights anew, with from_scratch; else leave them."""
    if options.from_scratch:
        decoder.init_weights(seeded_generator(options.seed, "body", options.member))


def train_members(config: Any, run: Run, train: Callable[[Any], object]) -> None:
    """Train the further members of an ensemble in folders below the first one's, and write which they are. Where one
    fails, the first one's run is released.

    config: the first member's, with `EnsembleOptions`; train: the stage's `run`, which passes over a finished one.
    """
    names = [f"member-{number}" for number in range(2, config.members + 1)]
    alone = replace(config, members=1, member_models=())
    for number, name in enumerate(names, start=2):
        body = config.member_models[number - 2] if config.member_models else config.model
        try:
            train(replace(alone, member=number, model=body, out=run.out / name))
        except BaseException:
            run.lock.release()
            raise
    combined = {"combination": config.combination, "coefficient": config.combination_coefficient}
    write_text(run.out / ENSEMBLE, json.dumps({"members": names, **combined}, indent=1))
