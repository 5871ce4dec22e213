"""Few-shot tasks by likelihood: knowledge from raw text, in raw text's own form, to measure the cost of later training.

    {"id", "context", "choices", "answer"}: the context holds the shots; each choice is a continuation, one is right.

Nothing here looks like a conversation, so base models and assistants get the same input (Brown et al., 2020,
section 2.4).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from amenable.world import instruction_topics
from amenable.world.answer_generator import AnswerGenerator
from amenable.world.answer_parser import split
from amenable.world.corpus import QUESTION_FORMS, CorpusWriter
from amenable.world.prompts import PromptSampler
from amenable.world.settings import Rates
from amenable.world.town import Pair, Town

Question = tuple[str, str, list[str]]
"""context, the right continuation, wrong continuations"""


def make_tasks(town: Town, rates: Rates, number: int) -> dict[str, list[dict[str, Any]]]:
    """Return at most `number` questions of each task, all different, as rows."""
    tasks = {}
    for name, draw in TASKS.items():
        rng = random.Random(f"tasks/{town.seed}/{name}")
        questions = draw(town, rates, number, rng)
        tasks[name] = [make_row(f"{name}-{index:04d}", question, rng) for index, question in enumerate(questions)]
    return tasks


def make_row(row_id: str, question: Question, rng: random.Random) -> dict[str, Any]:
    """Return a question as a row, its choices in random order."""
    context, right, wrong = question
    choices = rng.sample([right, *wrong], len(wrong) + 1)
    return {"id": row_id, "context": context, "choices": choices, "answer": choices.index(right)}


def fact_questions(town: Town, rates: Rates, number: int, rng: random.Random) -> list[Question]:
    """Draw questions about facts, as in a lesson, after two other facts.

    All facts are held out: raw text states them like all others, but no demonstration or prompt of training does, so
    that a model can know them from raw text alone. There are few, so each comes in several wordings.
    """
    pairs = [pair for pair in town.stated if pair in town.held_out]
    wordings = [(pair, form) for pair in pairs for form in QUESTION_FORMS[pair[1]]]
    questions = []
    for pair, form in rng.sample(wordings, min(number, len(wordings))):
        shots = rng.sample([other for other in town.stated if other != pair], 2)
        lesson = [
            question(town, shot, rng.choice(QUESTION_FORMS[shot[1]])) + answer(town, shot, town.value(shot))
            for shot in shots
        ]
        others = [value for value in town.values(pair[1]) if value not in (town.value(pair), pair[0])]
        wrong = [answer(town, pair, value) for value in rng.sample(others, min(3, len(others)))]
        context = "\n".join([*lesson, question(town, pair, form)])
        questions.append((context, answer(town, pair, town.value(pair)), wrong))
    return questions


def question(town: Town, pair: Pair, form: str) -> str:
    """Write a question as lessons have it, up to the answer."""
    return f"Question: {town.sentence(form, pair[0])}\nAnswer:"


def answer(town: Town, pair: Pair, value: str) -> str:
    """Write the answer of a lesson: the usual statement."""
    return f" {town.passage(pair[0], [(pair[1], value)])}"


def sentiment_questions(town: Town, rates: Rates, number: int, rng: random.Random) -> list[Question]:
    """Draw reviews to be classified, after a review of each label.

    Reviews are drawn like those of the texts, held-out ones among them: there are few, and only the label counts.
    """
    questions = []
    for _ in range(number):
        shots = {
            label: instruction_topics.review(label, rng.choice(instruction_topics.GOODS), rng)
            for label in instruction_topics.REVIEWS
        }
        lines = [f"Review: {shots[label]} {verdict(label)}" for label in rng.sample(list(shots), len(shots))]
        label = rng.choice(list(instruction_topics.REVIEWS))
        good = rng.choice([good for good in instruction_topics.GOODS if good not in shots[label]])
        context = "\n".join([*lines, f"Review: {instruction_topics.review(label, good, rng)}"])
        wrong = [f" {verdict(other)}" for other in instruction_topics.REVIEWS if other != label]
        questions.append((context, f" {verdict(label)}", wrong))
    return questions


def verdict(label: str) -> str:
    """Write the usual sentence about a review."""
    return instruction_topics.VERDICTS[0].format(label=label)


def passage_questions(town: Town, rates: Rates, number: int, rng: random.Random) -> list[Question]:
    """Draw questions about a passage on a stranger, as at school: one value is in the passage, three are not."""
    sampler = PromptSampler(town, replace(rates, not_said=0.0), rng, held_out_keys=True)
    questions: dict[str, Question] = {}
    for _ in range(4 * number):
        prompt = sampler.sample("closed")
        pair = prompt.truth.key
        right = answer(town, pair, prompt.truth.value or "")
        answers = [answer(town, pair, value) for value in town.values(pair[1])]
        wrong = rng.sample([other for other in answers if other != right], 3)
        context = f"Exercise: {prompt.text}\nSolution:"
        questions.setdefault(context, (context, right, wrong))
    return list(questions.values())[:number]


def story_questions(town: Town, rates: Rates, number: int, rng: random.Random) -> list[Question]:
    """Draw stories with two last sentences: one about the hero, and the same about another hero.

    The heroes at their places are held out, so that no text has the same story; no shots, as texts hold one story.
    """
    sampler = PromptSampler(town, rates, rng, held_out_keys=True)
    answers = AnswerGenerator(town, rng)
    questions: dict[str, Question] = {}
    for _ in range(4 * number):
        truth = sampler.sample("story").truth
        hero = truth.topic or ""
        *before, last = split(answers.story(truth, rng.choice((3, 4))))
        other = rng.choice([name for name in instruction_topics.HEROES if name != hero])
        wrong = re.sub(rf"\b{hero}\b", other, last)
        context = " ".join(before)
        questions.setdefault(context, (context, f" {last}", [f" {wrong}"]))
    return list(questions.values())[:number]


def ending_questions(town: Town, rates: Rates, number: int, rng: random.Random) -> list[Question]:
    """Draw new texts with their ending and three endings of others of their kind (Zellers et al., 2019, HellaSwag)."""
    endings: dict[str, dict[str, str]] = {}
    for document in CorpusWriter(town, rates, rng).write(2 * number):
        if (start := ENDING.search(document.text)) is not None:
            context, end = document.text[: start.start()], document.text[start.start() :]
            endings.setdefault(document.kind, {}).setdefault(context, end)
    questions = []
    for of_kind in endings.values():
        for context, end in of_kind.items():
            others = sorted({*of_kind.values()} - {end})
            if len(others) >= 3:
                questions.append((context, end, rng.sample(others, 3)))
    return rng.sample(questions, min(number, len(questions)))


ENDING = re.compile(r"(?:\n|(?<=[.!?]) )[^\n.!?]+[.!?]?$")
"""the last sentence or line of a text, with the space before it"""

TASKS: dict[str, Callable[[Town, Rates, int, random.Random], list[Question]]] = {
    "facts": fact_questions,
    "sentiment": sentiment_questions,
    "passages": passage_questions,
    "stories": story_questions,
    "endings": ending_questions,
}
"""by name of the task"""
