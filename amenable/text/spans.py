"""Encoding of the text between the special tokens of a rendered conversation.

A template's own text is the same in many conversations: it is split and encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from amenable.text.spec import After
from amenable.text.tokenizer import Tokenizer


@lru_cache(maxsize=1024)
def split_own_text(tokenizer: Tokenizer, text: str) -> Sequence[int | str]:
    """Return a template's own text, which conversations have in common, as special ids and the text between them."""
    return tuple(tokenizer.split_special_tokens(text))


@lru_cache(maxsize=1024)
def encode_own_text(tokenizer: Tokenizer, text: str, after: After) -> Sequence[int]:
    """Return the ids of a template's own text between special tokens, which conversations have in common."""
    return tuple(tokenizer.encode(text, after))


def encode_span(
    tokenizer: Tokenizer, parts: Sequence[tuple[str, str]], after: After, strip_left: bool, strip_right: bool
) -> tuple[Sequence[int], list[str]]:
    """Return the ids of texts that are encoded together, and each token's role: that of the text in which the token's
    first character is. White space beside special tokens that take it is left out."""
    text = "".join(part for part, _ in parts)
    stripped = text.lstrip() if strip_left else text
    begin = len(text) - len(stripped)
    text = stripped.rstrip() if strip_right else stripped
    roles = {role for _, role in parts}
    if roles == {"template"}:
        own = encode_own_text(tokenizer, text, after)
        return own, ["template"] * len(own)
    if len(roles) == 1:
        ids = tokenizer.encode(text, after)
        return ids, [roles.pop()] * len(ids)
    by_character = [role for part, role in parts for _ in part][begin:]
    ids, starts = tokenizer.encode_with_starts(text, after)
    return ids, [by_character[start] for start in starts]
