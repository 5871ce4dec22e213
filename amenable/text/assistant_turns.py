"""Turns of the assistant in a rendered conversation: the characters that a model generates in each.

A turn begins where the template lets a model begin to generate, and ends with the token that ends the turn. Tool calls
and thinking blocks are inside. Where a template has {% generation %} marks, these decide. A turn that cannot be located
exactly, and a message that the template does not show once and in full, are an InputError.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.text.template import THINKING_TAG, Form, strip_thinking_block, template_message, thinking_tags
from amenable.text.traced import Piece, Source, Traced, join

REQUIRED = ("content", "reasoning", "call", "arguments")
"""fields, by their first word, that a template must show"""
TAG = re.compile(r"</?(think|thinking|thought|reasoning)>")
CLOSING_TAG = re.compile(r"</(think|thinking|thought|reasoning)>")
MARKS = "add {% generation %} and {% endgeneration %} to the template around what the assistant generates"


@dataclass(frozen=True)
class AssistantTurn:
    """Characters `start` to `stop` of a rendered conversation, which the assistant generates."""

    message: int
    start: int
    stop: int
    ended: bool
    """True if the last of them are the token that ends the turn"""
    marked: bool = True
    """False for a turn that a template with marks leaves out of them"""
    hides_thinking: bool = False
    """True where the template leaves out thinking: the turn is shown otherwise than it was generated"""

    @property
    def trained(self) -> bool:
        return self.marked and not self.hides_thinking


@dataclass(frozen=True)
class Boundaries:
    """Texts of a template between which the assistant generates."""

    headers: tuple[str, ...]
    """ends of generation prompts, the longest first; none if the template writes none"""
    ends: tuple[str, ...]
    """tokens that end a turn"""
    marks: bool
    """True for a template with {% generation %} marks"""


def assistant_turns(
    text: Traced,
    messages: Sequence[Message],
    boundaries: Boundaries,
    hidden: Mapping[int, str],
    prompt: Callable[[int], Traced],
) -> list[AssistantTurn]:
    """Return the assistant's turns in a rendered conversation, from the first to the last.

    hidden: thinking that the template leaves out, by message (`hidden_thinking`); its turn is not trained.
    prompt: returns the generation prompt before a message, for templates without headers.
    """
    whole, pieces = str.__str__(text), text.pieces()
    shown = list(first_shown(pieces))
    turns = []
    for i, message in enumerate(messages):
        if message.role != "assistant":
            continue
        before, first, last, after = extent(pieces, shown, i, len(whole))
        end = end_of_turn(whole[last:after], boundaries.ends)
        stop = last if end is None else last + end
        is_marked = True
        if boundaries.marks:
            marked = [p for p in pieces if p.run.generated and before <= p.position < after and p.text]
            marked = marked or [p for p in pieces if p.run.generated and p.position == first]
            is_marked = bool(marked)
            start = marked[0].position if marked else first
            ended = end is not None and bool(marked) and stop <= marked[-1].end
            stop = stop if ended or not marked else marked[-1].end
        else:
            ended = end is not None
            start = before + lead_start(whole[before:first], boundaries.headers, prompt, i)
            if message.tool_calls and not ended:
                raise InputError(f"the chat template does not end message {i + 1}, which has tool calls")
        turns.append(AssistantTurn(i, start, stop, ended, is_marked, i in hidden))
    return turns


def extent(pieces: Sequence[Piece], shown: Sequence[Piece], message: int, length: int) -> tuple[int, int, int, int]:
    """Return four positions: the end of what other messages show before a message, its first and last own characters,
    and the beginning of what others show after it. shown: the pieces as `first_shown` yields them."""
    own = [piece for piece in shown if piece.run.source and piece.run.source.message == message]
    if not own:
        raise InputError(f"the chat template does not show message {message + 1}")
    first, last = own[0].position, own[-1].end
    others = [piece for piece in pieces if piece.run.source is not None and piece.run.source.message != message]
    if any(first < piece.position < last for piece in others):
        raise InputError(f"the chat template mixes message {message + 1} with others", how=MARKS)
    before = max((piece.end for piece in others if piece.end <= first), default=0)
    return before, first, last, min((p.position for p in others if p.position >= last), default=length)


def first_shown(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield the pieces whose characters no earlier piece has shown: some templates repeat a tool's name later."""
    shown = set[tuple[Source | None, int, int]]()
    for piece in pieces:
        key = (piece.run.source, piece.run.start, piece.run.stop)
        if key not in shown:
            yield piece
        shown.add(key)


def lead_start(text: str, headers: Sequence[str], prompt: Callable[[int], Traced], message: int) -> int:
    """Return the index in a template's text before a message from which on the assistant generates."""
    header = next((header for header in headers if header in text), None)
    if header is not None:
        return text.rindex(header) + len(header)
    if not headers:
        last = prompt(message).pieces()[-1]
        begun = last.text if last.run.source is None else ""
        if text.startswith(begun):
            return len(begun)
    raise InputError(
        f"message {message + 1} can't be masked exactly: the chat template writes {text!r} before the assistant's "
        "words, and no prompt for them ends in this way",
        how=MARKS,
    )


def end_of_turn(text: str, ends: Sequence[str]) -> int | None:
    """Return the index after the first token in a text that ends a turn, None without one."""
    positions = [(text.index(end), len(end)) for end in ends if end in text]
    return sum(min(positions)) if positions else None


def hidden_thinking(text: Traced, messages: Sequence[Message], form: Form) -> dict[int, str]:
    """Return the thinking of the assistant that a template leaves out, by message.

    InputError for anything else that is left out, and for a content that is shown twice.
    """
    ranges = defaultdict[Source, list[tuple[int, int]]](list)
    for piece in text.pieces():
        if piece.run.source is not None:
            ranges[piece.run.source].append((piece.run.start, piece.run.stop))
    hidden: dict[int, str] = {}
    for i, message in enumerate(messages):
        for source, string in sources(message, i, form):
            shown = sorted(ranges[source])
            if source.field == "content" and any(b[0] < a[1] for a, b in itertools.pairwise(shown)):
                raise InputError(f"the chat template shows message {i + 1} ({message.role}) twice")
            thinking = thinking_end(string, source.field) if message.role == "assistant" else 0
            for start, stop in gaps(shown, len(string)):
                lost, thought = string[max(start, thinking) : stop].strip(), string[start : min(stop, thinking)]
                if lost:
                    excerpt = lost if len(lost) <= 40 else lost[:40] + " ..."
                    part = "a part" if source.field == "content" else "a tool call"
                    raise InputError(
                        f"the chat template leaves out {part} of message {i + 1} ({message.role}): {excerpt!r}",
                        how="drop it from the data, or use a model whose template shows it",
                    )
                if TAG.sub("", thought).strip():
                    hidden[i] = hidden.get(i, "") + thought
    return hidden


def without_second_blocks(text: Traced, messages: Sequence[Message], template: str) -> Traced:
    """Return the text without thinking blocks that a template writes before contents that begin with their own."""
    if THINKING_TAG.search(template) is None:
        return text
    parts: list[str] = []
    own = False  # the part before is the template's
    for piece in text.pieces():
        source = piece.run.source
        if own and source is not None and source.field == "content" and messages[source.message].role == "assistant":
            length = len(strip_thinking_block(parts[-1], thinking_tags(template, piece.text)))
            parts[-1] = parts[-1][:length]
        parts.append(text.part(piece.position, piece.end))
        own = source is None
    whole = join(parts)
    return whole if isinstance(whole, Traced) else Traced(whole)


def sources(message: Message, index: int, form: Form) -> Iterator[tuple[Source, str]]:
    """Yield the texts of a message that a template must show, with their sources."""
    if not (message.reasoning or message.tool_calls):
        if message.content:
            yield Source(index, "content"), message.content
        return
    values: list[Any] = [template_message(message, index, form=form)]
    while values:
        value = values.pop()
        if isinstance(value, Traced):
            for run in value._runs:
                if run.source is not None and run.source.field.split(" ")[0] in REQUIRED:
                    yield run.source, str.__str__(value)
        elif isinstance(value, dict):
            values += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            values += value


def thinking_end(text: str, field: str) -> int:
    """Return the number of characters of an assistant's text that are thinking, with its closing tag."""
    if field == "reasoning":
        return len(text)
    return max((tag.end() for tag in CLOSING_TAG.finditer(text)), default=0) if field == "content" else 0


def gaps(ranges: Sequence[tuple[int, int]], length: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of 0 to `length` that are not in sorted ranges."""
    position = 0
    for start, stop in ranges:
        if start > position:
            yield position, start
        position = max(position, stop)
    if position < length:
        yield position, length
