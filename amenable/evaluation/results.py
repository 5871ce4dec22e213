"""What an evaluation has measured so far: part of its checkpoint, and in the end its files."""

from __future__ import annotations

from typing import Any

from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.load_answers import TEST
from amenable.evaluation.metrics import Yardsticks
from amenable.evaluation.preference import Row, preferences
from amenable.evaluation.runner import Examined, Figures, Said, Tests


class Results:
    """Figures and answers of the entries that have been examined."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, Figures]] = {}
        """by suite and entry"""
        self.answers: dict[str, dict[str, Said]] = {}
        """by suite and entry"""
        self.tasks: dict[str, dict[str, Figures]] = {}
        """by task and entry"""
        self.curves: dict[str, list[Row]] = {}
        """of the best of n, by entry"""
        self.known: dict[str, dict[str, Any]] = {}
        """what depends on a model alone, by its folder"""

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def add(self, entry: ModelEntry, found: Examined) -> None:
        """Store the answers and metrics of an entry, with the metrics of its model."""
        name, known = entry.name, self.known[str(entry.folder)]
        for suite, figures in found.figures.items():
            self.figures.setdefault(suite, {})[name] = figures
            self.answers.setdefault(suite, {})[name] = found.answers[suite]
        figures = found.figures[TEST] | known["figures"]
        if figures["greedy"] is not None:
            figures["greedy"] = {**figures["greedy"], "bpb": figures["bpb"]}
        self.figures[TEST][name] = figures
        for task, told in known["tasks"].items():
            self.tasks.setdefault(task, {})[name] = told
        if found.curve is not None:
            self.curves[name] = found.curve

    def evaluation(self, tests: Tests, by: Yardsticks, seed: int) -> dict[str, Any]:
        """What evaluation.json holds. The seed is that of the annotators' votes."""
        ids = [prompt.id for prompt in tests.suites[TEST]]
        return {
            "models": self.figures[TEST],
            "suites": {suite: figures for suite, figures in self.figures.items() if suite != TEST},
            "tasks": self.tasks,
            "best_of": self.curves,
            "preference": preferences(self.answers[TEST], ids, by.jury, by.reward_model is not None, seed),
        }

    def side_by_side(self, tests: Tests) -> list[Row]:
        """The rows of samples.jsonl: a prompt of any suite, and the answers of all who were asked it."""
        rows = []
        for suite, prompts in tests.suites.items():
            for i, prompt in enumerate(prompts):
                asked = [{"role": message.role, "content": message.content} for message in prompt.messages]
                told = {"suite": suite, "id": prompt.id, "kind": prompt.meta.get("kind"), "prompt": asked}
                said = self.answers.get(suite, {})
                answers = {name: answers_at(i, by_decoding) for name, by_decoding in said.items()}
                rows.append({**told, "answers": {name: found for name, found in answers.items() if found}})
        return rows


def answers_at(i: int, said: Said) -> dict[str, Row | None] | None:
    """A entry's answers to prompt i, by decoding; None where it answered only earlier ones."""
    if not any(rows and i < len(rows) for rows in said.values()):
        return None
    return {decoding: rows[i] if rows else None for decoding, rows in said.items()}
