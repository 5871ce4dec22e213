"""Tests of generated answers: GSM8K by exact match, IFEval by checked instructions. Decoding is greedy.

GSM8K (Cobbe et al., 2021) is asked as plain text, with worked examples as shots (chain of thought; Wei et al., 2022).
`strict` takes the number after ####, `flexible` the last number of the text, as lm-evaluation-harness does. IFEval's
prompts are a chat model's user turns. Its `loose` accuracy forgives asterisks, and a first and last line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.evaluation.tasks.form import Columns, Examinee, Form, Metrics, metrics_of, share, text
from amenable.evaluation.tasks.instructions import CHECKERS, follows
from amenable.generation.engine import generate
from amenable.generation.sampling import Sampling
from amenable.text.chat import clean_completion, render_prompt

STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
QUESTION_STOPS = ("Question:", "</s>", "<|im_end|>")


@dataclass(frozen=True)
class PromptRow:
    """A prompt whose answer is generated."""

    context: str
    answer: str = ""
    """the right one"""
    stop: tuple[str, ...] = ()
    """texts that end an answer"""
    is_turn: bool = False
    """True for a user's turn, which a chat model gets in its format"""
    instructions: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """names and arguments of what the answer is checked for"""
    unchecked: int = 0
    """instructions that no checker knows"""
    shots: str = ""

    @property
    def example(self) -> str:
        """The row as a shot: prompt and right answer."""
        return f"{self.context} {self.answer}"

    def require_complete(self) -> None:
        """Raise ValueError for an empty prompt."""
        if not self.context.strip():
            raise ValueError("the prompt is empty")


def gsm8k(columns: Columns) -> list[PromptRow]:
    """Convert a problem; its answer ends with #### and a number."""
    question, answer = text(columns, "question", "answer")
    if not STRICT.search(answer):
        raise ValueError("the answer has no number after ####")
    return [PromptRow(f"Question: {question}\nAnswer:", answer, QUESTION_STOPS)]


def ifeval(columns: Columns) -> list[PromptRow]:
    """Convert a prompt with its instructions; those without a checker are counted."""
    (prompt,), names, arguments = text(columns, "prompt"), columns["instruction_id_list"], columns["kwargs"]
    if len(names) != len(arguments):
        raise ValueError(f"{len(arguments)} kwargs for {len(names)} instructions")
    given = [(name, {"prompt_to_repeat": prompt, **without_nulls(own)}) for name, own in zip(names, arguments)]
    known = tuple((name, own) for name, own in given if name in CHECKERS)
    for name, own in known:
        follows(name, "a", own)  # raises KeyError for an argument that is missing
    return [PromptRow(prompt, is_turn=True, instructions=known, unchecked=len(given) - len(known))]


def without_nulls(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return arguments without those that are null."""
    return {name: value for name, value in (arguments or {}).items() if value is not None}


def generate_texts(examinee: Examinee, rows: Sequence[PromptRow]) -> list[str]:
    """Return the greedy answer to each prompt, cut before a stop. A prompt that is too long loses its beginning."""
    model, generation = examinee.model, examinee.generation
    room = model.decoder.config.context_length - generation.max_new_tokens
    words = model.tokenizer
    prompts = []
    for row in rows:
        if row.is_turn and model.is_chat_model:
            prompts.append(render_prompt(words, (Message("user", row.context),))[-room:])
        else:
            opening = words.added_ids
            prompts.append([*opening, *words.encode(row.shots + row.context)[-(room - len(opening)) :]])
    stop = tuple(dict.fromkeys(mark for row in rows for mark in row.stop))
    with model.runtime.autocast():
        groups = generate(
            model.decoder,
            prompts,
            Sampling(temperature=0.0, max_new_tokens=generation.max_new_tokens),
            eos_id=words.stop_ids,
            stop=stop,
            decode=words.decode,
            max_batch_size=generation.max_batch_size,
            progress=examinee.progress,
        )
    return [clean_completion(words, group[0].text or "") for group in groups]


def exact_match(examinee: Examinee, rows: Sequence[PromptRow]) -> Metrics:
    """Return the share of answers whose number is the right one, by both extractions."""
    texts = generate_texts(examinee, rows)
    golds = [plain_number(row.answer) for row in rows]
    strict = [plain_number(strict_answer(answer)) == gold for answer, gold in zip(texts, golds)]
    flexible = [plain_number(flexible_answer(answer)) == gold for answer, gold in zip(texts, golds)]
    return {**metrics_of("strict", strict, {"flexible": share(flexible)}), "texts": texts}


def strict_answer(answer: str) -> str:
    """Return the first number after ####; a text that is no number where there is none."""
    match = STRICT.search(answer)
    return match[1].strip() if match else "[invalid]"


def flexible_answer(answer: str) -> str:
    """Return the last number of a text; a text that is no number where there is none."""
    matches = FLEXIBLE.findall(answer)
    return next((part.strip() for part in matches[-1] if part), "[invalid]") if matches else "[invalid]"


def plain_number(answer: str) -> str:
    """Return an answer without commas, $, all before ####, and a full stop at the end, in lower case."""
    plain = re.sub(r"(?s).*#### ", "", answer.replace(",", "").replace("$", ""))
    return re.sub(r"\.$", "", plain).lower()


def instruction_following(examinee: Examinee, rows: Sequence[PromptRow]) -> Metrics:
    """Return the shares of prompts whose instructions are all followed, and of instructions, strict and loose; prompts
    with an instruction that is not checked are left out, and counted."""
    checked = [row for row in rows if not row.unchecked and row.instructions]
    if not checked:
        raise InputError(
            "no row of the task has instructions that are all checked", how=f"checked are {', '.join(CHECKERS)}"
        )
    texts = generate_texts(examinee, checked)
    strict = [[follows(name, answer, own) for name, own in row.instructions] for row, answer in zip(checked, texts)]
    loose = [
        [any(follows(name, variant, own) for variant in variants(answer)) for name, own in row.instructions]
        for row, answer in zip(checked, texts)
    ]
    others = {
        "prompt_loose": share([all(part) for part in loose]),
        "instruction_strict": share([value for part in strict for value in part]),
        "instruction_loose": share([value for part in loose for value in part]),
    }
    metrics = metrics_of("prompt_strict", [all(part) for part in strict], others)
    return {**metrics, "unchecked": len(rows) - len(checked), "texts": texts}


def variants(answer: str) -> list[str]:
    """Return an answer as it is, without its first line, its last line and both, each also without asterisks."""
    lines = answer.split("\n")
    parts = [answer, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*parts, *(part.replace("*", "") for part in parts)]


FORMS = (
    Form("gsm8k", ("question", "answer"), gsm8k, exact_match, lambda columns: "####" in str(columns["answer"])),
    Form("ifeval", ("prompt", "instruction_id_list", "kwargs"), ifeval, instruction_following),
)
