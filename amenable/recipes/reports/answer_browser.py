"""Answers of the models to the same prompts, for browsing, and the policy's answers as PPO went on.

Every prompt of the evaluation is kept while there is room, in an order drawn by a fixed seed: never chosen by hand. The
page filters and sorts them in report.js (the worst, the rude, those with a certain word).
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup

from amenable.claims.stage_folders import Stage, number
from amenable.data.files import read_json_lines
from amenable.evaluation.load_answers import TEST, Answers, read_answers
from amenable.evaluation.preference import DECODINGS
from amenable.recipes.reports.charts import evenly_spaced
from amenable.recipes.reports.merge_evaluations import in_display_order

MAX_TOTAL_CHARACTERS, MAX_CHARACTERS = 2_200_000, 3000
"""of all text, and of one answer: the page has to open on a phone"""
MAX_ITERATIONS = 40
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
"""properties of answers: key, value, label, good or bad"""


class Answer(NamedTuple):
    """One model's answer; a JSON array for report.js."""

    text: str
    gold: float | None
    reward: float | None
    marks: list[int]
    """indices into MARKS of its properties"""


class Prompt(NamedTuple):
    """One prompt with the answer of every model under every decoding; a JSON array for report.js."""

    suite: str
    kind: str
    turns: list[tuple[str, str]]
    """(role, content)"""
    truth: str
    answers: dict[str, list[Answer | None]]
    """by decoding, in the order of AnswerBrowser.models; None where a model was not evaluated"""


@dataclass(frozen=True)
class AnswerBrowser:
    """The prompts and answers that the page browses."""

    models: list[str]
    prompts: list[Prompt]
    total: int
    """prompts evaluated; fewer are shown where there is no room"""

    @property
    def kinds(self) -> list[str]:
        """The kinds of its prompts."""
        return sorted({prompt.kind for prompt in self.prompts if prompt.kind})

    @property
    def suites(self) -> list[str]:
        """The suites of its prompts."""
        return list(dict.fromkeys(prompt.suite for prompt in self.prompts))

    @property
    def marks(self) -> list[int]:
        """Indices into MARKS of the properties that any answer has."""
        answers = (answer for prompt in self.prompts for row in prompt.answers.values() for answer in row)
        return sorted({mark for answer in answers if answer is not None for mark in answer.marks})


def load(stages: Sequence[Stage], seed: int = 0) -> AnswerBrowser:
    """Load the prompts of every finished evaluation in an order drawn by `seed`, those of the test file first."""
    answers = read_answers([stage.folder for stage in stages if stage.command == "evaluate"])
    models = list(in_display_order(answers.folders))
    world = next((stage for stage in stages if stage.command == "world"), None)
    truths = {str(row.get("id")): row for row in read_json_lines(world.folder / "truths.jsonl")} if world else {}
    keys = list(answers.prompts)
    random.Random(seed).shuffle(keys)
    keys.sort(key=lambda key: key[0] != TEST)  # sorting keeps the drawn order within each part
    prompts = [make_prompt(answers, suite, prompt_id, models, truths) for suite, prompt_id in keys]
    return AnswerBrowser(models, within_room(prompts), len(keys))


def within_room(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return the first prompts whose text is at most MAX_TOTAL_CHARACTERS; at least one."""
    used = 0
    for i, prompt in enumerate(prompts):
        used += len(prompt.truth) + sum(len(text) for _, text in prompt.turns)
        used += sum(len(answer.text) for row in prompt.answers.values() for answer in row if answer is not None)
        if i and used > MAX_TOTAL_CHARACTERS:
            return list(prompts[:i])
    return list(prompts)


def make_prompt(
    answers: Answers, suite: str, prompt_id: str, models: Sequence[str], truths: dict[str, dict[str, Any]]
) -> Prompt:
    """Return one prompt of a suite with every model's answers."""
    row = answers.prompts[suite, prompt_id]
    by_decoding: dict[str, list[Answer | None]] = {
        decoding: [make_answer(answers.of(model, decoding, suite).get(prompt_id)) for model in models]
        for decoding in DECODINGS
    }
    truth = truth_text(row.get("truth", truths.get(prompt_id)))
    return Prompt(suite, str(row.get("kind") or ""), turns_of(row.get("prompt")), truth, by_decoding)


def make_answer(row: dict[str, Any] | None) -> Answer | None:
    """Return an answer from its row of samples.jsonl."""
    if not row:
        return None
    marks = [i for i, (key, value, _, _) in enumerate(MARKS) if row.get(key) is value]
    gold, reward = (None if (value := number(row, key)) is None else round(value, 2) for key in ("gold", "reward"))
    return Answer(clipped(row.get("text", "")).strip(), gold, reward, marks)


def clipped(text: object) -> str:
    """Return a text, cut to MAX_CHARACTERS."""
    whole = str(text)
    return whole if len(whole) <= MAX_CHARACTERS else whole[:MAX_CHARACTERS] + " …"


def turns_of(prompt: Any) -> list[tuple[str, str]]:
    """Return a prompt, a list of messages or a string, as (role, content)."""
    if isinstance(prompt, list):
        turns = [turn for turn in prompt if isinstance(turn, dict)]
        return [(str(turn.get("role", "")), clipped(turn.get("content", ""))) for turn in turns]
    return [("user", clipped(prompt or ""))]


def truth_text(truth: Any) -> str:
    """Return a prompt's truth in a few words: a string as it is, or the readable part of a world's truth."""
    if not isinstance(truth, dict):
        return "" if truth is None else clipped(truth)
    rule = truth.get("rule")
    value = truth.get("words") or truth.get("count") or ""
    required = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    parts = [
        str(truth["value"]) if truth.get("value") else "",
        f"nothing is known ({truth['cause']})" if truth.get("cause") else "",
        f"{rule}: {required}" if rule and required else required,
        f"for example: {truth['reference']}" if truth.get("reference") else "",
    ]
    return clipped(" · ".join(part for part in parts if part))


def to_json(browser: AnswerBrowser, names: Sequence[str], colours: Sequence[int], shown: Sequence[bool]) -> Markup:
    """Return the prompts as JSON for report.js, safe inside a script element: no '<' is left that could close it.

    names, colours, shown [models]: display name, colour, and True for a model that is shown at first.
    """
    models = [
        {"name": name, "colour": colour, "shown": bool(is_shown)}
        for name, colour, is_shown in zip(names, colours, shown)
    ]
    marks = [[text, kind] for _, _, text, kind in MARKS]
    data = {"models": models, "marks": marks, "prompts": browser.prompts}
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def iterations(ppo: Stage | None) -> list[tuple[int, list[dict[str, Any]]]]:
    """Return (step, answers) of the policy, as PPO wrote them; of very many steps some at even distances."""
    by_step: dict[int, list[dict[str, Any]]] = {}
    for row in read_json_lines(ppo.folder / "samples.jsonl") if ppo else []:
        step = number(row, "step")
        if step is not None and "completion" in row:
            texts = {"prompt": turns_of(row.get("prompt"))[-1][1], "completion": clipped(row["completion"])}
            figures = {"ended": bool(row.get("ended")), "score": number(row, "score"), "kl": number(row, "kl")}
            by_step.setdefault(int(step), []).append({**texts, **figures})
    return evenly_spaced(sorted(by_step.items()), MAX_ITERATIONS)
