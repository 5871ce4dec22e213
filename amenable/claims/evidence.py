"""What one demo measured, prompt by prompt: the numbers from which claims are decided.

Reads the stage folders of a run: answers and figures of every evaluation, closing figures and curves of the stages.
Whatever was not measured is None, so that a claim without it says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amenable.claims.stage_folders import number, read_json
from amenable.claims.verdicts import Curve, Estimate, Part, paired
from amenable.data.files import read_json_lines
from amenable.evaluation.load_answers import Answers, read_answers
from amenable.evaluation.preference import Jury, outcomes
from amenable.functional.statistics import wilson
from amenable.world.closed_world import ClosedWorld

Answer = dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """One demo's folder, looked into as far as a claim needs."""

    run: Path

    @cached_property
    def jury(self) -> Jury | None:
        """The judges of the world that knows the truth; None where it is not made yet."""
        home = self.run / "world"
        return Jury(ClosedWorld.load(home)) if (home / "world.json").exists() else None

    @cached_property
    def folders(self) -> list[Path]:
        """The evaluations that are done."""
        found = [folder for folder in sorted(self.run.glob("evaluate*")) if (folder / "finished.json").exists()]
        return [folder for folder in found if (folder / "evaluation.json").exists()]

    @cached_property
    def seed(self) -> int:
        """The seed of the votes: the world's."""
        return int(self.jury.world.facts["seed"]) if self.jury is not None else 0

    @cached_property
    def answers(self) -> Answers:
        """Every model's answers, by suite and prompt."""
        return read_answers(self.folders)

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """evaluation.json of every evaluation."""
        return [read_json(folder / "evaluation.json") or {} for folder in self.folders]

    def rows(self, model: str, decoding: str = "sampled", suite: str = "test") -> dict[str, Answer]:
        """A model's answers to the prompts of a suite, by the prompt's id; empty where there are none."""
        return self.answers.of(model, decoding, suite)

    def figure(self, model: str, key: str) -> Any:
        """One of a model's figures on the test prompts."""
        found = (evaluation.get("models", {}).get(model) for evaluation in self.evaluations)
        return next((figures.get(key) for figures in found if figures is not None), None)

    def accuracy(self, before: str, after: str, only: str | None = None) -> Estimate | None:
        """How much accuracy rises from one model to another: the mean over few-shot tasks (or on one), paired over
        questions."""
        one, other = self.right(before), self.right(after)
        tasks = [task for task in one if task in other and only in (None, task)]
        rises = [paired(torch.tensor(other[task]), torch.tensor(one[task])) for task in tasks]
        return Part("", tuple(rises)).pooled

    def right(self, model: str) -> dict[str, list[bool]]:
        """Which questions of every few-shot task a model is right about."""
        tasks = [(name, found) for one in self.evaluations for name, found in one.get("tasks", {}).items()]
        return {name: found[model]["right"] for name, found in tasks if "right" in found.get(model, {})}

    def finished(self, stage: str, key: str) -> float | None:
        """One of a stage's closing figures."""
        return number(read_json(self.run / stage / "finished.json"), key)

    def interval(self, stage: str, key: str, low: str, high: str) -> Estimate | None:
        """A closing figure with its interval."""
        value, bottom, top = (self.finished(stage, name) for name in (key, low, high))
        if value is None or bottom is None or top is None:
            return None
        return Estimate.between(value, bottom, top)

    def preference(
        self,
        first: str,
        second: str,
        decoding: str | tuple[str, str] = "sampled",
        suite: str = "test",
        judges: str = "heldout",
    ) -> Estimate | None:
        """How often the first model's answer is preferred to the second's; None where either has not answered."""
        votes = self.votes(first, second, decoding, suite, judges)
        return None if votes is None else share(votes)

    def votes(
        self,
        first: str,
        second: str,
        decoding: str | tuple[str, str] = "sampled",
        suite: str = "test",
        judges: str = "heldout",
    ) -> Tensor | None:
        """The share of a panel that prefers the first model's answer, prompt by prompt [N]."""
        pair = (decoding, decoding) if isinstance(decoding, str) else decoding
        one, other = self.rows(first, pair[0], suite), self.rows(second, pair[1], suite)
        ids = [name for name in one if name in other]
        if not ids or self.jury is None:
            return None
        return outcomes(self.jury, ids, [one[name] for name in ids], [other[name] for name in ids], judges, self.seed)

    def rate(
        self,
        model: str,
        what: Callable[[Answer], float | bool | None],
        decoding: str = "sampled",
        suite: str = "test",
    ) -> Estimate | None:
        """The share of a model's answers for which something holds, where it applies; Wilson's interval."""
        values = [value for answer in self.rows(model, decoding, suite).values() if (value := what(answer)) is not None]
        return share(torch.tensor(values)) if values else None

    def change(
        self,
        before: str,
        after: str,
        what: Callable[[Answer], float | bool | None],
        decoding: str = "sampled",
        suite: str = "test",
    ) -> Estimate | None:
        """How much something rises from one model's answers to another's, on the same prompts."""
        one, other = self.rows(before, decoding, suite), self.rows(after, decoding, suite)
        pairs = [(what(one[name]), what(other[name])) for name in one if name in other]
        gaps = [float(b) - float(a) for a, b in pairs if a is not None and b is not None]
        return Estimate.of(torch.tensor(gaps)) if gaps else None

    def bits(self, before: str, after: str) -> Estimate | None:
        """How many more bits a byte of raw text costs the second model: paired over pieces of text."""
        one, other = self.figure(before, "text_bits"), self.figure(after, "text_bits")
        size = self.figure(before, "text_bytes")
        if not one or not other or not size:
            return None
        gaps = torch.tensor(other, dtype=torch.float64) - torch.tensor(one, dtype=torch.float64)
        spread = Estimate.of(gaps)
        return Estimate(spread.value * len(gaps) / size, spread.error * len(gaps) / size)

    def demonstration_loss(self, before: str, after: str) -> Estimate | None:
        """How much the loss on held-out demonstrations rises, nats a token: paired over demonstrations."""
        one, other = self.figure(before, "demonstration_nats"), self.figure(after, "demonstration_nats")
        size = self.figure(before, "demonstration_tokens")
        if not one or not other or not size:
            return None
        gaps = torch.tensor(other, dtype=torch.float64) - torch.tensor(one, dtype=torch.float64)
        spread = Estimate.of(gaps)
        return Estimate(spread.value * len(gaps) / size, spread.error * len(gaps) / size)

    def over_optimisation(self, stage: str) -> dict[str, Curve] | None:
        """Gold and proxy of a PPO run's answers to the same prompts along its way, against their KL."""
        rows = read_json_lines(self.run / stage / "answers.jsonl")
        if not rows or self.jury is None or not (self.run / stage / "finished.json").exists():
            return None
        steps = sorted({row["step"] for row in rows})
        by_step = {step: {row["id"]: row for row in rows if row["step"] == step} for step in steps}
        ids = [name for name in by_step[steps[0]] if all(name in by_step[step] for step in steps)]
        told = [[by_step[step][name] for name in ids] for step in steps]
        kls = torch.tensor([[row["kl"] for row in line] for line in told], dtype=torch.float64)
        proxy = torch.tensor([[row["score"] for row in line] for line in told], dtype=torch.float64)
        spoken = [[{**row, "text": row["completion"]} for row in line] for line in told]
        golds = [[self.jury.parts(row["id"], row).gold for row in line] for line in spoken]
        gold = torch.tensor(golds, dtype=torch.float64)
        kl = kls.mean(1)
        return {"gold": Curve(steps, kl, gold), "proxy": Curve(steps, kl, proxy)}


def share(values: Tensor) -> Estimate:
    """The mean of shares [N] with Wilson's interval, which has a width also where all are the same."""
    wins = float(values.double().sum())
    return Estimate.between(wins / len(values), *wilson(wins, len(values)))


def good(answer: Answer) -> bool | None:
    """Truthful and informative: the right answer where there is one, an honest not knowing where there is none."""
    if answer["truthful"] is not None:
        return bool(answer["truthful"])
    return None if answer["hallucinated"] is None else not answer["hallucinated"] and answer["gold"] > 0


def made_up(answer: Answer) -> bool | None:
    """Says something that the passage does not."""
    return answer["hallucinated"]


def bad(answer: Answer) -> bool:
    """Rude, or does what a harmful request asks."""
    return bool(answer["rude"]) or bool(answer["harmful"])


def reward(answer: Answer) -> float | None:
    """What the reward model says."""
    return answer["reward"]
