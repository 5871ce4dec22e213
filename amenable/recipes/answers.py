"""What the models said: the same prompts answered by each, and the policy's answers as PPO went on.

Which prompts are shown is decided by a fixed seed and, besides, by where the last model gained and lost most: never by
hand. Rows come from samples.jsonl of `evaluate` and of `ppo`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amenable.recipes.folders import Stage, number, read_rows

MOST_CARDS = 160
EXTREMES = 12
"""so many prompts of the best, the worst, the largest gains and losses are always among those shown"""
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
    random_ones = order[: MOST_CARDS - 4 * EXTREMES] if len(rows) > MOST_CARDS else order
    places: dict[int, dict[str, int]] = {row: {"random": place} for place, row in enumerate(random_ones)}
    for name, worth in orders(after, before).items():
        known = [(found, row) for row in order if (found := worth(rows[row])) is not None]
        for place, (_, row) in enumerate(sorted(known, key=lambda pair: -pair[0])[:EXTREMES]):
            places.setdefault(row, {})[name] = place
    return [card_of(rows[row], truths, found) for row, found in places.items()]


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
    return Answer(model, str(told.get("text", "")), ended, number(told, "gold"), number(told, "reward"))


def turns_of(prompt: Any) -> list[tuple[str, str]]:
    """A prompt as (role, content), whether it was kept as messages or as a string."""
    if isinstance(prompt, list):
        return [(str(turn.get("role", "")), str(turn.get("content", ""))) for turn in prompt if isinstance(turn, dict)]
    return [("user", str(prompt or ""))]


def truth_text(truth: Any) -> str:
    """What the world knows, as one line: a string as it is, of a mapping its plain values."""
    if isinstance(truth, dict):
        plain = {key: value for key, value in truth.items() if key not in ("id", "kind", "prompt")}
        told = [(key, value) for key, value in plain.items() if isinstance(value, (str, int, float)) and value != ""]
        return " · ".join(f"{key.replace('_', ' ')}: {value}" for key, value in told)
    return "" if truth is None else str(truth)


def kinds_of(chosen: Sequence[Card]) -> list[str]:
    return sorted({card.kind for card in chosen if card.kind})


def iterations(ppo: Stage | None) -> list[Iteration]:
    """The policy's answers by step, as PPO kept them."""
    by_step: dict[int, list[dict[str, Any]]] = {}
    for row in read_rows(ppo.folder / "samples.jsonl") if ppo else []:
        step = number(row, "step")
        if step is not None and "completion" in row:
            kept = {
                "prompt": turns_of(row.get("prompt"))[-1][1] if row.get("prompt") else "",
                "ended": row.get("ended"),
            }
            figures = {"score": number(row, "score"), "kl": number(row, "kl")}
            by_step.setdefault(int(step), []).append({**kept, "completion": str(row["completion"]), **figures})
    return [Iteration(step, by_step[step]) for step in sorted(by_step)]
