"""The one place where a conversation becomes ids, roles and a loss mask.

Trained are the assistant's words and the end token of its turn, nothing else, and of these not the turns whose message
is context only (`Message.trained`). The template's text and the contents are encoded apart where a control token stands
between them, so no content can become one; the assistant's words are always tokens of their own, so

    render(prompt + [answer]).ids == render_prompt(prompt, answer) + render_completion(answer)

holds for every template and every text. With a chat template the conversation looks as the template says; without one
(a base model) it is a transcript, "User: ...", blank line, "Assistant: ...".

The prompt ends where the template lets a model begin to speak. What the template writes between there and the
assistant's words, and from these to the end of the turn (Llama 2: a space each), a model has to say itself, so it
belongs to its words and is trained. An empty block of thought that a template writes before an answer is left out where
the answer brings its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from amenable.data.types import Message, conversation_error
from amenable.errors import InputError
from amenable.text.spec import After
from amenable.text.template import PLAIN_TEMPLATE, THOUGHT, Slot, outline, thoughts_of, without_thought
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
    wrong = conversation_error(messages)
    if wrong is not None:
        raise InputError(wrong)


def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> Rendered:
    """A whole conversation. One that ends with the assistant ends with the end token of its turn."""
    validate(messages)
    if messages[-1].role != "assistant":
        return _fill(tokenizer, messages, asks=False)
    last = messages[-1]
    rendered = _fill(tokenizer, messages[:-1], asks=True, answer=last.content)
    answer = render_completion(tokenizer, last.content)
    _extend(rendered, answer, last.trained, [_role(last)] * (len(answer) - 1) + ["control"])
    return rendered


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message], answer: str | None = None) -> list[int]:
    """A conversation up to the place where the assistant begins to speak.

    answer: the words that follow, where they are known. Only a template that writes a block of thought depends on them.
    """
    validate(messages)
    if messages[-1].role == "assistant":
        raise InputError("a prompt ends with the assistant", how="it must end with the user")
    return _fill(tokenizer, messages, asks=True, answer=answer).ids


def render_prompts(tokenizer: Tokenizer, messages: Sequence[Message], answers: Sequence[str]) -> list[list[int]]:
    """The prompt as it stands before each of several answers: mostly the same."""
    thoughts = [thoughts_of(_template(tokenizer), answer) for answer in answers]
    made = dict(zip(thoughts, answers))
    ids = {thought: render_prompt(tokenizer, messages, answer) for thought, answer in made.items()}
    return [ids[thought] for thought in thoughts]


def render_completion(tokenizer: Tokenizer, text: str, ended: bool = True) -> list[int]:
    """An assistant's words as they follow a prompt, and the end of the turn if it ended."""
    frame, template = _frame(tokenizer), _template(tokenizer)
    # a thought that the answer opens or closes itself is not closed before it
    lead = "" if thoughts_of(template, text) and thoughts_of(template, frame.lead) else frame.lead
    ids = tokenizer.encode(lead + text + frame.trail * ended, frame.after)
    return [*ids, tokenizer.end_of_turn_id] if ended else ids


def render_document(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text for pretraining: bos if the tokenizer has one for texts, the text, eos."""
    return [*tokenizer.opening_ids, *tokenizer.encode(text), tokenizer.eos_id]


def completion_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The words of a completion: `render_completion` makes the same ids of them again."""
    return _words(tokenizer, tokenizer.decode(ids), ended=bool(ids) and ids[-1] in tokenizer.stop_ids)


def answer_text(tokenizer: Tokenizer, text: str) -> str:
    """What was said, of a decoded completion. Without a chat template, what a transcript shows before the next turn."""
    if tokenizer.chat_template is not None:
        return _words(tokenizer, text)
    for stop in PLAIN_STOP:
        text = text.split(stop, 1)[0]
    return text.strip()


@dataclass(frozen=True)
class _Frame:
    """What surrounds an assistant's words, and is said by the assistant."""

    lead: str = ""
    """from where a prompt ends to the words"""
    trail: str = ""
    """from the words to the token that ends the turn"""
    after: After = "control"
    """what stands at the end of a prompt"""
    headless: bool = False
    """whether the template's prompts do not say that the assistant speaks next: then ours end where its words begin"""
    thinking: bool = False
    """whether its prompts open a block of thought that it does not write before an answer without one"""


@dataclass(frozen=True)
class _Run:
    """Plain text and contents that are encoded together, as a tokenizer would that sees the whole conversation."""

    parts: tuple[str | Slot, ...]
    strip_left: bool = False
    strip_right: bool = False
    """True where the control token on that side takes the white space next to it"""

    @property
    def slots(self) -> list[Slot]:
        return [part for part in self.parts if isinstance(part, Slot)]

    def speaker(self, messages: Sequence[Message]) -> str | None:
        """The role of the first message in the run."""
        return messages[self.slots[0].message].role if self.slots else None


def _fill(tokenizer: Tokenizer, messages: Sequence[Message], asks: bool, answer: str | None = None) -> Rendered:
    """The messages in the template's places; `asks` adds the beginning of the assistant's next turn, for `answer`."""
    rendered = Rendered()
    after: After = "nothing"
    turn_open = False  # the assistant has spoken words that are trained, and its turn has not been ended
    template = _template(tokenizer)
    spoken = tuple(thoughts_of(template, m.content) if m.role == "assistant" else "" for m in messages)
    coming = None if answer is None else thoughts_of(template, answer)
    for part in _plan(tokenizer, tuple(message.role for message in messages), asks, spoken, coming):
        if isinstance(part, int):
            _extend(rendered, [part], turn_open and part == tokenizer.end_of_turn_id, ["control"])
            turn_open = False
        elif part.speaker(messages) == "assistant":
            message = messages[part.slots[0].message]
            words = "".join(text if isinstance(text, str) else message.content for text in part.parts)
            ids = tokenizer.encode(words, after)
            _extend(rendered, ids, message.trained, [_role(message)] * len(ids))
            turn_open = message.trained
        else:
            _extend(rendered, *_encode_run(tokenizer, messages, part, after))
            turn_open = turn_open and not part.slots
        after = "control" if isinstance(part, int) else "text"
    return rendered


@lru_cache(maxsize=1024)
def _plan(
    tokenizer: Tokenizer, roles: tuple[str, ...], asks: bool, spoken: tuple[str, ...], coming: str | None
) -> tuple[int | _Run, ...]:
    """Control ids and runs of text. They depend on the roles, and on whether answers bring thoughts: a template is
    rendered once for each sequence of these."""
    frame, template = _frame(tokenizer), _template(tokenizer)
    if asks and (frame.headless or (frame.thinking and coming == "")):
        pieces = outline(template, (*roles, "assistant"), tokenizer.names, add_generation_prompt=False)
        pieces = pieces[: pieces.index(Slot(len(roles)))]
    else:
        pieces = outline(template, roles, tokenizer.names, asks)
    if coming and isinstance(pieces[-1], str):
        pieces[-1] = without_thought(pieces[-1], coming)
    plan: list[int | _Run] = []
    waiting: list[str | Slot] = []

    def close(strip_right: bool = False) -> None:
        if waiting:
            strip_left = bool(plan) and isinstance(plan[-1], int) and tokenizer.strips(plan[-1])[1]
            plan.append(_Run(tuple(waiting), strip_left, strip_right))
            waiting.clear()

    for piece in _with_speech(pieces, roles, frame, spoken):
        if isinstance(piece, _Run):
            close()
            plan.append(piece)
        elif isinstance(piece, Slot):
            waiting.append(piece)
        else:
            for part in tokenizer.split_control(piece):
                if isinstance(part, int):
                    close(tokenizer.strips(part)[0])
                    plan.append(part)
                else:
                    waiting.append(part)
    close()
    return tuple(plan)


def _with_speech(
    pieces: Sequence[str | Slot], roles: Sequence[str], frame: _Frame, spoken: Sequence[str]
) -> list[str | Slot | _Run]:
    """The pieces of a template with the assistant's words as runs of their own, each with its lead and trail."""
    parts: list[str | Slot | _Run] = []
    for piece in pieces:
        before = parts[-1] if parts else None
        if isinstance(piece, Slot) and roles[piece.message] == "assistant":
            lead = ""
            if isinstance(before, str):
                before = without_thought(before, spoken[piece.message])
                lead = frame.lead if frame.lead.isspace() and before.endswith(frame.lead) else ""
                parts[-1] = before.removesuffix(lead)
            parts.append(_Run((lead, piece)))
        elif isinstance(piece, str) and isinstance(before, _Run) and piece.startswith(frame.trail):
            parts[-1] = replace(before, parts=(*before.parts, frame.trail))
            parts.append(piece.removeprefix(frame.trail))
        else:
            parts.append(piece)
    return parts


@lru_cache(maxsize=64)
def _frame(tokenizer: Tokenizer) -> _Frame:
    """What the template writes around an answer, beyond what it writes to ask for one."""
    template, names = _template(tokenizer), tokenizer.names
    try:
        prompt = outline(template, ("user",), names, add_generation_prompt=True)
        whole = outline(template, ("user", "assistant"), names, add_generation_prompt=False)
    except InputError:  # told where such a conversation is rendered
        return _Frame()
    place = whole.index(Slot(1))
    asked, before, rest = (
        _text(pieces) for pieces in (prompt[-1:], whole[max(place - 1, 0) : place], whole[place + 1 :])
    )
    lead = before.removeprefix(asked) if before.startswith(asked) else ""
    trail = rest.partition(tokenizer.end_of_turn)[0] if tokenizer.end_of_turn in rest else ""
    headless = bool(lead.strip()) and not thoughts_of(template, lead)
    block = THOUGHT.search(asked)
    end = tokenizer.split_control(before if headless else asked)[-1:]
    return _Frame(
        lead="" if headless else lead,
        trail="" if any(isinstance(part, int) for part in tokenizer.split_control(trail)) else trail,
        after="control" if end and isinstance(end[0], int) else "text",
        headless=headless,
        thinking=block is not None and block[2] is None and not before.startswith(asked),
    )


def _text(pieces: Sequence[str | Slot]) -> str:
    """The text that the pieces begin with."""
    return pieces[0] if pieces and isinstance(pieces[0], str) else ""


def _words(tokenizer: Tokenizer, text: str, ended: bool = True) -> str:
    """A decoded completion without the white space that the template puts around an assistant's words."""
    lead, trail = _frame(tokenizer).lead, _frame(tokenizer).trail
    text = text.removeprefix(lead) if lead.isspace() else text
    return text.removesuffix(trail) if ended and trail.isspace() else text


def _template(tokenizer: Tokenizer) -> str:
    return PLAIN_TEMPLATE if tokenizer.chat_template is None else tokenizer.chat_template


def _encode_run(
    tokenizer: Tokenizer, messages: Sequence[Message], run: _Run, after: After
) -> tuple[list[int], bool, list[str]]:
    """Ids of a run, and whose they are: a token belongs to the one who wrote its first character. None is trained."""
    texts = [part if isinstance(part, str) else part.fill(messages[part.message].content) for part in run.parts]
    writers = ["control" if isinstance(part, str) else messages[part.message].role for part in run.parts]
    by_character = [writer for text, writer in zip(texts, writers) for _ in text]
    text = "".join(texts)
    if run.strip_left:
        by_character = by_character[len(text) - len(text.lstrip()) :]
        text = text.lstrip()
    text = text.rstrip() if run.strip_right else text
    if len(texts) == 1:
        ids = tokenizer.encode(text, after)
        return ids, False, writers * len(ids)
    ids, starts = tokenizer.encode_with_starts(text, after)
    return ids, False, [by_character[start] for start in starts]


def _role(message: Message) -> str:
    return "assistant" if message.trained else "untrained assistant"


def _extend(rendered: Rendered, ids: list[int], trained: bool, roles: list[str]) -> None:
    rendered.ids.extend(ids)
    rendered.trained.extend([trained] * len(ids))
    rendered.roles.extend(roles)
