"""Rewards over HTTP: a POST for every 256 completions.

    POST URL   {"prompts": [[{"role": ..., "content": ...}, ...], ...], "completions": [...], "ended": [...], ...}
    ->         {"scores": [...]}, one a completion

Tries and time-outs are those of `http_client`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from amenable.data.types import Conversation, message_fields
from amenable.errors import InputError
from amenable.http_client import PAUSES, TIMEOUT, post, require_listener
from amenable.rewards.functions import RewardFunction, finite_scores

MAX_COMPLETIONS = 256
"""completions of one request"""


def remote_reward(url: str, timeout: float = TIMEOUT, pauses: Sequence[float] = PAUSES) -> RewardFunction:
    """Return the reward function of an HTTP endpoint. InputError at once if nothing listens at the address."""
    require_listener(url)

    def reward(prompts: Sequence[Conversation], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        scores: list[float] = []
        for start in range(0, len(completions), MAX_COMPLETIONS):
            part = slice(start, start + MAX_COMPLETIONS)
            texts, others = completions[part], {name: values[part] for name, values in columns.items()}
            reply = post(url, request_body(prompts[part], texts, others, url), timeout, pauses)
            scores += finite_scores(scores_in(reply, url), len(texts), url)
        return scores

    return reward


def request_body(
    prompts: Sequence[Conversation], completions: Sequence[str], columns: Mapping[str, Sequence[Any]], url: str
) -> bytes:
    """Return a request as JSON. InputError for a column that has no JSON."""
    messages = [[message_fields(message) for message in prompt] for prompt in prompts]
    body = {"prompts": messages, "completions": list(completions), **columns}
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InputError(f"a column cannot be sent as JSON: {error}", url, "leave it out of the data") from None


def scores_in(body: bytes, url: str) -> Any:
    """Return the scores in a reply. InputError unless it is a JSON object with `scores`."""
    try:
        return json.loads(body)["scores"]
    except (ValueError, KeyError, TypeError):
        shown = body[:80].decode("utf-8", "replace")
        raise InputError(f'answered {shown!r}, not {{"scores": [...]}}', url) from None
