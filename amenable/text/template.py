"""Chat templates: Jinja in a sandbox, with the helpers that transformers gives to templates.

A template gets the conversation's own strings, traced (`text.traced`): it writes what transformers'
`apply_chat_template` writes, and every character is known to be a message's or the template's. So no content is ever
taken for the template's text, and a message that the template does not show in full is noticed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from amenable.data.types import Message
from amenable.errors import InputError
from amenable.text import traced
from amenable.text.traced import Traced

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% elif message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% elif message['role'] == 'system' %}<|system|>{{ message['content'] }}"
    "{% else %}{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""chat template of our own assistants"""

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}Assistant: {{ message['content'] }}"
    "{% elif message['role'] == 'user' %}User: {{ message['content'] }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] }}"
    "{% else %}{{ raise_exception('unknown role ' + message['role']) }}{% endif %}"
    "{% if add_generation_prompt or not loop.last %}{{ '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""transcript that a base model continues"""

WORD = "word"
"""content of messages whose template is looked at without their contents"""
THINKING_TAG = re.compile(r"<(think|thinking|thought|reasoning)>")
THINKING_BLOCK = re.compile(r"<(think|thinking|thought|reasoning)>\s*(</\1>\s*)?\Z")
"""thinking block at the end of a template's text, empty or open"""
MARK = re.compile(r"{%-?\s*generation\b")
TOOLS = -1
"""message of the schemas of tools"""


@dataclass(frozen=True)
class Form:
    """Form in which a template gets tool calls: published templates expect either, and say so nowhere."""

    null_content: bool = False
    """None for the content of a message that has only tool calls, instead of an empty text"""
    arguments_as_text: bool = False
    """arguments as the text of a JSON object, instead of the object"""


FORMS = (Form(), Form(null_content=True), Form(arguments_as_text=True), Form(True, True))


@dataclass(frozen=True)
class Slot:
    """Position of the content of message number `message` in a template's text."""

    message: int


def render_template(
    template: str,
    messages: Sequence[Message],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool,
    thinking: bool = False,
    form: Form = FORMS[0],
) -> Traced:
    """Return a conversation as a template writes it, with the source of every character.

    special_tokens: bos_token, eos_token and so on. thinking: templates of reasoning models open a thinking block in a
    generation prompt where it is True, and close it where it is False. InputError if the template refuses the messages.
    """
    developer = "developer" in template
    values = [template_message(message, i, developer, form) for i, message in enumerate(messages)]
    tools = json.loads(messages[0].tools) if messages and messages[0].tools else None
    try:
        text = _compiled(template).render(
            messages=values,
            tools=traced.traced(tools, TOOLS, "tools"),
            documents=None,
            add_generation_prompt=add_generation_prompt,
            enable_thinking=thinking,
            **special_tokens,
        )
    except jinja2.TemplateError as error:
        roles = " ".join(message.role for message in messages)
        raise InputError(f"the chat template refuses the turns {roles}: {error}") from None
    except (TypeError, ValueError, KeyError, ArithmeticError, AttributeError, LookupError) as error:
        raise InputError(f"the chat template fails: {type(error).__name__}: {error}") from None
    return text if isinstance(text, Traced) else Traced(text)


def template_message(message: Message, index: int, developer: bool = True, form: Form = FORMS[0]) -> dict[str, Any]:
    """Return a message as templates read it, its strings traced to message number `index`.

    developer: False for a template that knows no such role, and gets the message as the system's.
    """
    content = traced.traced(message.content, index, "content")
    value: dict[str, Any] = {
        "role": "system" if message.role == "developer" and not developer else message.role,
        "content": None if form.null_content and message.tool_calls and not content else content,
    }
    if message.reasoning:
        reasoning = traced.traced(message.reasoning, index, "reasoning")
        value |= {"reasoning_content": reasoning, "reasoning": reasoning, "thinking": reasoning}
    if message.tool_calls:
        value["tool_calls"] = [
            {
                **({"id": traced.traced(call.id, index, f"id of call {i}")} if call.id else {}),
                "type": "function",
                "function": {
                    "name": traced.traced(call.name, index, f"call {i}"),
                    "arguments": traced.traced(arguments, index, f"arguments {i}"),
                },
            }
            for i, call in enumerate(message.tool_calls, start=1)
            for arguments in [call.arguments if form.arguments_as_text else json.loads(call.arguments)]
        ]
    for key in ("name", "tool_call_id"):
        if text := getattr(message, key):
            value[key] = traced.traced(text, index, key)
    return value


def template_with_slots(
    template: str,
    roles: Sequence[str],
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool,
    thinking: bool = False,
) -> list[str | Slot]:
    """Return a template's own text and the slots of the contents, in the order in which the template shows them.

    InputError if the template refuses the roles, or does not show every content once.
    """
    messages = [Message(role, WORD) for role in roles]
    pieces = render_template(template, messages, special_tokens, add_generation_prompt, thinking).pieces()
    parts: list[str | Slot] = []
    for piece in pieces:
        if piece.run.source is not None:
            parts.append(Slot(piece.run.source.message))
        elif parts and isinstance(parts[-1], str):
            parts[-1] += piece.text
        elif piece.text:
            parts.append(piece.text)
    slots = sorted(part.message for part in parts if isinstance(part, Slot))
    if slots != list(range(len(roles))):
        missing = next((i for i in range(len(roles)) if slots.count(i) != 1), 0)
        raise InputError(
            f"the chat template shows message {missing + 1} of {' '.join(roles)} {slots.count(missing)} times",
            how="it must show every message once",
        )
    return parts


def has_generation_marks(template: str) -> bool:
    """Return True for a template that marks what the assistant generates by {% generation %}."""
    return MARK.search(template) is not None


def begins_thinking(completion: str) -> bool:
    """Return True for a completion that begins with a tag such as `<think>`."""
    return THINKING_TAG.match(completion.lstrip()) is not None


def thinking_tags(template: str, completion: str) -> str:
    """Return the thinking tags of a completion: `<think>` if the completion begins with this tag, `</think>` if it has
    this tag, both, or "" (always for a template without thinking blocks)."""
    tag = THINKING_TAG.search(template)
    if tag is None:
        return ""
    opens = completion.lstrip().startswith(tag[0])
    return tag[0] * opens + f"</{tag[1]}>" * (f"</{tag[1]}>" in completion)


def strip_thinking_block(text: str, tags: str) -> str:
    """Return a template's text without a thinking block at its end, if a completion with these tags opens its own."""
    block = THINKING_BLOCK.search(text)
    return text[: block.start()] if block is not None and f"<{block[1]}>" in tags else text


@lru_cache(maxsize=64)
def _compiled(template: str) -> jinja2.Template:
    try:
        return _Environment().from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"the chat template has a mistake in line {error.lineno}: {error.message}") from None


class _CodeGenerator(CodeGenerator):
    """Compiler whose operator `~` keeps the sources of strings."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("concat(map(str, (")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write(")))")


class _Generation(Extension):
    """Tag {% generation %} ... {% endgeneration %} of transformers' assistant masks."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own interface)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_generated"), [], [], body).set_lineno(line)

    def _generated(self, caller: Callable[[], str]) -> str:
        text = caller()
        return (text if isinstance(text, Traced) else Traced(text)).generated()


class _Environment(ImmutableSandboxedEnvironment):
    """Sandbox with transformers' helpers, in which strings keep their sources."""

    code_generator_class = _CodeGenerator
    concat = staticmethod(traced.join)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"])
        # Jinja's own tojson escapes HTML
        self.filters |= {"tojson": traced.dumps, "join": _join, "replace": _replace, "safe": str}
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}

    def call(self, context: Any, function: Any, /, *arguments: Any, **options: Any) -> Any:
        """Call a function; a method of a template's own string as that of a traced one."""
        owner = getattr(function, "__self__", None)
        if type(owner) is str and function.__name__ in ("join", "replace"):
            function = getattr(Traced(owner), function.__name__)
        return super().call(context, function, *arguments, **options)


@jinja2.pass_environment
def _join(environment: jinja2.Environment, parts: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
    if attribute is not None:
        parts = map(jinja2.filters.make_attrgetter(environment, attribute), parts)
    return traced.join(map(str, parts), str(d))


def _replace(text: Any, old: str, new: str, count: int | None = None) -> str:
    text = str(text)
    return (text if isinstance(text, Traced) else Traced(text)).replace(old, new, -1 if count is None else count)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
