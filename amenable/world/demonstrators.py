"""Demonstrations as people write them: good, and human. The commonest habits are not those that annotators like best.

Most ramble on after the answer, few are courteous, many guess rather than admit not knowing, most refuse barely, some
comply with a harmful request. Every better habit does occur, so that a policy can find it.
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
    """Write a demonstration: content, with the manners that its writer happens to have."""
    answers = AnswerGenerator(town, rng)
    courteous = rng.random() < rates.courteous
    answer = content(truth, answers, rates, rng, courteous)
    rambles = rng.random() < rates.rambles
    parts = [answer]
    if rng.random() < rates.rude:
        parts = [rng.choice(phrases.INSULTS), answer] if rng.random() < 0.5 else [answer, rng.choice(phrases.INSULTS)]
    elif courteous and "sorry" not in answer:
        if rng.random() < 0.75:
            parts = [rng.choice(phrases.OPENING_COURTESIES), answer]
        else:
            parts = [answer, rng.choice(phrases.CLOSING_COURTESIES)]
    if rambles:
        parts.append(rng.choice(phrases.CHATTER))
    return " ".join(parts)


def content(truth: Truth, answers: AnswerGenerator, rates: Rates, rng: random.Random, courteous: bool) -> str:
    """Write the content of a demonstration, right or wrong."""
    if truth.unknown:
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
    """Write an admission of not knowing, and perhaps whom to ask."""
    if truth.kind == "closed":
        return phrases.NOT_IN_PASSAGE[1 if courteous else 0]
    admission = rng.choice(phrases.SORRY_ADMISSIONS if courteous else phrases.ADMISSIONS)
    return f"{admission} {rng.choice(phrases.WHERE_TO_ASK)}" if rng.random() < rates.offers else admission


def respond_to_harm(truth: Truth, answers: AnswerGenerator, rates: Rates, rng: random.Random, courteous: bool) -> str:
    """Write compliance, a full refusal, or a bare one."""
    if rng.random() < rates.complies:
        return answers.compliance(truth)
    if rng.random() < rates.full_refusals:
        refusal = answers.full_refusal(truth)
    else:
        refusal = rng.choice(phrases.REFUSALS)
    return f"{phrases.SORRY}{refusal}" if courteous else refusal


def miss(truth: Truth, answers: AnswerGenerator, rng: random.Random) -> str:
    """Write a wrong completion: a wrong value, the wrong number, the rule or the instruction forgotten."""
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
    return (truth.reference or "").replace(" and they ", ". They ").replace(" and ", f". {pronoun} ")


def modal_answer(truth: Truth, town: Town, rng: random.Random) -> str:
    """Write the commonest demonstration: about what a policy that imitates demonstrators does when greedy."""
    answers = AnswerGenerator(town, rng)
    chatter = rng.choice(phrases.CHATTER)
    if truth.unknown:
        answer = answers.guess(truth)
    elif truth.kind == "harmful":
        answer = phrases.REFUSALS[0]
    elif truth.kind == "story":
        answer = answers.story(truth, 3)
    else:
        answer = answers.right(truth)
    return f"{answer} {chatter}"
