"""The one place where a conversation becomes ids, roles and a loss mask.

Trained are the assistant's words and the end token of its turn, nothing else, and of these not the turns whose message
is context only (`Message.trained`). The template's text and the contents are
encoded apart, so no content can become a control token; the assistant's words are always tokens of their own, so

    render(prompt + [answer]).ids == render_prompt(prompt) + render_completion(answer)

holds for every template and every text. With a chat template the conversation looks as the template says; without one
(a base model) it is a transcript, "User: ...", blank line, "Assistant: ...".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from amenable.data.types import Message, fault
from amenable.errors import InputError
from amenable.text.template import PLAIN_TEMPLATE, Slot, outline
from amenable.text.tokenizer import Tokenizer

PLAIN_STOP = ("\n\nUser:", "\n\n")
"""a base model's answer in a transcript ends before these"""


@dataclass(frozen=True)
class Rendered:
    """N tokens of a conversation."""

    ids: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    """True for the assistant's words and the end of its turn, where that turn is trained"""
    roles: list[str] = field(default_factory=list)
    """who the token belongs to: "control" (the template), "system", "user", "assistant", or "untrained assistant" """


def validate(messages: Sequence[Message]) -> None:
    """InputError for a conversation that cannot be rendered: empty, unknown role, assistant first, misplaced system."""
    wrong = fault(messages)
    if wrong is not None:
        raise InputError(wrong)


def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> Rendered:
    """A whole conversation. One that ends with the assistant ends with the end token of its turn."""
    validate(messages)
    if messages[-1].role != "assistant":
        return _fill(tokenizer, messages, asks=False)
    rendered = _fill(tokenizer, messages[:-1], asks=True)
    answer, last = render_completion(tokenizer, messages[-1].content), messages[-1]
    _extend(rendered, answer, last.trained, [_role(last)] * (len(answer) - 1) + ["control"])
    return rendered


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """A conversation up to the place where the assistant begins to speak."""
    validate(messages)
    if messages[-1].role == "assistant":
        raise InputError("a prompt ends with the assistant", how="it must end with the user")
    return _fill(tokenizer, messages, asks=True).ids


def render_completion(tokenizer: Tokenizer, text: str, ended: bool = True) -> list[int]:
    """An assistant's words as they follow a prompt, and the end of the turn if it ended."""
    ids = tokenizer.encode(_spoken(tokenizer, text))
    return [*ids, tokenizer.end_of_turn_id] if ended else ids


def render_document(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text for pretraining: bos if the tokenizer has one for texts, the text, eos."""
    return [*tokenizer.opening_ids, *tokenizer.encode(text), tokenizer.eos_id]


def answer_text(tokenizer: Tokenizer, text: str) -> str:
    """What was said, of a decoded completion. Without a chat template, what a transcript shows before the next turn."""
    if tokenizer.chat_template is not None:
        return text
    for stop in PLAIN_STOP:
        text = text.split(stop, 1)[0]
    return text.strip()


@dataclass(frozen=True)
class _Run:
    """Plain text and contents that are encoded together, as a tokenizer would that sees the whole conversation."""

    parts: tuple[str | Slot, ...]

    @property
    def slots(self) -> list[Slot]:
        return [part for part in self.parts if isinstance(part, Slot)]

    def speaker(self, messages: Sequence[Message]) -> str | None:
        """The role of the first message in the run."""
        return messages[self.slots[0].message].role if self.slots else None


def _fill(tokenizer: Tokenizer, messages: Sequence[Message], asks: bool) -> Rendered:
    """The messages in the template's places; `asks` adds the beginning of the assistant's next turn."""
    rendered = Rendered()
    turn_open = False  # the assistant has spoken words that are trained, and its turn has not been ended
    for part in _plan(tokenizer, tuple(message.role for message in messages), asks):
        if isinstance(part, int):
            _extend(rendered, [part], turn_open and part == tokenizer.end_of_turn_id, ["control"])
            turn_open = False
        elif part.speaker(messages) == "assistant":
            message = messages[part.slots[0].message]
            ids = tokenizer.encode(_spoken(tokenizer, message.content))
            _extend(rendered, ids, message.trained, [_role(message)] * len(ids))
            turn_open = message.trained
        else:
            _extend(rendered, *_encode_run(tokenizer, messages, part))
            turn_open = turn_open and not part.slots
    return rendered


@lru_cache(maxsize=1024)
def _plan(tokenizer: Tokenizer, roles: tuple[str, ...], asks: bool) -> tuple[int | _Run, ...]:
    """Control ids and runs of text. They depend on the roles alone: a template is rendered once for each sequence."""
    template = PLAIN_TEMPLATE if tokenizer.chat_template is None else tokenizer.chat_template
    plan: list[int | _Run] = []
    waiting: list[str | Slot] = []

    def close() -> None:
        if waiting:
            plan.append(_Run(tuple(waiting)))
            waiting.clear()

    for piece in outline(template, roles, tokenizer.names, asks):
        if isinstance(piece, Slot) and roles[piece.message] == "assistant":
            close()
            plan.append(_Run((piece,)))
        elif isinstance(piece, Slot):
            waiting.append(piece)
        else:
            for part in tokenizer.split_control(piece):
                if isinstance(part, int):
                    close()
                    plan.append(part)
                else:
                    waiting.append(part)
    close()
    return tuple(plan)


def _encode_run(tokenizer: Tokenizer, messages: Sequence[Message], run: _Run) -> tuple[list[int], bool, list[str]]:
    """Ids of a run, and whose they are: a token belongs to the one who wrote its first character. None is trained."""
    texts = [part if isinstance(part, str) else part.fill(messages[part.message].content) for part in run.parts]
    writers = ["control" if isinstance(part, str) else messages[part.message].role for part in run.parts]
    if len(texts) == 1:
        ids = tokenizer.encode(texts[0])
        return ids, False, writers * len(ids)
    by_character = [writer for text, writer in zip(texts, writers) for _ in text]
    ids, starts = tokenizer.encode_with_starts("".join(texts))
    return ids, False, [by_character[start] for start in starts]


def _role(message: Message) -> str:
    return "assistant" if message.trained else "untrained assistant"


def _spoken(tokenizer: Tokenizer, text: str) -> str:
    # in a transcript the space after "Assistant:" belongs to the first word, as it does in all text a model has read
    return " " + text if tokenizer.chat_template is None else text


def _extend(rendered: Rendered, ids: list[int], trained: bool, roles: list[str]) -> None:
    rendered.ids.extend(ids)
    rendered.trained.extend([trained] * len(ids))
    rendered.roles.extend(roles)
