"""Context distillation: completions after a prompt with and without a context, and the KL that makes them alike.

    L = mean over tokens of  KL(p_0(. | C, x, y_<t) || p_theta(. | x, y_<t))

The teacher p_0 reads the context C before the prompt x, the student does not. The sum over the vocabulary is exact, or
over the teacher's top tokens and the rest as one event (`functional/kl.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from amenable.data import sources
from amenable.data.batches import Batch
from amenable.data.types import INSTRUCTING, Conversation, Demonstration, Message, Prompt
from amenable.errors import InputError
from amenable.functional.kl import linear_kl
from amenable.models.decoder import Decoder
from amenable.models.sharding import whole
from amenable.text.chat import render_completion, render_prompt
from amenable.text.tokenizer import Tokenizer
from amenable.train.examples import RejectedRows, keep_fitting, keep_shown, keep_usable, to_row
from amenable.train.forward import Row, masked_hidden, ordered_batches
from amenable.train.objective import Output, Stats
from amenable.train.runtime import Runtime

E = TypeVar("E", Prompt, Demonstration)
HHH = Path(__file__).parent / "hhh.jsonl"
"""context of a helpful, honest and harmless assistant: instructions and a few exchanges"""


@dataclass(frozen=True)
class DistilledRow:
    """A completion after a prompt as the student reads it, and as the teacher does."""

    prompt: list[int]
    teacher_prompt: list[int]
    """the prompt after the context"""
    completion: list[int] = field(default_factory=list)
    ended: bool = True
    """False for a completion that was cut by the length limit"""

    @property
    def row(self) -> Row:
        """The student's row."""
        return to_row(self.prompt, self.completion)

    @property
    def tokens(self) -> int:
        """Tokens of the student's row."""
        return len(self.prompt) + len(self.completion)

    @property
    def teacher_row(self) -> Row:
        """The teacher's row, with the same tokens in the loss mask."""
        return to_row(self.teacher_prompt, self.completion)


def read_context(file: Path, text: str = "", rejected: RejectedRows | None = None) -> Conversation:
    """Return the messages before every prompt: a text, or that of a file, as the system's; or the conversations of a
    .json or .jsonl file, one after another. InputError for an empty one."""
    if text or file.suffix not in (".json", ".jsonl"):
        try:
            words = (text or file.read_text("utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the context cannot be read: {error}", file, "name a text file in UTF-8") from None
        if not words:
            raise InputError("the context is empty", file, "give a file with text, or --context-text")
        return (Message("system", words),)
    conversations = keep_usable(sources.read_demonstrations(file), rejected)
    messages = tuple(message for each in conversations for message in each.messages)
    if any(message.role in INSTRUCTING for message in messages[1:]):
        raise InputError("a system message after the first message", file, "give one, at the beginning")
    return tuple(replace(message, trained=False) for message in messages)


def with_context(context: Conversation, messages: Conversation) -> Conversation:
    """Return a conversation after a context. Of two system messages the conversation's follows the context's, after a
    blank line; schemas of tools stay in the first message."""
    first, rest = messages[0], messages[1:]
    tools = first.tools
    if first.role not in INSTRUCTING:
        joined = (*context, replace(first, tools=""), *rest)
    elif context[0].role not in INSTRUCTING:
        joined = (first, *context, *rest)
    else:
        joined = (replace(first, content=f"{context[0].content}\n\n{first.content}"), *context[1:], *rest)
    return (replace(joined[0], tools=tools), *joined[1:])


def context_length(tokenizer: Tokenizer, context: Conversation) -> int:
    """Return the number of tokens of a context's messages, without those of the chat template."""
    return sum(len(tokenizer.encode(message.content)) for message in context)


def tokenize(
    split: str,
    examples: Sequence[E],
    tokenizer: Tokenizer,
    context: Conversation,
    room: int,
    rejected: RejectedRows | None = None,
    required: Path | None = None,
) -> tuple[list[E], list[DistilledRow]]:
    """Return the prompts whose teacher's row has at most `room` tokens, and their rows, without completions; of
    demonstrations the last turn is the completion. Errors are those of `keep_fitting`."""

    def rendering(example: E) -> DistilledRow:
        answered = isinstance(example, Demonstration)
        messages = example.messages[:-1] if answered else example.messages
        ids = render_completion(tokenizer, example.messages[-1].content) if answered else []
        return DistilledRow(
            render_prompt(tokenizer, messages), render_prompt(tokenizer, with_context(context, messages)), ids
        )

    examples, rows = keep_shown(examples, rendering, rejected)
    fitting = [row if len(row.teacher_row[0]) <= room else None for row in rows]
    return keep_fitting(split, examples, fitting, "prompts", room, rejected, required)


class Distillation:
    """Mean KL of the student from the teacher with its context, over the tokens of completions."""

    share_prefixes = False
    couples_elements = False
    output: Output = "states"

    def __init__(self, student: Decoder, teacher: Decoder, runtime: Runtime, max_tokens: int, top_k: int = 0):
        self.student, self.teacher, self.runtime = student, teacher, runtime
        self.max_tokens, self.top_k = max_tokens, top_k

    def rows(self, element: DistilledRow) -> list[Row]:
        return [element.row]

    def weight(self, element: DistilledRow) -> float:
        return float(len(element.completion))

    def outputs(self, batch: Batch) -> Tensor:
        return masked_hidden(self.student, batch)

    def loss(self, elements: Sequence[DistilledRow], states: Tensor) -> tuple[Tensor, Stats]:
        """Return loss and statistics; states [M, D]: the student's before each of the elements' M trained tokens.

        The teacher reads the same tokens after its context, which the rows of a pass have once.
        """
        rows, teacher = [element.teacher_row for element in elements], whole(self.teacher)
        with torch.no_grad(), self.runtime.autocast():
            batches = ordered_batches(rows, self.runtime, self.max_tokens)
            theirs = torch.cat([masked_hidden(teacher, batch) for _, batch in batches])
        weight = teacher.unembedding.detach()
        loss = linear_kl(theirs, weight, states, self.student.unembedding, top_k=self.top_k).mean()
        return loss, {"loss": loss.detach()}
