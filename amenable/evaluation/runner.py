"""Everything measured of one entry: its answers to every suite of prompts, and what its model knows of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from amenable.data.types import Demonstration, Prompt, Text
from amenable.evaluation import best_of
from amenable.evaluation.answering import Answer, GenerationConfig, LoadedModel, count_dropped_shots, generate_answers
from amenable.evaluation.load_answers import TEST
from amenable.evaluation.metrics import (
    Yardsticks,
    demonstration_figures,
    drawn,
    further,
    measure,
    score,
    summary,
    text_figures,
)
from amenable.evaluation.multiple_choice import Question, accuracy
from amenable.evaluation.preference import DECODINGS, Decoding, Row

Figures = dict[str, Any]
Said = dict[str, list[Row] | None]
"""answers by decoding"""


@dataclass(frozen=True)
class Tests:
    """What every entry is asked."""

    __test__ = False  # to pytest: this is none of its own

    suites: Mapping[str, Sequence[Prompt]]
    """prompts by suite; those of the suite "test" are answered under both decodings"""
    suite_decodings: Sequence[Decoding] = DECODINGS
    """of the other suites"""
    best_of_prompts: int = 600
    """at most so many, the first, are answered by the best of n"""
    texts: list[Text] = field(default_factory=list)
    text_tokens: int = 30_000
    """at most so many tokens of them"""
    demonstrations: Sequence[Demonstration] = ()
    tasks: Mapping[str, Sequence[Question]] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """What one entry said, and what that came to."""

    figures: dict[str, Figures]
    """by suite: those of sampled answers on top, of greedy ones under "greedy"; None where there are none"""
    answers: dict[str, Said]
    """by suite"""
    curve: list[Row] | None
    """the best of 1, 2, 4 .. where it answers with the best of n"""
    notes: list[str]
    """what a reader should be told"""


def examine(
    model: LoadedModel, temperature: float, tests: Tests, generation: GenerationConfig, by: Yardsticks
) -> Examined:
    """Evaluate a model on all suites; sampled answers are drawn at `temperature`."""
    if model.entry.best_of > 1:
        return examine_best(model, temperature, tests, generation, by)
    figures: dict[str, Figures] = {}
    answers: dict[str, Said] = {}
    notes = []
    for suite, prompts in tests.suites.items():
        decodings = DECODINGS if suite == TEST else tests.suite_decodings
        found = {one: decoded(one, model, prompts, temperature, generation, by) for one in decodings}
        figures[suite] = {**(found["sampled"][0] if "sampled" in found else {}), "greedy": None}
        if "greedy" in found:
            figures[suite]["greedy"] = found["greedy"][0]
        answers[suite] = {one: rows for one, (_, rows) in found.items()}
        if model.entry.few_shot and (count := count_dropped_shots(model, prompts, generation)):
            notes.append(f"{count} of {len(prompts)} prompts of '{suite}' leave no room for all the shots")
    return Examined(figures, answers, None, notes)


def decoded(
    decoding: Decoding,
    model: LoadedModel,
    prompts: Sequence[Prompt],
    temperature: float,
    generation: GenerationConfig,
    by: Yardsticks,
) -> tuple[Figures, list[Row]]:
    """Answers to one suite under one decoding, and their figures."""
    sampled = decoding == "sampled"
    answers = [group[0] for group in generate_answers(model, prompts, generation.at(temperature if sampled else 0.0))]
    # a greedy answer has no temperature: its log-ratio is told as if it were drawn as the reference's are
    rows = measure(model, prompts, answers, temperature if sampled else by.temperature, by)
    how = drawn(answers, temperature) if sampled else {"entropy": None, "temperature": 0.0}
    return {**summary(rows, prompts, by), **how}, rows


def examine_best(
    model: LoadedModel, temperature: float, tests: Tests, generation: GenerationConfig, by: Yardsticks
) -> Examined:
    """The best of n answers by reward, to the first prompts of the suite "test" alone: it costs n times as much."""
    n, prompts = model.entry.best_of, tests.suites[TEST][: tests.best_of_prompts]
    groups = generate_answers(model, prompts, generation.at(temperature), samples=n)
    each = [prompt for prompt in prompts for _ in range(n)]
    scores = score(model, each, [answer for group in groups for answer in group], by)
    rewards = torch.tensor(scores, dtype=torch.float64).view(len(prompts), n)
    best = [group[i] for group, i in zip(groups, rewards.argmax(1).tolist())]
    rows = further(measure(model, prompts, best, temperature, by), n)
    by_size = {size: best_of.expected(rewards.sort(1).values, size).tolist() for size in best_of.sizes(n)}
    for place, row in enumerate(rows):
        row["best_of"] = {str(size): values[place] for size, values in by_size.items()}
    figures = {**summary(rows, prompts, by), "entropy": None, "temperature": temperature, "greedy": None}
    curve = best_of.curve(rewards, golds(prompts, groups, by))
    return Examined({TEST: figures}, {TEST: {"sampled": rows, "greedy": None}}, curve, [])


def golds(prompts: Sequence[Prompt], groups: Sequence[Sequence[Answer]], by: Yardsticks) -> torch.Tensor | None:
    """Gold of all answers [P, N]; None where no world knows the truth."""
    if by.jury is None:
        return None
    jury = by.jury
    rows = [
        [jury.parts(prompt.id, {"text": answer.text, "ended": answer.ended}).gold for answer in group]
        for prompt, group in zip(prompts, groups)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def knowledge(model: LoadedModel, tests: Tests, by: Yardsticks) -> dict[str, Figures]:
    """What depends on the model alone and not on how it is asked: figures of text, and tasks by likelihood."""
    figures: Figures = {"bpb": None}
    if tests.texts:
        figures |= text_figures(model, tests.texts, tests.text_tokens, by)
    if tests.demonstrations:
        figures |= demonstration_figures(model, tests.demonstrations, by)
    tasks = {
        name: accuracy(
            model.decoder,
            model.tokenizer,
            questions,
            by.runtime,
            by.max_tokens,
            by.bars(f"{model.entry.name}: {name}"),
        )
        for name, questions in tests.tasks.items()
    }
    return {"figures": figures, "tasks": tasks}
