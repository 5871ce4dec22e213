"""OpenAI's JSON of completions: as a chat message or as a continued text, with log-probabilities.

A token need not be text: it may be part of a character, or a special token, which is part of no text. As with
OpenAI's models, parts of a character are written as bytes, and every token id has an entry of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amenable.generation.requests import Completion
from amenable.generation.top_logprobs import TopLogprobs
from amenable.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a completion or prompt. The first of a prompt has no log-probability: nothing comes before it."""

    id: int
    offset: int
    """index of the character in which the token begins"""
    logp: float | None
    top_logprobs: TopLogprobs


@dataclass(frozen=True)
class ChatFormat:
    """Completions as messages of the assistant."""

    wants_logprobs: bool
    object = "chat.completion"
    streamed = "chat.completion.chunk"
    prefix = "chatcmpl"

    def choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> dict[str, Any] | None:
        """Return the event before a completion's first chunk, None for none."""
        return {"delta": {"role": "assistant", "content": ""}}

    def echoed_text(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> str:
        """Return the part of the prompt that the completion's text begins with."""
        return ""

    def chunk(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def logprobs(self, tokenizer: Tokenizer, completion: Completion, prompt: Sequence[int] = ()) -> dict[str, Any]:
        """Return the completion's tokens, without its EOS, which OpenAI's chat does not list either."""
        rows = completion_tokens(tokenizer, completion)
        return {
            "content": [token_with_alternatives(tokenizer, row) for row in rows if row.id not in tokenizer.stop_ids],
            "refusal": None,
        }


@dataclass(frozen=True)
class TextFormat:
    """Completions as continuations of a text.

    echo: the text begins with the prompt, without the `added` ids (BOS) that no client wrote.
    """

    wants_logprobs: bool
    echo: bool = False
    added: int = 0
    object = "text_completion"
    streamed = "text_completion"
    prefix = "cmpl"

    def choice(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def opening(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> dict[str, Any] | None:
        """Return the event before a completion's first chunk, None for none."""
        return self.chunk(self.echoed_text(tokenizer, prompt)) if self.echo else None

    def echoed_text(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> str:
        """Return the part of the prompt that the completion's text begins with."""
        return tokenizer.decode(prompt[self.added :]) if self.echo else ""

    def chunk(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def logprobs(self, tokenizer: Tokenizer, completion: Completion, prompt: Sequence[int] = ()) -> dict[str, Any]:
        """Return all sampled tokens, EOS too, after those of the prompt with `echo`."""
        before = prompt_tokens(tokenizer, prompt, self.added, completion) if self.echo else []
        length = len(self.echoed_text(tokenizer, prompt))
        after = completion_tokens(tokenizer, completion)
        rows = [*before, *after]
        return {
            "tokens": [token_name(tokenizer, row.id) for row in rows],
            "token_logprobs": [row.logp for row in rows],
            "top_logprobs": [logps_by_name(tokenizer, row) for row in rows],
            "text_offset": [*(row.offset for row in before), *(length + row.offset for row in after)],
        }


def completion_tokens(tokenizer: Tokenizer, completion: Completion) -> list[TokenLogprob]:
    """Return a completion's tokens, EOS too; where a stop string ended it, the tokens that begin before that."""
    ids, top_logprobs = completion.ids, completion.top_logprobs or [[]] * len(completion.ids)
    rows = map(TokenLogprob, ids, token_offsets(tokenizer, ids), completion.logps, top_logprobs)
    if completion.finish_reason != "stop":
        return list(rows)
    length = len(completion.text or "")
    return [row for row in rows if row.offset < length]


def prompt_tokens(
    tokenizer: Tokenizer, prompt: Sequence[int], added: int, completion: Completion
) -> list[TokenLogprob]:
    """Return the prompt's tokens that the client wrote."""
    assert completion.prompt_logprobs is not None
    logps = [None, *completion.prompt_logprobs.logps]
    top_logprobs: list[TopLogprobs] = [[], *completion.prompt_logprobs.top_logprobs]
    shown = prompt[added:]
    return list(map(TokenLogprob, shown, token_offsets(tokenizer, shown), logps[added:], top_logprobs[added:]))


def token_offsets(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """Return for each token the index, in the decoded text, of the character that its first byte belongs to."""
    parts = [tokenizer.token_bytes(token) for token in ids]
    offset_of = character_offsets(b"".join(parts))
    begin, offsets = 0, []
    for part in parts:
        offsets.append(offset_of[begin])
        begin += len(part)
    return offsets


def character_offsets(data: bytes) -> list[int]:
    """Return for each of N bytes the index of its character in data.decode("utf-8", "replace"), and the text's length.

    >>> character_offsets("a€".encode() + b"\\xff")
    [0, 1, 1, 1, 2, 3]
    """
    offsets: list[int] = []
    count = start = 0
    while start < len(data):
        try:
            text, end, broken = data[start:].decode(), len(data), 0
        except UnicodeDecodeError as error:
            text, end = data[start : start + error.start].decode(), start + error.end
            broken = error.end - error.start
        for character in text:
            offsets += [count] * len(character.encode())
            count += 1
        offsets += [count] * broken
        count += broken > 0
        start = end
    return [*offsets, count]


def token_name(tokenizer: Tokenizer, token: int, mark: str = "bytes:") -> str:
    """Return a token's text; for part of a character its bytes after a mark, for a special token its name."""
    data = tokenizer.token_bytes(token)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return mark + data.decode("utf-8", "backslashreplace")
    return text or tokenizer.decode([token], skip_special_tokens=False) or f"token_id:{token}"


def logps_by_name(tokenizer: Tokenizer, token: TokenLogprob) -> dict[str, float] | None:
    """Return log p of the top tokens and of the token itself, by name; the second of two equal names is the id."""
    if token.logp is None:
        return None
    logps = {**dict(token.top_logprobs), token.id: token.logp}
    own = token_name(tokenizer, token.id)
    logp_of: dict[str, float] = {}
    for other, logp in sorted(logps.items(), key=lambda item: -item[1]):
        name = token_name(tokenizer, other)
        taken = name in logp_of or (name == own and other != token.id)
        logp_of[f"token_id:{other}" if taken else name] = logp
    return logp_of


def token_with_alternatives(tokenizer: Tokenizer, token: TokenLogprob) -> dict[str, Any]:
    """Return OpenAI's entry of a chat token, with the top tokens at its position."""
    top = [(other, token.logp if other == token.id else logp) for other, logp in token.top_logprobs]
    entries = [token_entry(tokenizer, *pair) for pair in top]
    return {**token_entry(tokenizer, token.id, token.logp), "top_logprobs": entries}


def token_entry(tokenizer: Tokenizer, token: int, logp: float | None) -> dict[str, Any]:
    """Return a token's name, log p and bytes; a special token has none."""
    data = tokenizer.token_bytes(token)
    return {"token": token_name(tokenizer, token, mark=""), "logprob": logp, "bytes": list(data) or None}
