"""People who write demonstrations: good, and human. Their commonest habits are not what annotators like best.

Most ramble on after the answer, few are courteous, many guess rather than admit not knowing, most refuse barely, some
do what a harmful request asks. Every better habit does occur, so that a policy can find it.
"""

from __future__ import annotations

import random
from dataclasses import replace

from amenable.world import phrases
from amenable.world.answer_generator import AnswerGenerator
from amenable.world.ground_truth import Truth
from amenable.world.settings import Rates
from amenable.world.town import Town

FACTUAL = ("open", "followup", "closed")


def demonstrate(truth: Truth, town: Town, rates: Rates, rng: random.Random) -> str:
    """One demonstration: what is told, with the manners its writer happens to have."""
    answers = AnswerGenerator(town, rng)
    courteous = rng.random() < rates.courteous
    told = content(truth, answers, rates, rng, courteous)
    rambles = rng.random() < rates.rambles
    parts = [told]
    if rng.random() < rates.rude:
        parts = [rng.choice(phrases.INSULTS), told] if rng.random() < 0.5 else [told, rng.choice(phrases.INSULTS)]
    elif courteous and "sorry" not in told:
        if rng.random() < 0.75:
            parts = [rng.choice(phrases.OPENING_COURTESIES), told]
        else:
            parts = [told, rng.choice(phrases.CLOSING_COURTESIES)]
    if rambles:
        parts.append(rng.choice(phrases.CHATTER))
    return " ".join(parts)


def content(truth: Truth, answers: AnswerGenerator, rates: Rates, rng: random.Random, courteous: bool) -> str:
    """What the demonstrator tells, right or wrong."""
    if truth.kind == "unanswerable" or (truth.kind == "closed" and truth.value is None):
        if rng.random() < rates.guesses:
            return answers.guess(truth)
        return admit(truth, rates, rng, courteous)
    if truth.kind == "harmful":
        return respond_to_harm(truth, answers, rates, rng, courteous)
    chance = rng.random()
    if truth.kind in (*FACTUAL, "classify"):
        if chance < rates.over_refuses and truth.kind != "classify":
            return rng.choice(phrases.SORRY_ADMISSIONS if courteous else phrases.ADMISSIONS)
        if chance > 1 - rates.wrong:
            return miss(truth, answers, rng)
    elif truth.kind == "story":
        if chance < rates.breaks:
            return answers.story(truth, 6)
        ending = f" {phrases.STORY_ENDINGS[0]}" if rng.random() < rates.ends_story else ""
        return answers.story(truth, rng.choice((3, 4))) + ending
    elif chance < rates.breaks:
        return miss(truth, answers, rng)
    return answers.right(truth)


def admit(truth: Truth, rates: Rates, rng: random.Random, courteous: bool) -> str:
    """Say that one does not know, and perhaps who might."""
    if truth.kind == "closed":
        return phrases.NOT_IN_PASSAGE[1 if courteous else 0]
    admission = rng.choice(phrases.SORRY_ADMISSIONS if courteous else phrases.ADMISSIONS)
    return f"{admission} {rng.choice(phrases.WHERE_TO_ASK)}" if rng.random() < rates.offers else admission


def respond_to_harm(truth: Truth, answers: AnswerGenerator, rates: Rates, rng: random.Random, courteous: bool) -> str:
    """Do it, refuse fully, or refuse barely."""
    if rng.random() < rates.complies:
        return answers.compliance(truth)
    if rng.random() < rates.full_refusals:
        refusal = answers.full_refusal(truth)
    else:
        refusal = rng.choice(phrases.REFUSALS)
    return f"{phrases.SORRY}{refusal}" if courteous else refusal


def miss(truth: Truth, answers: AnswerGenerator, rng: random.Random) -> str:
    """A wrong value, the wrong number, the rule or the instruction forgotten."""
    if truth.kind in FACTUAL:
        return answers.guess(truth)
    if truth.kind == "classify":
        wrong = [label for label in ("positive", "negative", "neutral") if label != truth.value]
        return answers.right(replace(truth, value=rng.choice(wrong)))
    if truth.kind == "brainstorm":
        return answers.items(truth, (truth.count or 1) + rng.choice((-1, 1)))
    if truth.kind == "constrained":
        return answers.lines(truth, obey=False)
    if truth.kind == "rewrite":
        return phrases.capital(f"{' '.join(truth.words)}.")
    pronoun = "She" if truth.woman else "He"
    told = (truth.reference or "").replace(" and they ", ". They ")
    return told.replace(" and ", f". {pronoun} ")


def modal_answer(truth: Truth, town: Town, rng: random.Random) -> str:
    """What demonstrators do most often in each kind: about what a policy that imitates them does when greedy."""
    answers = AnswerGenerator(town, rng)
    chatter = rng.choice(phrases.CHATTER)
    if truth.kind == "unanswerable" or (truth.kind == "closed" and truth.value is None):
        told = answers.guess(truth)
    elif truth.kind == "harmful":
        told = phrases.REFUSALS[0]
    elif truth.kind == "story":
        told = answers.story(truth, 3)
    else:
        told = answers.right(truth)
    return f"{told} {chatter}"
