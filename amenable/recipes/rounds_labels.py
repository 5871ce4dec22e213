"""The files of a round: its prompts, the rankings it brought, and those that a reward model learns from after it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from amenable.data.batches import shuffled
from amenable.data.files import read_json_lines
from amenable.evaluation.preference import mean_win_rate
from amenable.feedback.votes import models_of, of_ranking
from amenable.files import write_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """One round, or the turn that asks for everything at once: its folder, and the rounds before it."""

    folder: Path
    by: str
    """the folder of its own rankings: annotate, or people"""
    before: tuple[Turn, ...] = ()
    rounds: int = 1
    """so many rounds' labels are asked for in it"""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def prompts(self) -> Path:
        """What is asked about."""
        return self.folder / "prompts.jsonl"

    @property
    def asked(self) -> Path:
        """Its own rankings: train.jsonl and validation.jsonl."""
        return self.folder / self.by

    @property
    def labels(self) -> Path:
        """Everything that its reward model learns from, and is measured on."""
        return self.folder / "labels"

    @property
    def reward(self) -> Path:
        return self.folder / "reward"

    @property
    def policy(self) -> Path:
        return self.folder / "ppo"

    @property
    def rankings(self) -> list[Row]:
        """Its own rankings, all of them."""
        return [row for name in ("train", "validation") for row in read_json_lines(self.asked / f"{name}.jsonl")]


def fresh_prompts(file: Path, left_out: Iterable[Path], seed: int) -> list[Row]:
    """The rows of a file of prompts in an order of the seed, without the prompts of other files."""
    gone = {asked(row) for other in left_out for row in read_json_lines(other)}
    rows = read_json_lines(file)
    return [rows[i] for i in shuffled(len(rows), seed, 0) if asked(rows[i]) not in gone]


def asked(row: Row) -> str:
    """What tells a prompt from others: its words."""
    return json.dumps(row.get("prompt"), sort_keys=True)


def best_before(turn: Turn, sft: Path) -> Path:
    """The best policy but for the newest, as the labels say: SFT until one was preferred to it.

    In every round the answers of the policy before it stand beside those of the best one by then.
    """
    best = sft
    for earlier, later in pairwise(turn.before):
        share = preferred(later.rankings, earlier.policy, best)
        if share is not None and share["wins"] > 0.5:
            best = earlier.policy
    return best


def preferred(rows: Iterable[Row], one: Path, other: Path) -> dict[str, float] | None:
    """How often one model's answers are ranked above another's, a mean over rankings with its interval."""
    shares = []
    for row in rows:
        bouts = of_ranking(models_of(row), row["completions"], row["ranking"], "", "")
        scores = [
            bout.score if bout.a == str(one) else 1 - bout.score
            for bout in bouts
            if {bout.a, bout.b} == {str(one), str(other)}
        ]
        shares += [sum(scores) / len(scores)] if scores else []
    return mean_win_rate(torch.tensor(shares, dtype=torch.float64)) if shares else None


def put_together(turn: Turn, earlier: Path | None, held_out: Path | None, repeat: int) -> dict[str, int]:
    """Write what a turn's reward model learns from; returns the numbers of new and earlier rankings, and of all rows.

    train.jsonl: the rankings of this round and those before it, with `earlier` ones each `repeat` times beside these.
    validation.jsonl: those of the rounds that nothing is trained on. heldout.jsonl: what the home keeps for this.
    A prompt that was asked about in a round counts where the round has put it.
    """
    own = [*turn.before, turn]
    new = [row for one in own for row in read_json_lines(one.asked / "train.jsonl")]
    validation = [row for one in own for row in read_json_lines(one.asked / "validation.jsonl")]
    old = without(read_json_lines(earlier), validation) if earlier is not None else []
    rows = [*old, *(row for row in new for _ in range(repeat if old else 1))]
    write_rows(turn.labels / "train.jsonl", rows)
    write_rows(turn.labels / "validation.jsonl", validation)
    kept = without(read_json_lines(held_out), new) if held_out is not None else []
    if kept:
        write_rows(turn.labels / "heldout.jsonl", kept)
    return {"new": len(new), "earlier": len(old), "rows": len(rows)}


def told_mix(counts: dict[str, int], people: bool, repeat: int) -> str:
    """What a reward model learns from, in words; counts as of `put_together`."""
    new = f"{counts['new']} rankings of {'people' if people else 'simulated annotators'}"
    if not counts["earlier"]:
        return f"the reward model learns from {new} alone"
    times = f", each {repeat} times," if repeat > 1 else ""
    return f"the reward model learns from {new}{times} beside {counts['earlier']} earlier comparisons of the home"


def without(rows: Sequence[Row], others: Iterable[Row]) -> list[Row]:
    """Rows about other prompts than these."""
    gone = {asked(row) for row in others}
    return [row for row in rows if asked(row) not in gone]


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Write a file of rows whole; one that says the same already stays as it is."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not file.exists() or file.read_text("utf-8") != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
