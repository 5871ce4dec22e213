"""Rewards over HTTP: a POST for every 256 completions.

    POST URL   {"prompts": [[{"role": ..., "content": ...}, ...], ...], "completions": [...], "ended": [...], ...}
    ->         {"scores": [...]}, one a completion

A request is tried again after a time-out, a broken connection, and answers 429 and 5xx. The address is called directly,
without the environment's proxies; redirects are not followed.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from amenable.data.types import Conversation, message_fields
from amenable.errors import InputError
from amenable.rewards.functions import RewardFunction, finite_scores

TIMEOUT = 120.0
"""seconds without a byte after which a request counts as failed"""
PAUSES = (1.0, 4.0, 16.0)
"""seconds before each further try"""
CONNECT_TIMEOUT = 10.0
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


def require_listener(url: str) -> None:
    """Require an HTTP address that accepts connections. InputError for any other."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise InputError(f"is no address: {error}", url) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError("is no address of HTTP", url, "write http://host:port/path")
    try:
        socket.create_connection((parts.hostname, port), CONNECT_TIMEOUT).close()
    except OSError as error:
        raise InputError(f"cannot be reached: {error}", url, "start the reward server, or mend the address") from None


def post(
    url: str, data: bytes, timeout: float, pauses: Sequence[float], headers: Mapping[str, str] | None = None
) -> bytes:
    """Send JSON and return the body of the reply. InputError once all tries have failed, and for 3xx and 4xx."""
    opener = urllib.request.OpenerDirector()  # of HTTP alone: no files, no proxies, no redirects
    for handler in (urllib.request.HTTPHandler, urllib.request.HTTPSHandler, urllib.request.HTTPErrorProcessor):
        opener.add_handler(handler())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})})
    problem = ""
    for pause in (0.0, *pauses):
        time.sleep(pause)
        try:
            with opener.open(request, timeout=timeout) as reply:
                return reply.read()
        except urllib.error.HTTPError as error:
            reason = error.read(500).decode("utf-8", "replace") or error.headers.get("location", "")
            problem = f"answered {error.code}: {' '.join(reason.split())}"
            if error.code != 429 and error.code < 500:
                raise InputError(problem, url, "it takes a POST of JSON, without a redirect") from None
        except (OSError, http.client.HTTPException) as error:
            problem = f"gave no answer: {error or type(error).__name__}"
    raise InputError(f"{problem} ({1 + len(pauses)} tries)", url, "look at the server's log")


def scores_in(body: bytes, url: str) -> Any:
    """Return the scores in a reply. InputError unless it is a JSON object with `scores`."""
    try:
        return json.loads(body)["scores"]
    except (ValueError, KeyError, TypeError):
        shown = body[:80].decode("utf-8", "replace")
        raise InputError(f'answered {shown!r}, not {{"scores": [...]}}', url) from None
