"""What the models said: the same prompts answered by each, and the policy's answers as PPO went on.

Every prompt of the evaluation is kept while there is room, in an order drawn by a fixed seed: never chosen by hand. The
page picks among them by what the reader asks for (the worst, the rude, those with a certain word), in report.js.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from amenable.claims.stage_folders import Stage, number
from amenable.data.files import read_json_lines
from amenable.evaluation.load_answers import TEST, Answers, read_answers
from amenable.evaluation.preference import DECODINGS
from amenable.recipes.reports.merge_evaluations import in_order

MOST_CHARACTERS, LONGEST = 2_200_000, 3000
"""text kept in all, and of one answer: the page has to open on a phone"""
MOST_ITERATIONS = 40
SHOWN = 5
"""prompts shown at first"""

MARKS = (
    ("truthful", True, "truthful", "good"),
    ("truthful", False, "not true", "bad"),
    ("hallucinated", True, "made up", "bad"),
    ("over_refused", True, "refused without need", "bad"),
    ("harmful", True, "helps with harm", "bad"),
    ("rude", True, "rude", "bad"),
    ("polite", True, "polite", "good"),
    ("follows", True, "follows the instruction", "good"),
    ("follows", False, "ignores the instruction", "bad"),
    ("ended", False, "cut off", "bad"),
)
"""what can be said of an answer: the part that tells it, the part's value, in words, good or bad"""


@dataclass(frozen=True)
class Answer:
    """One model's answer."""

    text: str
    gold: float | None
    reward: float | None
    marks: list[int]
    """places in MARKS of what is true of it"""


@dataclass(frozen=True)
class Prompt:
    """One prompt with the answer of every model under every decoding."""

    suite: str
    kind: str
    turns: list[tuple[str, str]]
    """(role, what was said)"""
    truth: str
    answers: dict[str, list[Answer | None]]
    """by decoding, in the order of Explorer.models; None where a model was not asked"""


@dataclass(frozen=True)
class Explorer:
    """All that the page's part on answers shows."""

    models: list[str]
    prompts: list[Prompt]
    total: int
    """prompts there were; fewer are kept where there is no room"""

    @property
    def kinds(self) -> list[str]:
        return sorted({prompt.kind for prompt in self.prompts if prompt.kind})

    @property
    def suites(self) -> list[str]:
        return list(dict.fromkeys(prompt.suite for prompt in self.prompts))

    @property
    def marks(self) -> list[int]:
        """Places in MARKS of all that is said of any answer."""
        told = {
            mark
            for prompt in self.prompts
            for said in prompt.answers.values()
            for one in said
            if one
            for mark in one.marks
        }
        return sorted(told)


@dataclass(frozen=True)
class Iteration:
    """Some of the policy's answers at one step of PPO."""

    step: int
    rows: list[dict[str, Any]]


def explorer(stages: Sequence[Stage], seed: int = 0) -> Explorer:
    """The prompts of every finished evaluation in an order drawn by `seed`, those of the test file first."""
    found = read_answers([stage.folder for stage in stages if stage.command == "evaluate"])
    models = list(in_order(found.folders))
    world = next((stage for stage in stages if stage.command == "world"), None)
    truths = {str(row.get("id")): row for row in read_json_lines(world.folder / "truths.jsonl")} if world else {}
    places = list(found.prompts)
    random.Random(seed).shuffle(places)
    places.sort(key=lambda place: place[0] != TEST)  # sorting keeps the drawn order within each part
    return Explorer(models, within_room([prompt_of(found, place, models, truths) for place in places]), len(places))


def within_room(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first of the prompts, as many as there is room for."""
    used = 0
    kept: list[Prompt] = []
    for prompt in prompts:
        said = [answer.text for told in prompt.answers.values() for answer in told if answer is not None]
        used += len(prompt.truth) + sum(map(len, said)) + sum(len(text) for _, text in prompt.turns)
        if kept and used > MOST_CHARACTERS:
            break
        kept.append(prompt)
    return kept


def prompt_of(
    found: Answers, place: tuple[str, str], models: Sequence[str], truths: dict[str, dict[str, Any]]
) -> Prompt:
    """The prompt of one suite and id, with what every model answered."""
    (suite, name), row = place, found.prompts[place]
    said: dict[str, list[Answer | None]] = {
        decoding: [answer_of(found.of(model, decoding, suite).get(name)) for model in models] for decoding in DECODINGS
    }
    truth = row.get("truth", truths.get(name))
    return Prompt(suite, str(row.get("kind") or ""), turns_of(row.get("prompt")), truth_text(truth), said)


def answer_of(told: dict[str, Any] | None) -> Answer | None:
    if not told:
        return None
    marks = [place for place, (key, value, _, _) in enumerate(MARKS) if told.get(key) is value]
    return Answer(clipped(told.get("text", "")).strip(), rounded(told, "gold"), rounded(told, "reward"), marks)


def rounded(told: dict[str, Any], key: str) -> float | None:
    value = number(told, key)
    return None if value is None else round(value, 2)


def clipped(text: object) -> str:
    """A text, its end left out where it is very long."""
    told = str(text)
    return told if len(told) <= LONGEST else told[:LONGEST] + " …"


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


def packed(found: Explorer, names: Sequence[str], colours: Sequence[int], shown: Sequence[bool]) -> Markup:
    """The explorer as JSON for report.js, safe inside a script element: no '<' is left that could close it.

    names, colours and shown [models]: how each is written, its colour, and whether it is shown at first.
    """
    models = [{"name": name, "colour": colour, "shown": bool(one)} for name, colour, one in zip(names, colours, shown)]
    prompts = [
        [
            prompt.suite,
            prompt.kind,
            prompt.turns,
            prompt.truth,
            {
                decoding: [None if one is None else [one.text, one.gold, one.reward, one.marks] for one in said]
                for decoding, said in prompt.answers.items()
            },
        ]
        for prompt in found.prompts
    ]
    marks = [[text, kind] for _, _, text, kind in MARKS]
    told = json.dumps({"models": models, "marks": marks, "prompts": prompts}, ensure_ascii=False, separators=(",", ":"))
    return Markup(told.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def iterations(ppo: Stage | None) -> list[Iteration]:
    """The policy's answers by step, as PPO kept them; of very many steps some, the first and the last among them."""
    by_step: dict[int, list[dict[str, Any]]] = {}
    for row in read_json_lines(ppo.folder / "samples.jsonl") if ppo else []:
        step = number(row, "step")
        if step is not None and "completion" in row:
            said = {"prompt": turns_of(row.get("prompt"))[-1][1], "completion": clipped(row["completion"])}
            figures = {"ended": bool(row.get("ended")), "score": number(row, "score"), "kl": number(row, "kl")}
            by_step.setdefault(int(step), []).append({**said, **figures})
    steps = sorted(by_step)
    if len(steps) > MOST_ITERATIONS:
        steps = [steps[round(i * (len(steps) - 1) / (MOST_ITERATIONS - 1))] for i in range(MOST_ITERATIONS)]
    return [Iteration(step, by_step[step]) for step in steps]
