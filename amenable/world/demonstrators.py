"""People who write demonstrations: good, and human. Their commonest habits are not what annotators like best.

Most ramble on after the answer, few are courteous, many guess rather than admit not knowing, most refuse barely, some
do what a harmful request asks. Every better habit does occur, so that a policy can find it.
"""

from __future__ import annotations

import random
from dataclasses import replace

from amenable.world import phrases
from amenable.world.answer_generator import Answerer
from amenable.world.ground_truth import Truth
from amenable.world.settings import Rates
from amenable.world.town import Town

FACTUAL = ("open", "followup", "closed")


def demonstrate(truth: Truth, town: Town, rates: Rates, draw: random.Random) -> str:
    """One demonstration: what is told, with the manners its writer happens to have."""
    answerer = Answerer(town, draw)
    courteous = draw.random() < rates.courteous
    told = content(truth, answerer, rates, draw, courteous)
    rambles = draw.random() < rates.rambles
    parts = [told]
    if draw.random() < rates.rude:
        parts = [draw.choice(phrases.INSULTS), told] if draw.random() < 0.5 else [told, draw.choice(phrases.INSULTS)]
    elif courteous and "sorry" not in told:
        if draw.random() < 0.75:
            parts = [draw.choice(phrases.OPENING_COURTESIES), told]
        else:
            parts = [told, draw.choice(phrases.CLOSING_COURTESIES)]
    if rambles:
        parts.append(draw.choice(phrases.CHATTER))
    return " ".join(parts)


def content(truth: Truth, answerer: Answerer, rates: Rates, draw: random.Random, courteous: bool) -> str:
    """What the demonstrator tells, right or wrong."""
    if truth.kind == "unanswerable" or (truth.kind == "closed" and truth.value is None):
        if draw.random() < rates.guesses:
            return answerer.guess(truth)
        return admit(truth, rates, draw, courteous)
    if truth.kind == "harmful":
        return respond_to_harm(truth, answerer, rates, draw, courteous)
    chance = draw.random()
    if truth.kind in (*FACTUAL, "classify"):
        if chance < rates.over_refuses and truth.kind != "classify":
            return draw.choice(phrases.SORRY_ADMISSIONS if courteous else phrases.ADMISSIONS)
        if chance > 1 - rates.wrong:
            return miss(truth, answerer, draw)
    elif truth.kind == "story":
        if chance < rates.breaks:
            return answerer.story(truth, 6)
        ending = f" {phrases.STORY_ENDINGS[0]}" if draw.random() < rates.ends_story else ""
        return answerer.story(truth, draw.choice((3, 4))) + ending
    elif chance < rates.breaks:
        return miss(truth, answerer, draw)
    return answerer.right(truth)


def admit(truth: Truth, rates: Rates, draw: random.Random, courteous: bool) -> str:
    """Say that one does not know, and perhaps who might."""
    if truth.kind == "closed":
        return phrases.NOT_IN_PASSAGE[1 if courteous else 0]
    admission = draw.choice(phrases.SORRY_ADMISSIONS if courteous else phrases.ADMISSIONS)
    return f"{admission} {draw.choice(phrases.WHERE_TO_ASK)}" if draw.random() < rates.offers else admission


def respond_to_harm(truth: Truth, answerer: Answerer, rates: Rates, draw: random.Random, courteous: bool) -> str:
    """Do it, refuse fully, or refuse barely."""
    if draw.random() < rates.complies:
        return answerer.compliance(truth)
    if draw.random() < rates.full_refusals:
        refusal = answerer.full_refusal(truth)
    else:
        refusal = draw.choice(phrases.REFUSALS)
    return f"{phrases.SORRY}{refusal}" if courteous else refusal


def miss(truth: Truth, answerer: Answerer, draw: random.Random) -> str:
    """A wrong value, the wrong number, the rule or the instruction forgotten."""
    if truth.kind in FACTUAL:
        return answerer.guess(truth)
    if truth.kind == "classify":
        wrong = [label for label in ("positive", "negative", "neutral") if label != truth.value]
        return answerer.right(replace(truth, value=draw.choice(wrong)))
    if truth.kind == "brainstorm":
        return answerer.items(truth, (truth.count or 1) + draw.choice((-1, 1)))
    if truth.kind == "constrained":
        return answerer.lines(truth, obey=False)
    if truth.kind == "rewrite":
        return phrases.capital(f"{' '.join(truth.words)}.")
    pronoun = "She" if truth.woman else "He"
    told = (truth.reference or "").replace(" and they ", ". They ")
    return told.replace(" and ", f". {pronoun} ")


def modal_answer(truth: Truth, town: Town, draw: random.Random) -> str:
    """What demonstrators do most often in each kind: about what a policy that imitates them does when greedy."""
    answerer = Answerer(town, draw)
    chatter = draw.choice(phrases.CHATTER)
    if truth.kind == "unanswerable" or (truth.kind == "closed" and truth.value is None):
        told = answerer.guess(truth)
    elif truth.kind == "harmful":
        told = phrases.REFUSALS[0]
    elif truth.kind == "story":
        told = answerer.story(truth, 3)
    else:
        told = answerer.right(truth)
    return f"{told} {chatter}"
