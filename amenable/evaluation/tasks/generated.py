"""Tests of generated answers: GSM8K by exact match, IFEval by checked instructions. Decoding is greedy.

GSM8K (Cobbe et al., 2021) is asked as plain text, with worked examples as shots (chain of thought; Wei et al., 2022).
`strict` takes the number after ####, `flexible` the last number of the text, as lm-evaluation-harness does. `maj@n`
takes the number that most of n sampled answers have (self-consistency; Wang et al., 2023). IFEval's prompts are a chat
model's user turns. Its `loose` accuracy forgives asterisks, and a first and last line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from amenable.data.types import Conversation, Message
from amenable.errors import InputError
from amenable.evaluation.answering import encode_prompt
from amenable.evaluation.prompting import add_prefix
from amenable.evaluation.tasks.form import Columns, Examinee, Form, Metrics, metrics_of, share, text
from amenable.evaluation.tasks.instructions import CHECKERS, follows
from amenable.evaluation.tasks.likelihood import SHOT_END
from amenable.generation.sampling import Sampling
from amenable.seeds import derive_seed
from amenable.text.chat import PLAIN_STOP, clean_completion, render_prompt

STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
INVALID = "[invalid]"
"""in place of a number, where an answer has none"""
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
    """True for a user's turn, which a chat model always gets in its format"""
    turns: tuple[str, ...] = ()
    """the user's further turns, each after an answer"""
    references: tuple[str, ...] = ()
    """answers that a judge may compare with, of each turn"""
    group: str = ""
    """part of the test, such as a category"""
    instructions: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """names and arguments of what the answer is checked for"""
    unchecked: int = 0
    """instructions that no checker knows"""
    description: str = ""
    """before the examples"""
    shots: tuple[PromptRow, ...] = ()
    """examples before the prompt"""
    fields: dict[str, Any] = field(default_factory=dict, compare=False)
    """further columns that a metric reads"""

    @property
    def label(self) -> str:
        """Class of the row: its answer."""
        return self.answer

    @property
    def example(self) -> str:
        """The row as a shot: prompt and right answer."""
        return f"{self.context} {self.answer}"

    @property
    def whole(self) -> str:
        """The whole prompt as plain text."""
        return self.description + "".join(shot.example + SHOT_END for shot in self.shots) + self.context

    @property
    def messages(self) -> Conversation:
        """The whole prompt as a conversation: each example is a turn of the user and one of the assistant."""
        pairs = [(Message("user", shot.context), Message("assistant", shot.answer)) for shot in self.shots]
        turns = (*(message for pair in pairs for message in pair), Message("user", self.context))
        return add_prefix(turns, self.description.strip())

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
    """Return the greedy answer to each prompt, cut before a stop. A long prompt loses its beginning, BOS too."""
    return [group[0] for group in decode(examinee, rows, 0.0)]


def decode(examinee: Examinee, rows: Sequence[PromptRow], temperature: float, samples: int = 1) -> list[list[str]]:
    """Return answers to each prompt, cut before a stop; the random numbers of a row are a function of its prompt."""
    model = examinee.model
    words = model.tokenizer
    prompts = [
        render_prompt(words, row.messages)
        if model.is_chat_model and (row.is_turn or examinee.options.chat_template)
        else [*words.added_ids, *words.encode(row.whole)]
        for row in rows
    ]
    stop = tuple(dict.fromkeys(mark for row in rows for mark in row.stop))
    return decode_prompts(examinee, prompts, [row.context for row in rows], stop, temperature, samples)


def decode_prompts(
    examinee: Examinee,
    prompts: Sequence[list[int]],
    names: Sequence[object],
    stop: tuple[str, ...],
    temperature: float,
    samples: int = 1,
) -> list[list[str]]:
    """Return answers to each prompt of ids, cut before a stop. A prompt that is too long loses its beginning.

    names: of the prompts; the random numbers of an answer are a function of the seed and its prompt's name.
    """
    model, generation = examinee.model, examinee.generation
    room = model.decoder.config.context_length - generation.max_new_tokens
    groups = model.complete(
        [ids[-room:] for ids in prompts],
        Sampling(temperature=temperature, max_new_tokens=generation.max_new_tokens),
        seeds=[derive_seed(generation.seed, "task", name) for name in names],
        samples=samples,
        stop=stop,
        max_batch_size=generation.max_batch_size,
        progress=examinee.progress,
    )
    return [[clean_completion(model.tokenizer, each.text or "") for each in group] for group in groups]


def reply(examinee: Examinee, conversations: Sequence[Conversation], samples: int = 0) -> list[list[str]]:
    """Return the greedy answer to each conversation, or `samples` answers at the temperature of the evaluation, by chat
    template or as a transcript; a conversation that is too long loses its beginning."""
    model, generation = examinee.model, examinee.generation
    transcript = generation.transcript_for(model)
    prompts = [encode_prompt(model.tokenizer, messages, transcript) for messages in conversations]
    stop = PLAIN_STOP if transcript is None else (transcript.end,)
    temperature = generation.temperature if samples else 0.0
    names = range(len(prompts))
    groups = decode_prompts(examinee, prompts, names, () if model.is_chat_model else stop, temperature, max(samples, 1))
    return groups if transcript is None else [[transcript.answer(text) for text in group] for group in groups]


def exact_match(examinee: Examinee, rows: Sequence[PromptRow]) -> Metrics:
    """Return the share of answers whose number is the right one, by both extractions; with self-consistency also that
    of the numbers that most of the sampled answers have."""
    texts, count = generate_texts(examinee, rows), examinee.options.self_consistency
    golds = [plain_number(row.answer) for row in rows]
    hits = {name: [read(answer) == gold for answer, gold in zip(texts, golds)] for name, read in EXTRACTIONS.items()}
    if not count:
        return {**metrics_of("strict", hits["strict"], {"flexible": share(hits["flexible"])}), "texts": texts}
    sampled = decode(examinee, rows, examinee.generation.temperature, count)
    for name, read in EXTRACTIONS.items():
        numbers = [majority([read(answer) for answer in group]) for group in sampled]
        hits[f"{name} maj@{count}"] = [number == gold for number, gold in zip(numbers, golds)]
    others = {name: share(own) for name, own in hits.items() if name != "strict"}
    return {**metrics_of("strict", hits["strict"], others), "texts": texts, "sampled": sampled}


def majority(numbers: Sequence[str]) -> str:
    """Return the number that most answers have, of several the one that comes first; an answer without a number has no
    vote.

    >>> majority(["[invalid]", "3", "4", "4", "3", "[invalid]", "[invalid]"])
    '3'
    """
    votes = Counter(number for number in numbers if number != INVALID)
    return votes.most_common(1)[0][0] if votes else INVALID


def strict_answer(answer: str) -> str:
    """Return the first number after ####; a text that is no number where there is none."""
    match = STRICT.search(answer)
    return match[1].strip() if match else INVALID


def flexible_answer(answer: str) -> str:
    """Return the last number of a text; a text that is no number where there is none."""
    matches = FLEXIBLE.findall(answer)
    return next((part.strip() for part in matches[-1] if part), INVALID) if matches else INVALID


def plain_number(answer: str) -> str:
    """Return an answer without commas, $, all before ####, and a full stop at the end, in lower case."""
    plain = re.sub(r"(?s).*#### ", "", answer.replace(",", "").replace("$", ""))
    return re.sub(r"\.$", "", plain).lower()


EXTRACTIONS: dict[str, Callable[[str], str]] = {
    "strict": lambda answer: plain_number(strict_answer(answer)),
    "flexible": lambda answer: plain_number(flexible_answer(answer)),
}
"""answer -> its number"""


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
    Form(
        "gsm8k",
        ("question", "answer"),
        gsm8k,
        exact_match,
        lambda columns: "####" in str(columns["answer"]),
        True,
        frozenset({"self_consistency", "chat_template"}),
    ),
    Form("ifeval", ("prompt", "instruction_id_list", "kwargs"), ifeval, instruction_following, generates=True),
)
