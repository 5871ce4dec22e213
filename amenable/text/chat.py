"""Rendering of a conversation as token ids, roles and a loss mask, by the tokenizer's chat template.

The text is that of transformers' `apply_chat_template`, up to the end of the last turn. The loss mask is True for what
the assistant generates: its words, thinking and tool calls, and the end token of each turn, except turns that are
context only (`Message.trained`). Where a template has {% generation %} marks, they decide. Text and contents on either
side of a special token are encoded separately, so no content can become a special token; what the assistant generates
is always encoded on its own. So

    render(prompt + [completion]).ids == render_prompt(prompt, completion) + render_completion(completion)

holds for every template and every completion that the template shows as it is. Without a chat template (a base model)
the conversation is a transcript, "User: ...", blank line, "Assistant: ...".

The prompt ends where the template lets a model begin to generate. Text that the template writes between there and the
assistant's words, or between these and the end of the turn (Llama 2: a space each), has to be generated too, so it
belongs to the completion and is trained. There is one thinking block at the most: an empty one that a template writes
before the assistant's words is left out where the completion brings its own. Where a template leaves out the thinking
of earlier turns, these turns are context: the model would not have generated them so. The thinking of the last turn is
always trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

from amenable.data.types import Message, conversation_error
from amenable.errors import InputError
from amenable.text.assistant_turns import (
    AssistantTurn,
    Boundaries,
    assistant_turns,
    hidden_thinking,
    without_second_blocks,
)
from amenable.text.spans import encode_span, split_own_text
from amenable.text.spec import After
from amenable.text.template import (
    FORMS,
    PLAIN_TEMPLATE,
    THINKING_BLOCK,
    THINKING_TAG,
    TOOLS,
    WORD,
    Slot,
    begins_thinking,
    has_generation_marks,
    render_template,
    strip_thinking_block,
    template_with_slots,
    thinking_tags,
)
from amenable.text.tokenizer import Tokenizer
from amenable.text.traced import Traced

PLAIN_STOP = ("\n\nUser:", "\n\n")
"""strings that end a base model's completion of a transcript"""


@dataclass(frozen=True)
class Rendered:
    """N tokens of a conversation."""

    ids: list[int] = field(default_factory=list)
    loss_mask: list[bool] = field(default_factory=list)
    """True for the assistant's words and the end of the turn, where that turn is trained"""
    roles: list[str] = field(default_factory=list)
    """writer of each token: "template", "tools", a role of the messages, "untrained assistant", or "assistant template"
    for special tokens inside what the assistant generates"""
    hidden_turns: int = 0
    """turns of the assistant that are context because the template leaves out their thinking"""


def validate(messages: Sequence[Message]) -> None:
    """Raise InputError for no messages, an unknown role, a misplaced system, or a tool's answer to no call."""
    if (error := conversation_error(messages)) is not None:
        raise InputError(error)


def render(tokenizer: Tokenizer, messages: Sequence[Message]) -> Rendered:
    """Render a whole conversation; after a last message of the assistant comes the end token of the turn.

    InputError for messages that the template refuses, or shows only in part, or whose loss mask is not certain.
    """
    validate(messages)
    last = messages[-1]
    if last.role != "assistant":
        return _ids(tokenizer, *_conversation(tokenizer, messages, False, False), messages)
    tags = thinking_tags(_template(tokenizer), last.content)
    try:
        text, turns = _conversation(tokenizer, messages, False, bool(last.reasoning) or begins_thinking(last.content))
    except InputError as error:
        # some templates show system and tools only before the user's last message: a prompt has them, a whole has not
        if last.tool_calls or last.reasoning or len(messages) == 1:
            raise
        try:
            return _with_raw_completion(tokenizer, messages)
        except InputError:
            raise error from None
    if turns[-1].hides_thinking or (tags and not begins_thinking(last.content)):
        return _with_raw_completion(tokenizer, messages)
    rendered = _ids(tokenizer, text.part(0, turns[-1].stop), turns, messages)
    if not turns[-1].ended:
        if last.tool_calls:
            raise InputError(f"the chat template does not end message {len(messages)}, which has tool calls")
        _extend(rendered, [tokenizer.end_of_turn_id], last.trained, ["template"])
    return rendered


def render_prompt(tokenizer: Tokenizer, messages: Sequence[Message], completion: str | None = None) -> list[int]:
    """Return the ids of a conversation up to the point where the assistant begins to generate.

    completion: the text that follows, if known. Only a template that writes thinking blocks depends on it.
    """
    validate(messages)
    if messages[-1].role == "assistant":
        raise InputError("a prompt ends with the assistant", how="it must end with the user")
    return _ids(tokenizer, *_prompt(tokenizer, messages, completion), messages).ids


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
    boundaries: Boundaries = field(default_factory=lambda: Boundaries((), (), False))


def _conversation(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool, thinking: bool
) -> tuple[Traced, list[AssistantTurn]]:
    """Return the text of a conversation and the assistant's turns in it."""
    template, special = _template(tokenizer), tokenizer.special_tokens_map
    problem: InputError | None = None
    for form in FORMS if any(message.tool_calls for message in messages) else FORMS[:1]:
        show = partial(render_template, template, special_tokens=special, thinking=thinking, form=form)
        try:
            text = show(messages, add_generation_prompt=add_generation_prompt)
            hidden = hidden_thinking(text, messages, form)
        except InputError as error:
            problem = problem or error
            continue
        for i, thought in hidden.items():
            if any(isinstance(part, int) for part in tokenizer.split_special_tokens(thought)):
                raise InputError(f"thinking that the chat template leaves out has a special token, in message {i + 1}")
        _require_own_tokens(tokenizer, messages, partial(show, add_generation_prompt=add_generation_prompt))
        text = without_second_blocks(text, messages, template)
        boundaries = _frame(tokenizer).boundaries

        def prompt(message: int, show: Callable[..., Traced] = show) -> Traced:
            return show(messages[:message], add_generation_prompt=True)

        return text, assistant_turns(text, messages, boundaries, hidden, prompt)
    assert problem is not None
    raise problem


def _prompt(
    tokenizer: Tokenizer, messages: Sequence[Message], completion: str | None
) -> tuple[Traced, list[AssistantTurn]]:
    """Return the text of a prompt for a completion, and the assistant's turns in it."""
    frame, template = _frame(tokenizer), _template(tokenizer)
    tags = None if completion is None else thinking_tags(template, completion)
    if frame.omits_header or (frame.thinking and tags == ""):
        text, turns = _conversation(tokenizer, [*messages, Message("assistant", WORD)], False, False)
        return text.part(0, turns[-1].start), turns[:-1]
    text, turns = _conversation(tokenizer, messages, True, completion is not None and begins_thinking(completion))
    pieces = text.pieces()
    if tags and pieces[-1].run.source is None:
        end = strip_thinking_block(pieces[-1].text, tags)
        text = text.part(0, pieces[-1].position + len(end))
    return text, turns


def _with_raw_completion(tokenizer: Tokenizer, messages: Sequence[Message]) -> Rendered:
    """Render a conversation whose template leaves out the thinking of the last turn, with this thinking."""
    last = messages[-1]
    completion = last.content
    if last.reasoning:
        tag = THINKING_TAG.search(_template(tokenizer))
        if tag is None or last.tool_calls:
            raise InputError(
                f"the chat template does not show the reasoning of message {len(messages)}",
                how="put it into the content as <think>...</think>, or use a model whose template shows it",
            )
        completion = f"{tag[0]}\n{last.reasoning}\n</{tag[1]}>\n\n{last.content}"
    text, turns = _prompt(tokenizer, messages[:-1], completion)
    rendered = _ids(tokenizer, text, turns, messages)
    ids = render_completion(tokenizer, completion)
    _extend(rendered, ids, last.trained, [_role(last.trained)] * (len(ids) - 1) + ["template"])
    return rendered


def _require_own_tokens(tokenizer: Tokenizer, messages: Sequence[Message], show: Callable[..., Traced]) -> None:
    """Raise InputError where a template loses the source of a special token in schemas, ids or names of tools: unlike
    contents, these need not be shown."""

    if not any(message.tools or message.name or message.tool_call_id or message.tool_calls for message in messages):
        return

    def clean(text: str) -> str:
        return "".join(part for part in tokenizer.split_special_tokens(text) if isinstance(part, str))

    plain = [
        replace(message, tools=clean(message.tools), name=clean(message.name), tool_call_id=clean(message.tool_call_id))
        for message in messages
    ]
    plain = [replace(m, tool_calls=tuple(replace(call, id=clean(call.id)) for call in m.tool_calls)) for m in plain]
    if plain != list(messages) and _own_tokens(tokenizer, show(plain)) != _own_tokens(tokenizer, show(messages)):
        raise InputError("the chat template makes special tokens of schemas, ids or names of tools")


def _own_tokens(tokenizer: Tokenizer, text: Traced) -> list[int]:
    """Return the special tokens in a template's own text."""
    own = [piece.text for piece in text.pieces() if piece.run.source is None]
    return [part for piece in own for part in split_own_text(tokenizer, piece) if isinstance(part, int)]


def _ids(tokenizer: Tokenizer, text: Traced, turns: Sequence[AssistantTurn], messages: Sequence[Message]) -> Rendered:
    """Return the ids of a text. Template's and contents' text between special tokens is encoded together, as a
    tokenizer does that reads the whole conversation; the assistant's turns are encoded on their own."""
    rendered = Rendered(hidden_turns=sum(turn.hides_thinking for turn in turns))
    waiting: list[tuple[str, str]] = []  # texts with their roles
    after: After = "nothing"
    strips = False

    def flush(trained: bool, strip_right: bool = False) -> None:
        nonlocal after, strips
        if waiting:
            ids, roles = encode_span(tokenizer, waiting, after, strips, strip_right)
            _extend(rendered, ids, trained, roles)
            waiting.clear()
            after, strips = "text", False

    for turn, parts in _groups(text, turns):
        trained = turn is not None and turn.trained and messages[turn.message].trained
        for part, source in parts:
            if source is None:
                role = "template" if turn is None else _role(trained)
                for each in split_own_text(tokenizer, part):
                    if isinstance(each, str):
                        waiting.append((each, role))
                        continue
                    left, right = tokenizer.strips_whitespace(each)
                    flush(trained, left)
                    inside = trained and each != tokenizer.end_of_turn_id
                    _extend(rendered, [each], trained, ["assistant template" if inside else "template"])
                    after, strips = "special", right
            elif source == TOOLS:
                waiting.append((part, "tools"))
            else:
                role = messages[source].role
                waiting.append((part, _role(trained) if role == "assistant" else role))
        flush(trained)
    return rendered


def _groups(
    text: Traced, turns: Sequence[AssistantTurn]
) -> Iterator[tuple[AssistantTurn | None, list[tuple[str, int | None]]]]:
    """Yield the assistant's turns and what is between them: texts with the messages that wrote them."""
    position = 0
    for turn in (*turns, None):
        for each, stop in ((None, len(text) if turn is None else turn.start), (turn, turn.stop if turn else 0)):
            if stop > position or each is not None:
                pieces = text.part(position, stop).pieces()
                yield each, [(piece.text, piece.run.source and piece.run.source.message) for piece in pieces]
                position = stop


@lru_cache(maxsize=64)
def _frame(tokenizer: Tokenizer) -> _Frame:
    """Return the text that the template writes around the assistant's words and not in a generation prompt."""
    template, special = _template(tokenizer), tokenizer.special_tokens_map
    stops = [i for i in tokenizer.stop_ids if i in tokenizer.special_ids]
    ends = tuple(tokenizer.decode([i], skip_special_tokens=False) for i in stops)
    try:
        prompts = [template_with_slots(template, ("user",), special, True, thinking) for thinking in (False, True)]
        closed = template_with_slots(template, ("user",), special, add_generation_prompt=False)
        whole = template_with_slots(template, ("user", "assistant"), special, add_generation_prompt=False)
    except InputError:  # raised again when such a conversation is rendered
        return _Frame(boundaries=Boundaries((), ends, has_generation_marks(template)))
    slot = whole.index(Slot(1))
    openings = [_text(prompt[-1:]) for prompt in prompts]
    opening, before, rest = openings[0], _text(whole[max(slot - 1, 0) : slot]), _text(whole[slot + 1 :])
    lead = before.removeprefix(opening) if before.startswith(opening) else ""
    trail = rest.partition(tokenizer.end_of_turn)[0] if tokenizer.end_of_turn in rest else ""
    omits_header = bool(lead.strip()) and not thinking_tags(template, lead)
    block = THINKING_BLOCK.search(opening)
    end = tokenizer.split_special_tokens(before if omits_header else opening)[-1:]
    headers = {_after_common(text, _text(closed[-1:])) for text in openings}
    headers |= {THINKING_BLOCK.sub("", header) for header in headers} | ({lead} if omits_header else set())
    return _Frame(
        lead="" if omits_header else lead,
        trail="" if any(isinstance(part, int) for part in tokenizer.split_special_tokens(trail)) else trail,
        after="special" if end and isinstance(end[0], int) else "text",
        omits_header=omits_header,
        thinking=block is not None and block[2] is None and not before.startswith(opening),
        boundaries=Boundaries(
            tuple(sorted(headers - {""}, key=len, reverse=True)), ends, has_generation_marks(template)
        ),
    )


def _after_common(text: str, other: str) -> str:
    """Return the text after the beginning that it has in common with another."""
    return text[next((i for i, (a, b) in enumerate(zip(text, other)) if a != b), min(len(text), len(other))) :]


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


def _role(trained: bool) -> str:
    return "assistant" if trained else "untrained assistant"


def _extend(rendered: Rendered, ids: Sequence[int], trained: bool, roles: list[str]) -> None:
    rendered.ids.extend(ids)
    rendered.loss_mask.extend([trained] * len(ids))
    rendered.roles.extend(roles)
