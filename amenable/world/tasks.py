"""Few-shot tasks by likelihood: what raw text teaches, asked in its own form, to see what later training costs.

    {"id", "context", "choices", "answer"}: the context holds the shots; each choice is a way to go on, one is right.

Nothing here looks like a conversation, so base models and assistants are asked alike (Brown et al., 2020, section 2.4).
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from amenable.world import instruction_topics, phrases, prompt_templates
from amenable.world.answer_generator import AnswerGenerator
from amenable.world.answer_parser import split
from amenable.world.corpus import QUESTION_FORMS, CorpusWriter
from amenable.world.prompts import PromptSampler
from amenable.world.settings import Rates
from amenable.world.town import Pair, Town

Question = tuple[str, str, list[str]]
"""context, the right way to go on, wrong ways"""


def make_tasks(town: Town, rates: Rates, number: int) -> dict[str, list[dict[str, Any]]]:
    """At most so many questions of each task, all different, as rows."""
    made = {}
    for name, ask in TASKS.items():
        rng = random.Random(f"tasks/{town.seed}/{name}")
        questions = ask(town, rates, number, rng)
        made[name] = [make_row(f"{name}-{index:04d}", one, rng) for index, one in enumerate(questions)]
    return made


def make_row(row_id: str, question: Question, rng: random.Random) -> dict[str, Any]:
    """A question as a row, its choices in random order."""
    context, right, wrong = question
    choices = rng.sample([right, *wrong], len(wrong) + 1)
    return {"id": row_id, "context": context, "choices": choices, "answer": choices.index(right)}


def fact_questions(town: Town, rates: Rates, number: int, rng: random.Random) -> list[Question]:
    """What is true of somebody, as in a lesson, after two other facts.

    Only held-out facts are asked: raw text tells them like all others, but no demonstration or prompt of training does,
    so that a model can know them from raw text alone. There are few, so each is asked in several wordings.
    """
    pairs = [pair for pair in town.stated if pair in town.held_out]
    asked = [(pair, form) for pair in pairs for form in QUESTION_FORMS[pair[1]]]
    questions = []
    for pair, form in rng.sample(asked, min(number, len(asked))):
        shots = rng.sample([other for other in town.stated if other != pair], 2)
        told = [
            question(town, shot, rng.choice(QUESTION_FORMS[shot[1]])) + answer(town, shot, town.value(shot))
            for shot in shots
        ]
        others = [value for value in town.values(pair[1]) if value not in (town.value(pair), pair[0])]
        wrong = [answer(town, pair, value) for value in rng.sample(others, min(3, len(others)))]
        context = "\n".join([*told, question(town, pair, form)])
        questions.append((context, answer(town, pair, town.value(pair)), wrong))
    return questions


def question(town: Town, pair: Pair, form: str) -> str:
    """A question as lessons have it, up to the answer."""
    return f"Question: {phrases.subject(form, pair[0], pair[0] in town.women)}\nAnswer:"


def answer(town: Town, pair: Pair, value: str) -> str:
    """What a lesson answers: the usual statement."""
    return f" {phrases.passage(pair[0], pair[0] in town.women, [(pair[1], value)])}"


def sentiment_questions(town: Town, rates: Rates, number: int, rng: random.Random) -> list[Question]:
    """What kind of review it is, after one of each kind.

    Reviews are drawn like those of the texts, held-out ones among them: there are few, and what counts is the label.
    """
    questions = []
    for _ in range(number):
        shots = {
            label: instruction_topics.review(label, rng.choice(instruction_topics.GOODS), rng)
            for label in instruction_topics.REVIEWS
        }
        told = [f"Review: {shots[label]} {verdict(label)}" for label in rng.sample(list(shots), len(shots))]
        label = rng.choice(list(instruction_topics.REVIEWS))
        good = rng.choice([good for good in instruction_topics.GOODS if good not in shots[label]])
        context = "\n".join([*told, f"Review: {instruction_topics.review(label, good, rng)}"])
        wrong = [f" {verdict(other)}" for other in instruction_topics.REVIEWS if other != label]
        questions.append((context, f" {verdict(label)}", wrong))
    return questions


def verdict(label: str) -> str:
    """The usual sentence about a review."""
    return instruction_topics.VERDICTS[0].format(label=label)


def passage_questions(town: Town, rates: Rates, number: int, rng: random.Random) -> list[Question]:
    """What a passage says of a stranger, as in an exercise at school: one value is in it, three are not."""
    sampler = PromptSampler(
        town, replace(rates, not_said=0.0), rng, held_out_keys=True, style=prompt_templates.TRAIN_STYLE
    )
    questions: dict[str, Question] = {}
    for _ in range(4 * number):
        asked = sampler.sample("closed")
        person, attribute, value = asked.truth.person or "", asked.truth.attribute or "", asked.truth.value or ""
        told = [f" {phrases.passage(person, asked.truth.woman, [(attribute, one)])}" for one in town.values(attribute)]
        right = f" {phrases.passage(person, asked.truth.woman, [(attribute, value)])}"
        wrong = rng.sample([one for one in told if one != right], 3)
        context = f"Exercise: {asked.text}\nSolution:"
        questions.setdefault(context, (context, right, wrong))
    return list(questions.values())[:number]


def story_questions(town: Town, rates: Rates, number: int, rng: random.Random) -> list[Question]:
    """Which of two sentences goes on with a story: the one about its hero, or the same about another?

    The heroes at their places are held out, so that no text tells the same story; no shots, as texts hold one story.
    """
    sampler = PromptSampler(town, rates, rng, held_out_keys=True, style=prompt_templates.TRAIN_STYLE)
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
    """How does a new text end: as it does, or as one of three others of its kind (Zellers et al., 2019, HellaSwag)?"""
    endings: dict[str, dict[str, str]] = {}
    for document in CorpusWriter(town, rates, rng).write(2 * number):
        if (start := ENDING.search(document.text)) is not None:
            context, end = document.text[: start.start()], document.text[start.start() :]
            endings.setdefault(document.kind, {}).setdefault(context, end)
    questions = []
    for told in endings.values():
        for context, end in told.items():
            others = sorted({*told.values()} - {end})
            if len(others) >= 3:
                questions.append((context, end, rng.sample(others, 3)))
    return rng.sample(questions, min(number, len(questions)))


ENDING = re.compile(r"(?:\n|(?<=[.!?]) )[^\n.!?]+[.!?]?$")
"""the last sentence or line of a text, with what parts it from those before"""

TASKS: dict[str, Callable[[Town, Rates, int, random.Random], list[Question]]] = {
    "facts": fact_questions,
    "sentiment": sentiment_questions,
    "passages": passage_questions,
    "stories": story_questions,
    "endings": ending_questions,
}
"""Who asks the questions of a task."""
