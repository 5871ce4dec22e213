"""Results of an evaluation: part of its checkpoint, and at the end the contents of its files."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from amenable.data.types import message_fields
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.load_answers import TEST
from amenable.evaluation.metrics import Scorers
from amenable.evaluation.preference import AnswerRows, Row, preferences
from amenable.evaluation.runner import Metrics, ModelResults, Suites
from amenable.evaluation.table import preference_lines, table_of, task_table
from amenable.files import write_text
from amenable.rewards.model_judge import ModelJudge, describe_counts
from amenable.train.run import Run


class Results:
    """Metrics and answers of the models evaluated so far. Attribute names are keys of the checkpoint."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, Metrics]] = {}
        """metrics by suite and model"""
        self.answers: dict[str, dict[str, AnswerRows]] = {}
        """by suite and model"""
        self.tasks: dict[str, dict[str, Metrics]] = {}
        """by task and model"""
        self.curves: dict[str, list[Row]] = {}
        """of the best of n, by model"""
        self.known: dict[str, dict[str, Any]] = {}
        """`lm_metrics` by folder: entries with one folder share them"""
        self.judge: dict[str, float] = {}
        """questions to the judge, those repeated, and those that stayed unclear"""

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes, for a checkpoint."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the attributes of a checkpoint."""
        vars(self).update(state)

    def count(self, judge: ModelJudge | None) -> None:
        """Add the questions to a judge since the last call."""
        for name, number in (judge.take_counts() if judge is not None else {}).items():
            self.judge[name] = self.judge.get(name, 0.0) + number

    def add(self, entry: ModelEntry, results: ModelResults, judge: ModelJudge | None = None) -> None:
        """Add an entry's answers and metrics, with the `lm_metrics` of its folder, and the questions to the judge."""
        self.count(judge)
        name, known = entry.name, self.known[str(entry.folder)]
        for suite, metrics in results.metrics.items():
            self.figures.setdefault(suite, {})[name] = metrics
            self.answers.setdefault(suite, {})[name] = results.answers[suite]
        metrics = results.metrics.get(TEST, {"greedy": None}) | known["figures"]
        if metrics["greedy"] is not None:
            metrics["greedy"] = {**metrics["greedy"], "bpb": metrics["bpb"]}
        self.figures.setdefault(TEST, {})[name] = metrics
        for task, task_metrics in known["tasks"].items():
            self.tasks.setdefault(task, {})[name] = task_metrics
        if results.curve is not None:
            self.curves[name] = results.curve

    def evaluation(self, suites: Suites, scorers: Scorers, seed: int) -> dict[str, Any]:
        """Return the contents of evaluation.json. The seed is that of the annotators' votes."""
        prompts = suites.prompts.get(TEST, ())
        ids = [prompt.id for prompt in prompts]
        judge = scorers.judge
        compare = partial(judge.preferences, [prompt.messages for prompt in prompts]) if judge is not None else None
        has_rewards = scorers.reward is not None
        wins = preferences(self.answers.get(TEST, {}), ids, scorers.gold, has_rewards, seed, compare)
        self.count(judge)
        return {
            "models": self.figures[TEST],
            "suites": {suite: metrics for suite, metrics in self.figures.items() if suite != TEST},
            "tasks": self.tasks,
            "best_of": self.curves,
            "preference": wins,
            **({"judge": self.judge} if judge is not None else {}),
        }

    def side_by_side(self, suites: Suites) -> list[Row]:
        """Return the rows of samples.jsonl: each prompt of each suite with the answers of all models that have one."""
        rows = []
        for suite, prompts in suites.prompts.items():
            by_model = self.answers.get(suite, {})
            for i, prompt in enumerate(prompts):
                messages = [message_fields(message) for message in prompt.messages]
                row = {"suite": suite, "id": prompt.id, "kind": prompt.meta.get("kind"), "prompt": messages}
                answers = {name: answers_at(i, by_decoding) for name, by_decoding in by_model.items()}
                rows.append({**row, "answers": {name: answer for name, answer in answers.items() if answer}})
        return rows


def write_results(run: Run, results: Results, suites: Suites, scorers: Scorers, reference: str, seed: int) -> None:
    """Write evaluation.json and samples.jsonl, and print the table and the preferences to the reference."""
    evaluation = results.evaluation(suites, scorers, seed)
    write_text(run.out / "evaluation.json", json.dumps(evaluation, indent=1))
    run.log.replace("samples", len(results.figures[TEST]), results.side_by_side(suites))
    if suites.prompts or suites.texts:
        run.log.show(table_of(evaluation))
    if results.tasks:
        run.log.show(task_table(results.tasks))
    for line in preference_lines(evaluation, reference):
        run.log.info(line)
    if results.judge:
        remark = "an answer with an unclear reply has the score 1, a pair is a tie, and a test leaves it out"
        run.log.info(f"judge: {describe_counts(results.judge)}{f'; {remark}' if results.judge['unclear'] else ''}")


def answers_at(i: int, answers: AnswerRows) -> dict[str, Row | None] | None:
    """Return a model's answers to prompt i by decoding; None where it answered only earlier prompts."""
    if not any(rows and i < len(rows) for rows in answers.values()):
        return None
    return {decoding: rows[i] if rows else None for decoding, rows in answers.items()}
