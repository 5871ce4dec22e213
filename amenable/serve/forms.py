"""What an answer looks like: as a turn of a conversation, or as the continuation of a text; with log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from amenable.generation.engine import Completion
from amenable.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class ChatForm:
    """A turn of a conversation."""

    wants_logprobs: bool
    object = "chat.completion"
    streamed = "chat.completion.chunk"
    prefix = "chatcmpl"

    def choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def opening(self) -> dict[str, Any] | None:
        return {"delta": {"role": "assistant", "content": ""}}

    def piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text} if text else {}}

    def logprobs(self, tokenizer: Tokenizer, completion: Completion) -> dict[str, Any]:
        rows = []
        for token, logp, best in by_token(tokenizer, completion):
            near = [word(tokenizer, other, value) for other, value in best]
            rows.append({**word(tokenizer, token, logp), "top_logprobs": near})
        return {"content": rows, "refusal": None}


@dataclass(frozen=True)
class TextForm:
    """The continuation of a text."""

    wants_logprobs: bool
    object = "text_completion"
    streamed = "text_completion"
    prefix = "cmpl"

    def choice(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def opening(self) -> dict[str, Any] | None:
        return None

    def piece(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def logprobs(self, tokenizer: Tokenizer, completion: Completion) -> dict[str, Any]:
        rows = by_token(tokenizer, completion)
        words = [tokenizer.decode([token], keep_control=True) for token, _, _ in rows]
        offsets = list(accumulate(map(len, words[:-1]), initial=0)) if words else []
        near = [{tokenizer.decode([other], keep_control=True): value for other, value in best} for _, _, best in rows]
        logps = [logp for _, logp, _ in rows]
        return {"tokens": words, "token_logprobs": logps, "top_logprobs": near, "text_offset": offsets}


def by_token(tokenizer: Tokenizer, completion: Completion) -> list[tuple[int, float, list[tuple[int, float]]]]:
    """(id, log-probability, the likeliest) of the tokens of an answer's text: not of its EOS, nor of a stop string."""
    count = len(completion.ids) - completion.ended
    if completion.stopped_by == "stop":
        length = len(completion.text or "")
        while count and len(tokenizer.decode(completion.ids[: count - 1])) >= length:
            count -= 1
    likeliest = completion.likeliest or [[]] * count
    return list(zip(completion.ids[:count], completion.logps[:count], likeliest))


def word(tokenizer: Tokenizer, token: int, logp: float) -> dict[str, Any]:
    """A token as OpenAI's clients read it; without its bytes where they are only part of a character."""
    text = tokenizer.decode([token], keep_control=True)
    return {"token": text, "logprob": logp, "bytes": None if "\ufffd" in text else list(text.encode())}
