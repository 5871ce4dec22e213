"""Evaluation of one model: metrics of its answers to every suite of prompts, and of its likelihood of given texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from amenable.data.types import Demonstration, Prompt, Text
from amenable.evaluation import best_of
from amenable.evaluation.answering import Answer, GenerationConfig, LoadedModel, count_dropped_shots, generate_answers
from amenable.evaluation.entries import ModelEntry
from amenable.evaluation.load_answers import TEST
from amenable.evaluation.metrics import (
    Scorers,
    add_best_of_n_kl,
    compute_rewards,
    demonstration_metrics,
    measure,
    sampling_info,
    summarize,
    text_metrics,
)
from amenable.evaluation.preference import DECODINGS, AnswerRows, Decoding, Row, half_width
from amenable.evaluation.tasks.form import Examinee
from amenable.evaluation.tasks.forms import Task
from amenable.evaluation.tasks.options import TaskOptions

Metrics = dict[str, Any]


@dataclass(frozen=True)
class Suites:
    """Prompts, texts and tasks that every model is evaluated on."""

    prompts: Mapping[str, Sequence[Prompt]]
    """by suite"""
    test_decodings: Sequence[Decoding] = DECODINGS
    """of the suite "test"; "sampled" is among them"""
    decodings: Sequence[Decoding] = DECODINGS
    """of the other suites"""
    best_of_prompts: int = 600
    """at most so many, the first, are answered by the best of n"""
    texts: list[Text] = field(default_factory=list)
    text_tokens: int = 30_000
    """at most so many tokens of the texts"""
    demonstrations: Sequence[Demonstration] = ()
    tasks: Mapping[str, Task] = field(default_factory=dict)
    tasking: TaskOptions = field(default_factory=TaskOptions)


@dataclass(frozen=True)
class ModelResults:
    """Answers of one model, and their metrics."""

    metrics: dict[str, Metrics]
    """by suite: those of sampled answers on top, of greedy ones under "greedy"; None where there are none"""
    answers: dict[str, AnswerRows]
    """by suite"""
    curve: list[Row] | None
    """the best of 1, 2, 4 .. of a best-of-n model"""
    notes: list[str]
    """lines for the log"""

    @property
    def numbers(self) -> Metrics:
        """Metrics of the suite "test" that are single numbers."""
        return {key: value for key, value in self.metrics.get(TEST, {}).items() if not isinstance(value, dict | list)}


def plan_lines(entries: Sequence[ModelEntry], suites: Suites, scorers: Scorers, reference: str) -> list[str]:
    """Return lines on the work ahead, on the widest intervals to expect, by which the number of prompts can be chosen,
    and on what is not measured. reference: the name or folder that KL is to be measured to."""
    tasks = [f"{name} ({task.describe()})" for name, task in suites.tasks.items()]
    task_lines = [f"tasks: {', '.join(tasks)}"] if tasks else []
    if not suites.prompts:
        return [f"{len(entries)} models; {scorers.runtime.describe()}", *task_lines]
    prompts = suites.prompts[TEST]
    work = f"{len(entries)} models x {len(prompts)} prompts x {len(suites.test_decodings)} decodings"
    sizes = {name: len(suite) for name, suite in suites.prompts.items()}
    if any(entry.best_of > 1 for entry in entries):
        sizes["best of n"] = min(len(prompts), suites.best_of_prompts)
    widths = ", ".join(f"{name} ±{half_width(n):.1%} ({n} prompts)" for name, n in sizes.items())
    lines = [f"{work}; {scorers.runtime.describe()}", *task_lines]
    lines += [f"95 % interval of a preference or a rate, at most: {widths}"]
    lines += scorers.reward.notes if scorers.reward is not None else []
    if scorers.gold is None and scorers.reward is None:
        lines += ["no judge of the answers: give --reward, or the --world that the prompts are from"]
    if scorers.reference is None:
        lines += [f"no KL: the reference '{reference}' is none of the models, and no folder of one"]
    return lines


def evaluate_model(
    model: LoadedModel, temperature: float, suites: Suites, generation: GenerationConfig, scorers: Scorers
) -> ModelResults:
    """Evaluate a model on all suites; sampled answers are drawn at `temperature`."""
    if model.entry.best_of > 1 and suites.prompts:
        return evaluate_best_of_n(model, temperature, suites, generation, scorers)
    metrics: dict[str, Metrics] = {}
    answers: dict[str, AnswerRows] = {}
    matched = f"at temperature {temperature:.3f} its entropy is that of {model.entry.entropy_of}"
    notes = [matched] if model.entry.entropy_of is not None else []
    for suite, prompts in suites.prompts.items():
        by_decoding = {
            decoding: evaluate_decoding(decoding, model, prompts, temperature, generation, scorers)
            for decoding in (suites.test_decodings if suite == TEST else suites.decodings)
        }
        metrics[suite] = {**(by_decoding["sampled"][0] if "sampled" in by_decoding else {}), "greedy": None}
        if "greedy" in by_decoding:
            metrics[suite]["greedy"] = by_decoding["greedy"][0]
        answers[suite] = {decoding: rows for decoding, (_, rows) in by_decoding.items()}
        if model.entry.few_shot and (count := count_dropped_shots(model, prompts, generation)):
            notes.append(f"{count} of {len(prompts)} prompts of '{suite}' leave no room for all the shots")
    return ModelResults(metrics, answers, None, notes)


def evaluate_decoding(
    decoding: Decoding,
    model: LoadedModel,
    prompts: Sequence[Prompt],
    temperature: float,
    generation: GenerationConfig,
    scorers: Scorers,
) -> tuple[Metrics, list[Row]]:
    """Return the metrics and the rows of a model's answers to one suite under one decoding."""
    sampled = decoding == "sampled"
    groups = generate_answers(model, prompts, generation.at(temperature if sampled else 0.0))
    answers = [group[0] for group in groups]
    # a greedy answer has no temperature: its KL is measured as if it were drawn as the reference's are
    rows = measure(model, prompts, answers, temperature if sampled else scorers.temperature, scorers)
    info = sampling_info(answers, temperature) if sampled else {"entropy": None, "temperature": 0.0}
    return {**summarize(rows, prompts, scorers), **info}, rows


def evaluate_best_of_n(
    model: LoadedModel, temperature: float, suites: Suites, generation: GenerationConfig, scorers: Scorers
) -> ModelResults:
    """Evaluate the best of n answers by reward, on the first prompts of the suite "test" alone: n times the cost."""
    n, prompts = model.entry.best_of, suites.prompts[TEST][: suites.best_of_prompts]
    groups = generate_answers(model, prompts, generation.at(temperature), samples=n)
    repeated = [prompt for prompt in prompts for _ in range(n)]
    scores = compute_rewards(model, repeated, [answer for group in groups for answer in group], scorers)
    rewards = torch.tensor(scores, dtype=torch.float64).view(len(prompts), n)
    best = [group[i] for group, i in zip(groups, rewards.argmax(1).tolist())]
    rows = add_best_of_n_kl(measure(model, prompts, best, temperature, scorers), n)
    by_size = {size: best_of.expected(rewards.sort(1).values, size).tolist() for size in best_of.sizes(n)}
    for i, row in enumerate(rows):
        row["best_of"] = {str(size): values[i] for size, values in by_size.items()}
    metrics = {**summarize(rows, prompts, scorers), "entropy": None, "temperature": temperature, "greedy": None}
    curve = best_of.curve(rewards, golds(prompts, groups, scorers))
    return ModelResults({TEST: metrics}, {TEST: {"sampled": rows, "greedy": None}}, curve, [])


def golds(prompts: Sequence[Prompt], groups: Sequence[Sequence[Answer]], scorers: Scorers) -> torch.Tensor | None:
    """Return the gold of all answers [P, N]; None without a world."""
    if scorers.gold is None:
        return None
    report = scorers.gold.report
    rows = [
        [report(prompt.id, {"text": answer.text, "ended": answer.ended}).gold for answer in group]
        for prompt, group in zip(prompts, groups)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def lm_metrics(
    model: LoadedModel, suites: Suites, scorers: Scorers, generation: GenerationConfig
) -> dict[str, Metrics]:
    """Return metrics of a model that need no answers to prompts: likelihood of texts and demonstrations, and tasks."""
    metrics: Metrics = {"bpb": None}
    if suites.texts:
        metrics |= text_metrics(model, suites.texts, suites.text_tokens, scorers)
    if suites.demonstrations:
        metrics |= demonstration_metrics(model, suites.demonstrations, scorers)

    def examine(name: str, task: Task) -> Metrics:
        bars = scorers.bars(f"{model.entry.name}: {name}")
        return task.evaluate(Examinee(model, scorers.max_tokens, generation, bars, suites.tasking, scorers.judge))

    tasks = {name: examine(name, task) for name, task in suites.tasks.items()}
    return {"figures": metrics, "tasks": tasks}
