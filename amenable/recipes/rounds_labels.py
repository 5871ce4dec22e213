"""The files of a round: its prompts, its rankings, and the rankings that its reward model learns from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from amenable.data import sources
from amenable.data.batches import shuffled
from amenable.data.files import read_json_lines
from amenable.data.types import prompt_row
from amenable.evaluation.preference import mean_win_rate
from amenable.feedback.votes import from_ranking, models_of
from amenable.files import write_text

Row = dict[str, Any]


@dataclass(frozen=True)
class Round:
    """One round, or the one-shot baseline with the labels of several: its folder, and the rounds before it."""

    folder: Path
    source: str
    """the folder of its own rankings: annotate, or people"""
    before: tuple[Round, ...] = ()
    rounds: int = 1
    """number of rounds whose labels it collects"""
    policy_stage: str = "ppo"
    """the stage that trains its policy, which names the folder"""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def prompts(self) -> Path:
        """The prompts whose answers are ranked."""
        return self.folder / "prompts.jsonl"

    @property
    def annotations(self) -> Path:
        """Its own rankings: train.jsonl and validation.jsonl."""
        return self.folder / self.source

    @property
    def labels(self) -> Path:
        """All rankings that its reward model learns from, and is measured on."""
        return self.folder / "labels"

    @property
    def reward(self) -> Path:
        """Its reward model."""
        return self.folder / "reward"

    @property
    def policy(self) -> Path:
        """Its policy."""
        return self.folder / self.policy_stage

    @property
    def rankings(self) -> list[Row]:
        """Its own rankings, all of them."""
        return [row for name in ("train", "validation") for row in read_json_lines(self.annotations / f"{name}.jsonl")]


def unused_prompts(file: Path, left_out: Iterable[Path], seed: int) -> list[Row]:
    """Return the rows of a file of prompts, of whatever columns, in an order of the seed, without the prompts of other
    files; each has an id, by which rounds tell prompts apart."""
    rows = [prompt_row(prompt) for prompt in sources.read_prompts(file).rows]
    shuffled_rows = [rows[i] for i in shuffled(len(rows), seed, 0)]
    return without_prompts(shuffled_rows, (row for other in left_out for row in read_json_lines(other)))


def prompt_key(row: Row) -> str:
    """Return the key of a row's prompt: its text."""
    return json.dumps(row.get("prompt"), sort_keys=True)


def best_previous_policy(turn: Round, sft: Path) -> Path:
    """Return the best policy but for the newest, by the labels: SFT until another was preferred to it.

    In every round the answers of the policy before it stand beside those of the best one by then.
    """
    best = sft
    for earlier, later in pairwise(turn.before):
        preference = win_rate(later.rankings, earlier.policy, best)
        if preference is not None and preference["wins"] > 0.5:
            best = earlier.policy
    return best


def win_rate(rows: Iterable[Row], a: Path, b: Path) -> dict[str, float] | None:
    """Return the share of pairs in which model a's answer ranks above b's, a mean over rankings with its interval."""
    shares = []
    for row in rows:
        pairs = from_ranking(models_of(row), row["completions"], row["ranking"], "", "")
        scores = [
            pair.score if pair.a == str(a) else 1 - pair.score for pair in pairs if {pair.a, pair.b} == {str(a), str(b)}
        ]
        shares += [sum(scores) / len(scores)] if scores else []
    return mean_win_rate(torch.tensor(shares, dtype=torch.float64)) if shares else None


def write_training_set(turn: Round, base: Path | None, held_out: Path | None, weight: int) -> dict[str, int]:
    """Write the rankings that a round's reward model learns from; returns the numbers of new, earlier and all rows.

    train.jsonl: the rankings of this round and those before it, each `weight` times beside the `base` ones, if any.
    validation.jsonl: those of the rounds that nothing is trained on. heldout.jsonl: those that the base run holds out.
    A prompt of a round is left out of the base run's files.
    """
    rounds = [*turn.before, turn]
    new, validation = (
        [row for earlier in rounds for row in read_json_lines(earlier.annotations / f"{name}.jsonl")]
        for name in ("train", "validation")
    )
    old = without_prompts(read_json_lines(base), validation) if base is not None else []
    rows = [*old, *(row for row in new for _ in range(weight if old else 1))]
    write_rows(turn.labels / "train.jsonl", rows)
    write_rows(turn.labels / "validation.jsonl", validation)
    heldout = without_prompts(read_json_lines(held_out), new) if held_out is not None else []
    if heldout:
        write_rows(turn.labels / "heldout.jsonl", heldout)
    return {"new": len(new), "earlier": len(old), "rows": len(rows)}


def describe_mix(counts: dict[str, int], annotators: str, weight: int) -> str:
    """Describe what a reward model learns from; counts as of `write_training_set`."""
    new = f"{counts['new']} rankings of {annotators}"
    if not counts["earlier"]:
        return f"the reward model learns from {new} alone"
    times = f", each {weight} times," if weight > 1 else ""
    return f"the reward model learns from {new}{times} beside {counts['earlier']} earlier comparisons of the base run"


def without_prompts(rows: Sequence[Row], others: Iterable[Row]) -> list[Row]:
    """Return the rows whose prompt is in none of `others`."""
    left_out = {prompt_key(row) for row in others}
    return [row for row in rows if prompt_key(row) not in left_out]


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Write a file of rows whole; a file with the same content stays as it is."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not file.exists() or file.read_text("utf-8") != text:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, text)
