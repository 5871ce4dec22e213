"""Chat templates: Jinja in a sandbox, with the helpers that transformers gives to templates.

A template decides where contents go, never what they are: it is rendered over stand-ins for the contents, and what
comes out is the template's own text with a slot for every message. So no content is ever taken for the template's.
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
"""what our own assistants read"""

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}Assistant: {{ message['content'] }}"
    "{% elif message['role'] == 'user' %}User: {{ message['content'] }}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% if add_generation_prompt or not loop.last %}{{ '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""the transcript that a base model continues"""

SPACE = "\u2003"
STAND_IN = re.compile(f"({SPACE}?)\ue000([0-9]+)\ue001({SPACE}?)")

THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>\s*(</\1>\s*)?\Z")
"""a block of thought at the end of a template's text, empty or open"""


@dataclass(frozen=True)
class Slot:
    """The place of message number `message`."""

    message: int
    strip_left: bool = False
    strip_right: bool = False
    """True where the template takes white space off that side of the content"""

    def fill(self, content: str) -> str:
        """The content as the template would show it."""
        content = content.lstrip() if self.strip_left else content
        return content.rstrip() if self.strip_right else content


def outline(
    template: str, roles: Sequence[str], names: Mapping[str, str], add_generation_prompt: bool
) -> list[str | Slot]:
    """The template's own text and the slots of the messages, in the order in which they are shown.

    names: bos_token, eos_token and the like. An assistant's content is always shown as it is; of the others, white
    space is stripped where the template does so. InputError where the template refuses the roles, or shows a content
    other than once.
    """
    messages = [
        {"role": role, "content": f"\ue000{i}\ue001" if role == "assistant" else f"{SPACE}\ue000{i}\ue001{SPACE}"}
        for i, role in enumerate(roles)
    ]
    shown = _show(template, messages=messages, add_generation_prompt=add_generation_prompt, **names)
    pieces: list[str | Slot] = []
    end = 0
    for found in STAND_IN.finditer(shown):
        pieces.append(shown[end : found.start()])
        padded = roles[int(found[2])] != "assistant"
        pieces.append(Slot(int(found[2]), padded and not found[1], padded and not found[3]))
        end = found.end()
    pieces.append(shown[end:])
    slots = sorted(piece.message for piece in pieces if isinstance(piece, Slot))
    if slots != list(range(len(roles))):
        missing = next((i for i in range(len(roles)) if slots.count(i) != 1), 0)
        raise InputError(
            f"the chat template shows message {missing + 1} of {' '.join(roles)} {slots.count(missing)} times",
            how="it must show every message once",
        )
    return [piece for piece in pieces if piece != ""]


def thoughts_of(template: str, answer: str) -> str:
    """The tags of thought in an answer to a template that has such blocks: `<think>` if it begins with one, `</think>`
    if it closes one, both, or nothing."""
    tag = re.search(r"<(think|thinking|thought|reasoning)>", template)
    if tag is None:
        return ""
    opens = answer.lstrip().startswith(tag[0])
    return tag[0] * opens + f"</{tag[1]}>" * (f"</{tag[1]}>" in answer)


def without_thought(text: str, thoughts: str) -> str:
    """A template's text before an answer, without a block of thought at its end where the answer opens its own."""
    block = THOUGHT.search(text)
    return text[: block.start()] if block is not None and f"<{block[1]}>" in thoughts else text


def _show(template: str, **values: Any) -> str:
    try:
        # templates of reasoning models open a block of thought unless they are told not to
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
    """{% generation %} ... {% endgeneration %}: for transformers' assistant masks; here it only holds text."""

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
