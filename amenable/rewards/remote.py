"""Rewards over HTTP: a POST for every 256 completions, or fewer where they are long.

    POST URL   {"prompts": [[{"role": ..., "content": ...}, ...], ...], "completions": [...], "ended": [...], ...}
    ->         {"scores": [...]}, one a completion

`amenable serve --reward-models NAME=FOLDER` answers so at /rewards/NAME. Tries and time-outs are
those of `http_client`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from amenable.data.types import Conversation, message_fields
from amenable.errors import InputError
from amenable.http_client import PAUSES, TIMEOUT, post, require_listener
from amenable.ranks import is_first
from amenable.rewards.functions import RewardFunction, finite_scores

MAX_COMPLETIONS = 256
"""completions of one request"""
MAX_BYTES = 900_000
"""size of a request with several completions: servers have limits, ours of a million bytes"""
SERVED = "AMENABLE_SERVED_REWARDS"
"""variable of the environment: addresses of reward models by their folders, as JSON, where a run's launcher has placed
them on servers"""
SERVED_PAUSES = (*PAUSES, 30.0, 60.0, 120.0)
"""seconds before each further try at such a server, which is started again where it is lost"""


def remote_reward(url: str, timeout: float = TIMEOUT, pauses: Sequence[float] = PAUSES) -> RewardFunction:
    """Return the reward function of an HTTP endpoint. InputError at once if nothing listens at the address."""
    if is_first():  # which alone asks for scores, and may alone reach the address
        require_listener(url)

    def reward(prompts: Sequence[Conversation], completions: Sequence[str], **columns: Sequence[Any]) -> list[float]:
        scores: list[float] = []
        while len(scores) < len(completions):
            count = MAX_COMPLETIONS
            while True:
                part = slice(len(scores), len(scores) + count)
                texts, others = completions[part], {name: values[part] for name, values in columns.items()}
                body = request_body(prompts[part], texts, others, url)
                if len(texts) == 1 or len(body) <= MAX_BYTES:
                    break
                count = len(texts) // 2
            scores += finite_scores(scores_in(post(url, body, timeout, pauses), url), len(texts), url)
        return scores

    return reward


def served_at(folder: str) -> str | None:
    """Return the address of the server that a run's launcher has started for a folder's reward model, if any."""
    addresses = json.loads(os.environ.get(SERVED, "{}"))
    return next((url for name, url in addresses.items() if Path(name) == Path(folder)), None)


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
