"""What the models said: the same prompts answered by each, and the policy's answers as PPO went on.

Which prompts are shown is decided by a fixed seed and, besides, by where the last model gained and lost most: never by
hand. Rows come from samples.jsonl of `evaluate` and of `ppo`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amenable.recipes.folders import Stage, number, read_rows

MOST_RANDOM = 120
EXTREMES, EXTREMES_OF_A_KIND = 12, 4
"""so many of the best, the worst, the largest gains and losses are kept, in all and of each kind of prompt"""
MOST_CHARACTERS, LONGEST = 1_500_000, 3000
"""text kept in all, and of one answer: the page has to open on a phone"""
MOST_ITERATIONS = 40
SHOWN = 6
"""prompts shown at first"""
DECODINGS = ("sampled", "greedy")


@dataclass(frozen=True)
class Answer:
    """One model's answer."""

    model: str
    text: str
    ended: bool
    gold: float | None
    reward: float | None


@dataclass(frozen=True)
class Card:
    """One prompt with every model's answers, and its place in each order that the reader may choose."""

    kind: str
    turns: list[tuple[str, str]]
    """(role, what was said)"""
    truth: str
    answers: dict[str, list[Answer]]
    orders: dict[str, int]
    """place by order, 0 first, for the orders in which this card is shown"""


@dataclass(frozen=True)
class Iteration:
    """Some of the policy's answers at one step of PPO."""

    step: int
    rows: list[dict[str, Any]]


def cards(evaluate: Stage | None, world: Stage | None, after: str, before: str, seed: int = 0) -> list[Card]:
    """Prompts side by side: some at random, and the extremes of `after` alone and against `before`."""
    rows = [row for row in read_rows(evaluate.folder / "samples.jsonl") if answered(row)] if evaluate else []
    truths = {str(row.get("id")): row for row in read_rows(world.folder / "truths.jsonl")} if world else {}
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    places: dict[int, dict[str, int]] = {row: {"random": place} for place, row in enumerate(order[:MOST_RANDOM])}
    for name, worth in orders(after, before).items():
        known = [(found, row) for row in order if (found := worth(rows[row])) is not None]
        of_kind: Counter[str] = Counter()
        for place, (_, row) in enumerate(sorted(known, key=lambda pair: -pair[0])):
            kind = str(rows[row].get("kind"))
            if place < EXTREMES or of_kind[kind] < EXTREMES_OF_A_KIND:
                places.setdefault(row, {})[name] = place
            of_kind[kind] += 1
    return within_room([card_of(rows[row], truths, found) for row, found in places.items()])


def within_room(chosen: list[Card]) -> list[Card]:
    """The first of the cards, as many as there is room for."""
    used = 0
    kept: list[Card] = []
    for card in chosen:
        said = [answer.text for told in card.answers.values() for answer in told]
        used += len(card.truth) + sum(map(len, said)) + sum(len(text) for _, text in card.turns)
        if kept and used > MOST_CHARACTERS:
            break
        kept.append(card)
    return kept


def clipped(text: object) -> str:
    """A text, its end left out where it is very long."""
    told = str(text)
    return told if len(told) <= LONGEST else told[:LONGEST] + " …"


def answered(row: dict[str, Any]) -> bool:
    return isinstance(row.get("answers"), dict) and bool(row["answers"])


def orders(after: str, before: str) -> dict[str, Callable[[dict[str, Any]], float | None]]:
    """What each order puts first: the mean over decodings of gold, or of reward where no world knows the truth."""

    def worth(row: dict[str, Any], model: str) -> float | None:
        answer = row["answers"].get(model) or {}
        for key in ("gold", "reward"):
            told = [value for name in DECODINGS if (value := number(answer.get(name), key)) is not None]
            if told:
                return sum(told) / len(told)
        return None

    def gain(row: dict[str, Any]) -> float | None:
        new, old = worth(row, after), worth(row, before)
        return None if new is None or old is None else new - old

    def turned(value: float | None) -> float | None:
        return None if value is None else -value

    return {
        "gain": gain,
        "loss": lambda row: turned(gain(row)),
        "best": lambda row: worth(row, after),
        "worst": lambda row: turned(worth(row, after)),
    }


def card_of(row: dict[str, Any], truths: dict[str, dict[str, Any]], places: dict[str, int]) -> Card:
    answers = {
        decoding: [answer_of(name, told[decoding]) for name, told in row["answers"].items() if told.get(decoding)]
        for decoding in DECODINGS
    }
    truth = row.get("truth", truths.get(str(row.get("id"))))
    return Card(str(row.get("kind") or ""), turns_of(row.get("prompt")), truth_text(truth), answers, places)


def answer_of(model: str, told: dict[str, Any]) -> Answer:
    ended = bool(told.get("ended"))
    return Answer(model, clipped(told.get("text", "")), ended, number(told, "gold"), number(told, "reward"))


def turns_of(prompt: Any) -> list[tuple[str, str]]:
    """A prompt as (role, content), whether it was kept as messages or as a string."""
    if isinstance(prompt, list):
        return [
            (str(turn.get("role", "")), clipped(turn.get("content", ""))) for turn in prompt if isinstance(turn, dict)
        ]
    return [("user", clipped(prompt or ""))]


def truth_text(truth: Any) -> str:
    """What is known to be right, in a few words: a string as it is, or what a reader can use of a world's truth."""
    if not isinstance(truth, dict):
        return "" if truth is None else clipped(truth)
    rule = truth.get("rule")
    asked = truth.get("words") or truth.get("count") or ""
    wanted = ", ".join(map(str, asked)) if isinstance(asked, (list, tuple)) else str(asked)
    told = [
        str(truth["value"]) if truth.get("value") else "",
        f"nothing is known ({truth['cause']})" if truth.get("cause") else "",
        f"{rule}: {wanted}" if rule and wanted else wanted,
        f"for example: {truth['reference']}" if truth.get("reference") else "",
    ]
    return clipped(" · ".join(part for part in told if part))


def kinds_of(chosen: Sequence[Card]) -> list[str]:
    """Every kind among the cards, by name."""
    return sorted({card.kind for card in chosen if card.kind})


def iterations(ppo: Stage | None) -> list[Iteration]:
    """The policy's answers by step, as PPO kept them; of very many steps some, the first and the last among them."""
    by_step: dict[int, list[dict[str, Any]]] = {}
    for row in read_rows(ppo.folder / "samples.jsonl") if ppo else []:
        step = number(row, "step")
        if step is not None and "completion" in row:
            said = {"prompt": turns_of(row.get("prompt"))[-1][1], "completion": clipped(row["completion"])}
            figures = {"ended": bool(row.get("ended")), "score": number(row, "score"), "kl": number(row, "kl")}
            by_step.setdefault(int(step), []).append({**said, **figures})
    steps = sorted(by_step)
    if len(steps) > MOST_ITERATIONS:
        steps = [steps[round(i * (len(steps) - 1) / (MOST_ITERATIONS - 1))] for i in range(MOST_ITERATIONS)]
    return [Iteration(step, by_step[step]) for step in steps]
