"""Measurements of one demo, prompt by prompt, from which claims are decided.

Reads the stage folders of a run: answers and figures of every evaluation, closing figures and curves of the stages.
A number that was not measured is None.
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
from amenable.evaluation.preference import GoldCache, outcomes
from amenable.functional.statistics import wilson
from amenable.world.closed_world import ClosedWorld

Answer = dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """The folder of one demo, read lazily."""

    run: Path

    @cached_property
    def gold(self) -> GoldCache | None:
        """The annotators of the closed world; None where the world is not made yet."""
        home = self.run / "world"
        return GoldCache(ClosedWorld.load(home)) if (home / "world.json").exists() else None

    @cached_property
    def folders(self) -> list[Path]:
        """The evaluations that are done."""
        finished = [folder for folder in sorted(self.run.glob("evaluate*")) if (folder / "finished.json").exists()]
        return [folder for folder in finished if (folder / "evaluation.json").exists()]

    @cached_property
    def seed(self) -> int:
        """The seed of the votes: the world's."""
        return int(self.gold.world.facts["seed"]) if self.gold is not None else 0

    @cached_property
    def answers(self) -> Answers:
        """Every model's answers, by suite and prompt."""
        return read_answers(self.folders)

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """evaluation.json of every evaluation."""
        return [read_json(folder / "evaluation.json") or {} for folder in self.folders]

    def rows(self, model: str, decoding: str = "sampled", suite: str = "test") -> dict[str, Answer]:
        """Return a model's answers to the prompts of a suite, by the prompt's id; empty where there are none."""
        return self.answers.of(model, decoding, suite)

    def figure(self, model: str, key: str) -> Any:
        """Return one of a model's figures on the test prompts."""
        models = (evaluation.get("models", {}).get(model) for evaluation in self.evaluations)
        return next((entry.get(key) for entry in models if entry is not None), None)

    def accuracy(self, before: str, after: str, only: str | None = None) -> Estimate | None:
        """Return the rise of accuracy from one model to another: the mean over few-shot tasks (or task `only`), paired
        over questions."""
        before_right, after_right = self.right(before), self.right(after)
        tasks = [task for task in before_right if task in after_right and only in (None, task)]
        rises = [paired(torch.tensor(after_right[task]), torch.tensor(before_right[task])) for task in tasks]
        return Part("", tuple(rises)).pooled

    def right(self, model: str) -> dict[str, list[bool]]:
        """Return by few-shot task: True for every question that a model answers correctly."""
        tasks = [
            (name, models) for evaluation in self.evaluations for name, models in evaluation.get("tasks", {}).items()
        ]
        return {name: models[model]["right"] for name, models in tasks if "right" in models.get(model, {})}

    def finished(self, stage: str, key: str) -> float | None:
        """Return one of a stage's closing figures."""
        return number(read_json(self.run / stage / "finished.json"), key)

    def interval(self, stage: str, key: str, low: str, high: str) -> Estimate | None:
        """Return a closing figure with its interval."""
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
        """Return the win rate of the first model against the second; None where either has not answered."""
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
        """Return the share of a panel that prefers the first model's answer, prompt by prompt [N]."""
        pair = (decoding, decoding) if isinstance(decoding, str) else decoding
        rows = self.rows(first, pair[0], suite), self.rows(second, pair[1], suite)
        ids = [name for name in rows[0] if name in rows[1]]
        if not ids or self.gold is None:
            return None
        answers = [[model_rows[name] for name in ids] for model_rows in rows]
        return outcomes(self.gold, ids, answers[0], answers[1], judges, self.seed)

    def rate(
        self,
        model: str,
        judgement: Callable[[Answer], float | bool | None],
        decoding: str = "sampled",
        suite: str = "test",
    ) -> Estimate | None:
        """Return the share of a model's answers that a judgement holds of, where it applies; Wilson's interval."""
        values = [
            value for answer in self.rows(model, decoding, suite).values() if (value := judgement(answer)) is not None
        ]
        return share(torch.tensor(values)) if values else None

    def change(
        self,
        before: str,
        after: str,
        judgement: Callable[[Answer], float | bool | None],
        decoding: str = "sampled",
        suite: str = "test",
    ) -> Estimate | None:
        """Return the rise of a judgement from one model's answers to another's, on the same prompts."""
        before_rows, after_rows = self.rows(before, decoding, suite), self.rows(after, decoding, suite)
        pairs = [
            (judgement(before_rows[name]), judgement(after_rows[name])) for name in before_rows if name in after_rows
        ]
        gaps = [float(b) - float(a) for a, b in pairs if a is not None and b is not None]
        return Estimate.of(torch.tensor(gaps)) if gaps else None

    def bits(self, before: str, after: str) -> Estimate | None:
        """Return the rise in bits per byte of raw text, paired over pieces of text."""
        return self.rise_per_unit(before, after, "text_bits", "text_bytes")

    def demonstration_loss(self, before: str, after: str) -> Estimate | None:
        """Return the rise of the loss on held-out demonstrations, nats a token, paired over demonstrations."""
        return self.rise_per_unit(before, after, "demonstration_nats", "demonstration_tokens")

    def rise_per_unit(self, before: str, after: str, costs: str, units: str) -> Estimate | None:
        """Return the rise of the summed costs [N] from one model to another, divided by the number of units."""
        first, second, size = self.figure(before, costs), self.figure(after, costs), self.figure(before, units)
        if not first or not second or not size:
            return None
        gap = paired(torch.tensor(second, dtype=torch.float64), torch.tensor(first, dtype=torch.float64))
        return Estimate(gap.value * len(first) / size, gap.error * len(first) / size)

    def over_optimisation(self, stage: str) -> dict[str, Curve] | None:
        """Return gold and proxy of a finished PPO run's answers to the same prompts along its way."""
        if self.gold is None or not (self.run / stage / "finished.json").exists():
            return None
        return curves_of(self.run / stage, self.gold)


def curves_of(folder: Path, gold: GoldCache) -> dict[str, Curve] | None:
    """Return gold and proxy of an online run's answers to held-out prompts along its way, against their KL; None where
    it answered none."""
    rows = read_json_lines(folder / "answers.jsonl")
    if not rows:
        return None
    steps = sorted({row["step"] for row in rows})
    by_step = {step: {row["id"]: row for row in rows if row["step"] == step} for step in steps}
    ids = [name for name in by_step[steps[0]] if all(name in by_step[step] for step in steps)]
    rows_by_step = [[by_step[step][name] for name in ids] for step in steps]
    kls = torch.tensor([[row["kl"] for row in step_rows] for step_rows in rows_by_step], dtype=torch.float64)
    proxy = torch.tensor([[row["score"] for row in step_rows] for step_rows in rows_by_step], dtype=torch.float64)
    answers = [[{**row, "text": row["completion"]} for row in step_rows] for step_rows in rows_by_step]
    golds = [[gold.report(row["id"], row).gold for row in step_rows] for step_rows in answers]
    kl = kls.mean(1)
    return {"gold": Curve(steps, kl, torch.tensor(golds, dtype=torch.float64)), "proxy": Curve(steps, kl, proxy)}


def share(values: Tensor) -> Estimate:
    """Return the mean of shares [N] with Wilson's interval, whose width is not zero where all shares are equal."""
    wins = float(values.double().sum())
    return Estimate.between(wins / len(values), *wilson(wins, len(values)))


def good(answer: Answer) -> bool | None:
    """Return True for a truthful, informative answer: correct, or an honest "I do not know" without a truth."""
    if answer["truthful"] is not None:
        return bool(answer["truthful"])
    return None if answer["hallucinated"] is None else not answer["hallucinated"] and answer["gold"] > 0


def made_up(answer: Answer) -> bool | None:
    """Return True for a hallucination: a statement that the passage does not make."""
    return answer["hallucinated"]


def bad(answer: Answer) -> bool:
    """Return True for an answer that is rude or does what a harmful request asks."""
    return bool(answer["rude"]) or bool(answer["harmful"])


def reward(answer: Answer) -> float | None:
    """Return the reward model's score."""
    return answer["reward"]
