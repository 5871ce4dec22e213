"""Rendering of a conversation as token ids, roles and a loss mask, by the tokenizer's chat template.

The loss mask is True for the assistant's words and the end token of each turn, except turns that are context only
(`Message.trained`). Text and contents on either side of a special token are encoded separately, so no content can
become a special token; the assistant's words are always tokens of their own, so

    render(prompt + [completion]).ids == render_prompt(prompt, completion) + render_completion(completion)

holds for every template and every text. Without a chat template (a base model) the conversation is a transcript,
"User: ...", blank line, "Assistant: ...".

The prompt ends where the template lets a model begin to generate. Text that the template writes between there and the
assistant's words, or between these and the end of the turn (Llama 2: a space each), has to be generated too, so it
belongs to the completion and is trained. An empty thinking block that a template writes before the assistant's words is
left out where the completion brings its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from amenable.data.types import Message, conversation_error
from amenable.errors import InputError
from amenable.text.spec import After
from amenable.text.template import (
    PLAIN_TEMPLATE,
    THINKING_BLOCK,
    Slot,
    strip_thinking_block,
    template_with_slots,
    thinking_tags,
)
from amenable.text.tokenizer import Tokenizer

PLAIN_STOP = ("\n\nUser:", "\n\n")
"""strings that end a base model's completion of a transcript"""


@dataclass(frozen=True)
class Rendered:
    """N tokens of a conversation."""

    ids: list[int] = field(default_factory=list)
    loss_mask: list[bool] = field(default_factory=list)
    """True for the assistant's words and the end of the turn, where that turn is trained"""
    roles: list[str] = field(default_factory=list)
    """writer of each token: "template", "system", "user", "assistant", or "untrained assistant" """


def validate(messages: Sequence[Message]) -> None:
    """Raise InputError for no messages, an unknown role, a misplaced system, or the assistant first."""
    if (error := conversation_error(messages)) is not None:
        raise InputError(error)


def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> Rendered:
    """Render a whole conversation; after a last message of the assistant comes the end token of the turn."""
    validate(messages)
    if messages[-1].role != "assistant":
        return _render_turns(tokenizer, messages, add_generation_prompt=False)
    last = messages[-1]
    rendered = _render_turns(tokenizer, messages[:-1], add_generation_prompt=True, completion=last.content)
    completion = render_completion(tokenizer, last.content)
    _extend(rendered, completion, last.trained, [_role(last)] * (len(completion) - 1) + ["template"])
    return rendered


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message], completion: str | None = None) -> list[int]:
    """Return the ids of a conversation up to the point where the assistant begins to generate.

    completion: the text that follows, if known. Only a template that writes thinking blocks depends on it.
    """
    validate(messages)
    if messages[-1].role == "assistant":
        raise InputError("a prompt ends with the assistant", how="it must end with the user")
    return _render_turns(tokenizer, messages, add_generation_prompt=True, completion=completion).ids


def render_prompts(tokenizer: Tokenizer, messages: Sequence[Message], completions: Sequence[str]) -> list[list[int]]:
    """Return the prompt ids before each completion; the ids differ only where the thinking tags do."""
    tags = [thinking_tags(_template(tokenizer), completion) for completion in completions]
    ids = {tag: render_prompt(tokenizer, messages, text) for tag, text in dict(zip(tags, completions)).items()}
    return [ids[tag] for tag in tags]


def render_completion(tokenizer: Tokenizer, text: str, ended: bool = True) -> list[int]:
    """Return the ids of the assistant's text as it follows a prompt, with the end token of the turn if `ended`."""
    frame, template = _frame(tokenizer), _template(tokenizer)
    # a thinking block that the completion opens or closes itself is not closed before it
    lead = "" if thinking_tags(template, text) and thinking_tags(template, frame.lead) else frame.lead
    ids = tokenizer.encode(lead + text + frame.trail * ended, frame.after)
    return [*ids, tokenizer.end_of_turn_id] if ended else ids


def render_document(tokenizer: Tokenizer, text: str) -> list[int]:
    """Return the ids of a pretraining text: bos if the tokenizer puts one before plain text, the text, eos."""
    return [*tokenizer.opening_ids, *tokenizer.encode(text), tokenizer.eos_id]


def decode_completion(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return the text of completion ids; `render_completion` turns the text into the same ids again."""
    return _strip_frame(tokenizer, tokenizer.decode(ids), ended=bool(ids) and ids[-1] in tokenizer.stop_ids)


def clean_completion(tokenizer: Tokenizer, text: str) -> str:
    """Return the assistant's words in a decoded completion; without a chat template, those before the next turn."""
    if tokenizer.chat_template is not None:
        return _strip_frame(tokenizer, text)
    for stop in PLAIN_STOP:
        text = text.split(stop, 1)[0]
    return text.strip()


@dataclass(frozen=True)
class _Frame:
    """Text around the assistant's words that the assistant generates."""

    lead: str = ""
    """text between the end of the prompt and the words"""
    trail: str = ""
    """text between the words and the token that ends the turn"""
    after: After = "special"
    """kind of text at the end of the prompt"""
    omits_header: bool = False
    """True if the template's generation prompt has no assistant header: then our prompt ends where the words begin"""
    thinking: bool = False
    """True if the generation prompt opens a thinking block that is missing before a completion without one"""


@dataclass(frozen=True)
class _TextSpan:
    """Plain text and contents that are encoded together, as a tokenizer does that reads the whole conversation."""

    parts: tuple[str | Slot, ...]
    strip_left: bool = False
    strip_right: bool = False
    """True where the special token on that side takes the white space next to it"""

    @property
    def slots(self) -> list[Slot]:
        return [part for part in self.parts if isinstance(part, Slot)]

    def role(self, messages: Sequence[Message]) -> str | None:
        """Return the role of the first message in the span."""
        return messages[self.slots[0].message].role if self.slots else None


def _render_turns(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool, completion: str | None = None
) -> Rendered:
    """Render messages by the template, and with `add_generation_prompt` the beginning of the turn of `completion`."""
    rendered = Rendered()
    after: After = "nothing"
    turn_open = False  # trained words of the assistant whose turn has not ended yet
    template = _template(tokenizer)
    tags = tuple(thinking_tags(template, m.content) if m.role == "assistant" else "" for m in messages)
    completion_tags = None if completion is None else thinking_tags(template, completion)
    roles = tuple(message.role for message in messages)
    for part in _plan(tokenizer, roles, add_generation_prompt, tags, completion_tags):
        if isinstance(part, int):
            _extend(rendered, [part], turn_open and part == tokenizer.end_of_turn_id, ["template"])
            turn_open = False
        elif part.role(messages) == "assistant":
            message = messages[part.slots[0].message]
            words = "".join(text if isinstance(text, str) else message.content for text in part.parts)
            ids = tokenizer.encode(words, after)
            _extend(rendered, ids, message.trained, [_role(message)] * len(ids))
            turn_open = message.trained
        else:
            ids, roles_of_ids = _encode_span(tokenizer, messages, part, after)
            _extend(rendered, ids, False, roles_of_ids)
            turn_open = turn_open and not part.slots
        after = "special" if isinstance(part, int) else "text"
    return rendered


@lru_cache(maxsize=1024)
def _plan(
    tokenizer: Tokenizer,
    roles: tuple[str, ...],
    add_generation_prompt: bool,
    tags: tuple[str, ...],
    completion_tags: str | None,
) -> tuple[int | _TextSpan, ...]:
    """Return the special ids and text spans of a conversation. They depend on the roles and the thinking tags alone, so
    a template is rendered once for each combination of these."""
    frame, template, special = _frame(tokenizer), _template(tokenizer), tokenizer.special_tokens_map
    if add_generation_prompt and (frame.omits_header or (frame.thinking and completion_tags == "")):
        pieces = template_with_slots(template, (*roles, "assistant"), special, add_generation_prompt=False)
        pieces = pieces[: pieces.index(Slot(len(roles)))]
    else:
        pieces = template_with_slots(template, roles, special, add_generation_prompt)
    if completion_tags and isinstance(pieces[-1], str):
        pieces[-1] = strip_thinking_block(pieces[-1], completion_tags)
    plan: list[int | _TextSpan] = []
    waiting: list[str | Slot] = []

    def close(strip_right: bool = False) -> None:
        if waiting:
            strip_left = bool(plan) and isinstance(plan[-1], int) and tokenizer.strips_whitespace(plan[-1])[1]
            plan.append(_TextSpan(tuple(waiting), strip_left, strip_right))
            waiting.clear()

    for piece in _split_assistant_spans(pieces, roles, frame, tags):
        if isinstance(piece, _TextSpan):
            close()
            plan.append(piece)
        elif isinstance(piece, Slot):
            waiting.append(piece)
        else:
            for part in tokenizer.split_special_tokens(piece):
                if isinstance(part, int):
                    close(tokenizer.strips_whitespace(part)[0])
                    plan.append(part)
                else:
                    waiting.append(part)
    close()
    return tuple(plan)


def _split_assistant_spans(
    pieces: Sequence[str | Slot], roles: Sequence[str], frame: _Frame, tags: Sequence[str]
) -> list[str | Slot | _TextSpan]:
    """Return a template's pieces with each slot of the assistant as a span that includes the frame's lead and trail."""
    parts: list[str | Slot | _TextSpan] = []
    for piece in pieces:
        before = parts[-1] if parts else None
        if isinstance(piece, Slot) and roles[piece.message] == "assistant":
            lead = ""
            if isinstance(before, str):
                before = strip_thinking_block(before, tags[piece.message])
                lead = frame.lead if frame.lead.isspace() and before.endswith(frame.lead) else ""
                parts[-1] = before.removesuffix(lead)
            parts.append(_TextSpan((lead, piece)))
        elif isinstance(piece, str) and isinstance(before, _TextSpan) and piece.startswith(frame.trail):
            parts[-1] = replace(before, parts=(*before.parts, frame.trail))
            parts.append(piece.removeprefix(frame.trail))
        else:
            parts.append(piece)
    return parts


@lru_cache(maxsize=64)
def _frame(tokenizer: Tokenizer) -> _Frame:
    """Return the text that the template writes around the assistant's words and not in a generation prompt."""
    template, special = _template(tokenizer), tokenizer.special_tokens_map
    try:
        prompt = template_with_slots(template, ("user",), special, add_generation_prompt=True)
        whole = template_with_slots(template, ("user", "assistant"), special, add_generation_prompt=False)
    except InputError:  # raised again when such a conversation is rendered
        return _Frame()
    slot = whole.index(Slot(1))
    opening, before, rest = (
        _text(pieces) for pieces in (prompt[-1:], whole[max(slot - 1, 0) : slot], whole[slot + 1 :])
    )
    lead = before.removeprefix(opening) if before.startswith(opening) else ""
    trail = rest.partition(tokenizer.end_of_turn)[0] if tokenizer.end_of_turn in rest else ""
    omits_header = bool(lead.strip()) and not thinking_tags(template, lead)
    block = THINKING_BLOCK.search(opening)
    end = tokenizer.split_special_tokens(before if omits_header else opening)[-1:]
    return _Frame(
        lead="" if omits_header else lead,
        trail="" if any(isinstance(part, int) for part in tokenizer.split_special_tokens(trail)) else trail,
        after="special" if end and isinstance(end[0], int) else "text",
        omits_header=omits_header,
        thinking=block is not None and block[2] is None and not before.startswith(opening),
    )


def _text(pieces: Sequence[str | Slot]) -> str:
    """Return the text that the pieces begin with, "" for a slot or nothing."""
    return pieces[0] if pieces and isinstance(pieces[0], str) else ""


def _strip_frame(tokenizer: Tokenizer, text: str, ended: bool = True) -> str:
    """Return a decoded completion without the white space that the template puts around the assistant's words."""
    lead, trail = _frame(tokenizer).lead, _frame(tokenizer).trail
    text = text.removeprefix(lead) if lead.isspace() else text
    return text.removesuffix(trail) if ended and trail.isspace() else text


def _template(tokenizer: Tokenizer) -> str:
    return PLAIN_TEMPLATE if tokenizer.chat_template is None else tokenizer.chat_template


def _encode_span(
    tokenizer: Tokenizer, messages: Sequence[Message], span: _TextSpan, after: After
) -> tuple[list[int], list[str]]:
    """Return the ids of a span and each token's role: that of the writer of the token's first character."""
    texts = [part if isinstance(part, str) else part.fill(messages[part.message].content) for part in span.parts]
    roles = ["template" if isinstance(part, str) else messages[part.message].role for part in span.parts]
    by_character = [role for text, role in zip(texts, roles) for _ in text]
    text = "".join(texts)
    if span.strip_left:
        by_character = by_character[len(text) - len(text.lstrip()) :]
        text = text.lstrip()
    text = text.rstrip() if span.strip_right else text
    if len(texts) == 1:
        ids = tokenizer.encode(text, after)
        return ids, roles * len(ids)
    ids, starts = tokenizer.encode_with_starts(text, after)
    return ids, [by_character[start] for start in starts]


def _role(message: Message) -> str:
    return "assistant" if message.trained else "untrained assistant"


def _extend(rendered: Rendered, ids: list[int], trained: bool, roles: list[str]) -> None:
    rendered.ids.extend(ids)
    rendered.loss_mask.extend([trained] * len(ids))
    rendered.roles.extend(roles)
