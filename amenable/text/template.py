"""Chat templates: Jinja in a sandbox, with the helpers that transformers gives to templates.

A template never sees contents: it is rendered over placeholders, and the result is the template's own text with a slot
for every message. So no content is ever taken for the template's text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from amenable.errors import InputError

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
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% if add_generation_prompt or not loop.last %}{{ '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""transcript that a base model continues"""

SPACE = "\u2003"
PLACEHOLDER = re.compile(f"({SPACE}?)\ue000([0-9]+)\ue001({SPACE}?)")

THINKING_BLOCK = re.compile(r"<(think|thinking|thought|reasoning)>\s*(</\1>\s*)?\Z")
"""thinking block at the end of a template's text, empty or open"""


@dataclass(frozen=True)
class Slot:
    """Position of the content of message number `message` in a template's text."""

    message: int
    strip_left: bool = False
    strip_right: bool = False
    """True where the template takes white space off that side of the content"""

    def fill(self, content: str) -> str:
        """Return the content as the template shows it, stripped on the sides where the template strips."""
        content = content.lstrip() if self.strip_left else content
        return content.rstrip() if self.strip_right else content


def template_with_slots(
    template: str, roles: Sequence[str], special_tokens: Mapping[str, str], add_generation_prompt: bool
) -> list[str | Slot]:
    """Return a template's own text and the slots of its messages, in the order in which the template shows them.

    special_tokens: bos_token, eos_token and so on. An assistant's content is always shown as it is; other contents are
    stripped of white space where the template strips. InputError if the template refuses the roles, or does not show
    every content once.
    """
    messages = [
        {"role": role, "content": f"\ue000{i}\ue001" if role == "assistant" else f"{SPACE}\ue000{i}\ue001{SPACE}"}
        for i, role in enumerate(roles)
    ]
    text = _render(template, messages=messages, add_generation_prompt=add_generation_prompt, **special_tokens)
    pieces: list[str | Slot] = []
    end = 0
    for match in PLACEHOLDER.finditer(text):
        pieces.append(text[end : match.start()])
        padded = roles[int(match[2])] != "assistant"
        pieces.append(Slot(int(match[2]), padded and not match[1], padded and not match[3]))
        end = match.end()
    pieces.append(text[end:])
    slots = sorted(piece.message for piece in pieces if isinstance(piece, Slot))
    if slots != list(range(len(roles))):
        missing = next((i for i in range(len(roles)) if slots.count(i) != 1), 0)
        raise InputError(
            f"the chat template shows message {missing + 1} of {' '.join(roles)} {slots.count(missing)} times",
            how="it must show every message once",
        )
    return [piece for piece in pieces if piece != ""]


def thinking_tags(template: str, completion: str) -> str:
    """Return the thinking tags of a completion: `<think>` if the completion begins with this tag, `</think>` if it has
    this tag, both, or "" (always for a template without thinking blocks)."""
    tag = re.search(r"<(think|thinking|thought|reasoning)>", template)
    if tag is None:
        return ""
    opens = completion.lstrip().startswith(tag[0])
    return tag[0] * opens + f"</{tag[1]}>" * (f"</{tag[1]}>" in completion)


def strip_thinking_block(text: str, tags: str) -> str:
    """Return a template's text without a thinking block at its end, if a completion with these tags opens its own."""
    block = THINKING_BLOCK.search(text)
    return text[: block.start()] if block is not None and f"<{block[1]}>" in tags else text


def _render(template: str, **values: Any) -> str:
    try:
        # templates of reasoning models open a thinking block unless enable_thinking is False
        return _environment().from_string(template).render(tools=None, documents=None, enable_thinking=False, **values)
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"the chat template has a mistake in line {error.lineno}: {error.message}") from None
    except jinja2.TemplateError as error:
        roles = " ".join(message["role"] for message in values["messages"])
        raise InputError(f"the chat template refuses the turns {roles}: {error}") from None
    except (TypeError, ValueError, KeyError, ArithmeticError, AttributeError, LookupError) as error:
        raise InputError(f"the chat template fails: {type(error).__name__}: {error}") from None


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _Generation(Extension):
    """Tag {% generation %} ... {% endgeneration %} of transformers' assistant masks; here it only holds text."""

    tags = {"generation"}  # noqa: RUF012  (Jinja's own interface)

    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    # Jinja's own filter escapes HTML
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
