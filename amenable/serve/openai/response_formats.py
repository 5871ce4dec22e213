"""What an answer looks like: as a turn of a conversation, or as the continuation of a text; with log-probabilities.

A token need not be text: it may be part of a character, or a special token, which is no part of any text. As with
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
    """A token of an answer or of a prompt. The first of a prompt has no log-probability, as nothing comes before it."""

    id: int
    offset: int
    """place of the character in which the token begins"""
    logp: float | None
    likeliest: TopLogprobs


@dataclass(frozen=True)
class ChatForm:
    """A turn of a conversation."""

    wants_logprobs: bool
    object = "chat.completion"
    streamed = "chat.completion.chunk"
    prefix = "chatcmpl"

    def choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> dict[str, Any] | None:
        """The message of a stream before the first piece of an answer."""
        return {"delta": {"role": "assistant", "content": ""}}

    def echoed(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> str:
        """The part of a prompt that an answer's text begins with."""
        return ""

    def piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def logprobs(self, tokenizer: Tokenizer, completion: Completion, prompt: Sequence[int] = ()) -> dict[str, Any]:
        """The tokens of an answer, without its EOS, which OpenAI's chat does not list either."""
        rows = answer_tokens(tokenizer, completion)
        return {
            "content": [token_row(tokenizer, row) for row in rows if row.id not in tokenizer.stop_ids],
            "refusal": None,
        }


@dataclass(frozen=True)
class TextForm:
    """The continuation of a text.

    echo: the prompt is given back before it, but for the `added` ids (BOS) that no client wrote.
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
        """The message of a stream before the first piece of an answer."""
        return self.piece(self.echoed(tokenizer, prompt)) if self.echo else None

    def echoed(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> str:
        """The part of a prompt that an answer's text begins with."""
        return tokenizer.decode(prompt[self.added :]) if self.echo else ""

    def piece(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def logprobs(self, tokenizer: Tokenizer, completion: Completion, prompt: Sequence[int] = ()) -> dict[str, Any]:
        """All tokens that were drawn, EOS too, after those of the prompt if it is given back."""
        before = prompt_tokens(tokenizer, prompt, self.added, completion) if self.echo else []
        length = len(self.echoed(tokenizer, prompt))
        after = answer_tokens(tokenizer, completion)
        rows = [*before, *after]
        return {
            "tokens": [token_name(tokenizer, row.id) for row in rows],
            "token_logprobs": [row.logp for row in rows],
            "top_logprobs": [by_name(tokenizer, row) for row in rows],
            "text_offset": [*(row.offset for row in before), *(length + row.offset for row in after)],
        }


def answer_tokens(tokenizer: Tokenizer, completion: Completion) -> list[TokenLogprob]:
    """The tokens of an answer, EOS too; of one that a stop string ended, those that begin before it."""
    ids, likeliest = completion.ids, completion.top_logprobs or [[]] * len(completion.ids)
    rows = map(TokenLogprob, ids, token_offsets(tokenizer, ids), completion.logps, likeliest)
    if completion.finish_reason != "stop":
        return list(rows)
    length = len(completion.text or "")
    return [row for row in rows if row.offset < length]


def prompt_tokens(
    tokenizer: Tokenizer, prompt: Sequence[int], added: int, completion: Completion
) -> list[TokenLogprob]:
    """The tokens of a prompt that the client wrote."""
    assert completion.prompt_logprobs is not None
    logps = [None, *completion.prompt_logprobs.logps]
    likeliest: list[TopLogprobs] = [[], *completion.prompt_logprobs.top_logprobs]
    shown = prompt[added:]
    return list(map(TokenLogprob, shown, token_offsets(tokenizer, shown), logps[added:], likeliest[added:]))


def token_offsets(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """For each token the place, in the decoded text, of the character that its first byte belongs to."""
    parts = [tokenizer.token_bytes(token) for token in ids]
    places = byte_places(b"".join(parts))
    begins, offsets = 0, []
    for part in parts:
        offsets.append(places[begins])
        begins += len(part)
    return offsets


def byte_places(data: bytes) -> list[int]:
    """For each of N bytes the place of its character in data.decode("utf-8", "replace"), and the text's length: N + 1.

    >>> byte_places("a€".encode() + b"\\xff")
    [0, 1, 1, 1, 2, 3]
    """
    places: list[int] = []
    count = start = 0
    while start < len(data):
        try:
            text, end, broken = data[start:].decode(), len(data), 0
        except UnicodeDecodeError as error:
            text, end = data[start : start + error.start].decode(), start + error.end
            broken = error.end - error.start
        for character in text:
            places += [count] * len(character.encode())
            count += 1
        places += [count] * broken
        count += broken > 0
        start = end
    return [*places, count]


def token_name(tokenizer: Tokenizer, token: int, mark: str = "bytes:") -> str:
    """A token as text; where it is part of a character its bytes after a mark, a special token by its name."""
    data = tokenizer.token_bytes(token)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return mark + data.decode("utf-8", "backslashreplace")
    return text or tokenizer.decode([token], skip_special_tokens=False) or f"token_id:{token}"


def by_name(tokenizer: Tokenizer, token: TokenLogprob) -> dict[str, float] | None:
    """The likeliest tokens and the token itself, by name; of two ids of one name the second is named by its id."""
    if token.logp is None:
        return None
    logps = {**dict(token.likeliest), token.id: token.logp}
    own = token_name(tokenizer, token.id)
    named: dict[str, float] = {}
    for other, logp in sorted(logps.items(), key=lambda item: -item[1]):
        name = token_name(tokenizer, other)
        taken = name in named or (name == own and other != token.id)
        named[f"token_id:{other}" if taken else name] = logp
    return named


def token_row(tokenizer: Tokenizer, token: TokenLogprob) -> dict[str, Any]:
    """A token of a turn, and the likeliest in its place."""
    near = [(other, token.logp if other == token.id else logp) for other, logp in token.likeliest]
    return {**word(tokenizer, token.id, token.logp), "top_logprobs": [word(tokenizer, *pair) for pair in near]}


def word(tokenizer: Tokenizer, token: int, logp: float | None) -> dict[str, Any]:
    """A token with its bytes, which a special token has none of."""
    data = tokenizer.token_bytes(token)
    return {"token": token_name(tokenizer, token, mark=""), "logprob": logp, "bytes": list(data) or None}
