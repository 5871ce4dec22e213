"""Requests over HTTP to one address: JSON, with tries and time-outs, without proxies and redirects.

A request is tried again after a time-out, a broken connection, and answers 429 and 5xx.
"""

from __future__ import annotations

import http.client
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from http import HTTPStatus

from amenable.errors import InputError

TIMEOUT = 120.0
"""seconds without a byte after which a request counts as failed"""
PAUSES = (1.0, 4.0, 16.0)
"""seconds before each further try"""
MAX_PAUSE = 120.0
"""longest pause that a server may ask for by Retry-After"""
CONNECT_TIMEOUT = 10.0
HINTS = {
    0: "look at the server's log",
    HTTPStatus.UNAUTHORIZED: "set OPENAI_API_KEY to a key of this server",
    HTTPStatus.FORBIDDEN: "the key may not do this: set OPENAI_API_KEY to another",
    HTTPStatus.NOT_FOUND: "check the address and the name of the model",
    HTTPStatus.TOO_MANY_REQUESTS: "wait, send fewer requests at once, or look at the account's limits",
}
"""ways to mend an error, by status; 0 for all others"""


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
        raise InputError(f"cannot be reached: {error}", url, "start the server, or mend the address") from None


def post(
    url: str, data: bytes, timeout: float, pauses: Sequence[float], headers: Mapping[str, str] | None = None
) -> bytes:
    """Send JSON and return the body of the reply. InputError once all tries have failed, and for 3xx and 4xx."""
    return send(
        urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})}), timeout, pauses
    )


def get(url: str, timeout: float, pauses: Sequence[float], headers: Mapping[str, str] | None = None) -> bytes:
    """Return the body of the reply to a GET. Errors are those of `post`."""
    return send(urllib.request.Request(url, headers=dict(headers or {})), timeout, pauses)


def send(request: urllib.request.Request, timeout: float, pauses: Sequence[float]) -> bytes:
    """Send a request, again after each of the pauses while it fails; return the body of the reply."""
    opener = urllib.request.OpenerDirector()  # of HTTP alone: no files, no proxies, no redirects
    for handler in (urllib.request.HTTPHandler, urllib.request.HTTPSHandler, urllib.request.HTTPErrorProcessor):
        opener.add_handler(handler())
    opener.add_handler(urllib.request.HTTPDefaultErrorHandler())
    url, problem, wanted, status = request.full_url, "", 0.0, 0
    for pause in (0.0, *pauses):
        time.sleep(max(pause, wanted))
        wanted, status = 0.0, 0
        try:
            with opener.open(request, timeout=timeout) as reply:
                return reply.read()
        except urllib.error.HTTPError as error:
            reason, status = error.read(500).decode("utf-8", "replace") or error.headers.get("location", ""), error.code
            problem = f"answered {status}: {without_key(' '.join(reason.split()), request)}"
            if status != HTTPStatus.TOO_MANY_REQUESTS and status < 500:
                raise InputError(problem, url, HINTS.get(status, "it takes JSON, without a redirect")) from None
            wanted = seconds_of(error.headers.get("retry-after"))
        except (OSError, http.client.HTTPException) as error:
            problem = f"gave no answer: {error or type(error).__name__}"
    raise InputError(f"{problem} ({1 + len(pauses)} tries)", url, HINTS.get(status, HINTS[0]))


def seconds_of(retry_after: str | None) -> float:
    """Return the seconds that a header Retry-After asks for, at most MAX_PAUSE; 0 without a number."""
    try:
        return min(max(float(retry_after or 0), 0.0), MAX_PAUSE)
    except ValueError:
        return 0.0


def without_key(text: str, request: urllib.request.Request) -> str:
    """Return a server's text without the key of the request, should the text repeat it."""
    key = request.get_header("Authorization", "").removeprefix("Bearer ")
    return text.replace(key, "...") if key else text
