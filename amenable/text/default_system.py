"""System prompts that chat templates write by themselves."""

from __future__ import annotations

from amenable.errors import InputError
from amenable.text.template import template_with_slots
from amenable.text.tokenizer import Tokenizer


def default_system_prompt(tokenizer: Tokenizer) -> str:
    """Return the words that the chat template writes before the user's first message where a conversation has no
    system prompt; "" where it writes none."""
    template, special = tokenizer.chat_template, tokenizer.special_tokens_map
    if template is None:
        return ""
    try:
        first = template_with_slots(template, ("user",), special, False)[0]
        later = template_with_slots(template, ("user", "assistant", "user"), special, False)
    except InputError:  # raised again when such a conversation is rendered
        return ""
    header = next((part for part in later[-2::-1] if isinstance(part, str)), "")
    parts = tokenizer.split_special_tokens(first) if isinstance(first, str) else []
    repeated = tokenizer.split_special_tokens(header)
    while parts and repeated and parts[-1] == repeated[-1]:
        parts, repeated = parts[:-1], repeated[:-1]
    words = "\n".join(part.strip() for part in parts if isinstance(part, str))
    return words.removeprefix("system").strip()
