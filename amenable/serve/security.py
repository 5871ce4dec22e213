"""What stands before every page and API here: who may ask, how much, how often; and what a browser may do with it.

Host     must be a name of this machine, so that no other site's name leads here (DNS rebinding)
Origin   of whatever changes something must be the page's own, and its body JSON, which no form can send
token    is asked for where others can reach the page; `open_paths` are what is shown without
size     bodies above a limit are refused before they are read
time     requests that arrive slowly are given up, and so are answers that take too long to be fetched
rate     so many requests a minute of one address, and of one token
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import urlsplit

from amenable.errors import InputError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
COOKIE = "amenable_token"
UNREAD = 60
"""seconds after which a client that reads nothing of what it is sent is given up"""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""of every answer, unless the application says otherwise"""


@dataclass(frozen=True)
class Limits:
    """What one client may ask for."""

    body: int = 1_000_000
    """bytes"""
    seconds: float = 10.0
    """for a whole request to arrive"""
    idle_seconds: int = 15
    """for which a connection is kept that asks nothing more"""
    answer_seconds: float = 600.0
    """for a whole answer to be fetched"""
    per_minute: int = 600
    """requests of one address, and of one token"""


@dataclass(frozen=True)
class Refusal:
    """A request that goes no further, and why."""

    status: int
    why: str


@dataclass
class Guard:
    """An application behind the checks.

    hosts: the names under which it is reached; None where tokens are demanded, since names are then not ours to know.
    admits: whether a token opens the door; None where none is asked for. said: a refusal as the application words it.
    """

    app: App
    hosts: frozenset[str] | None = LOCAL
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    admits: Callable[[str], bool] | None = None
    open_paths: frozenset[str] = frozenset()
    said: Callable[[Refusal], dict[str, Any]] = lambda refusal: {"error": refusal.why}
    buckets: dict[str, tuple[float, float]] = field(default_factory=dict)
    """(requests left, when) by client"""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = with_headers(send)
        refusal = self.refuse(scope, headers_of(scope))
        if refusal is not None:
            await self.answer(send, refusal)
            return
        try:
            body = await asyncio.wait_for(read(receive, self.limits.body), self.limits.seconds)
        except TimeoutError:
            await self.answer(send, Refusal(408, "the request took too long to arrive"))
            return
        if isinstance(body, Refusal):
            await self.answer(send, body)
        elif body is not None:
            try:
                async with asyncio.timeout(self.limits.answer_seconds):
                    await self.app(scope, again(body, receive), send)
            except TimeoutError:
                # where the answer has begun this fails, and the connection is closed
                await self.answer(send, Refusal(503, "the answer took too long"))

    def refuse(self, scope: Scope, headers: Mapping[str, str]) -> Refusal | None:
        """The first reason to let a request go no further, before anything of its body is read."""
        if self.hosts is not None and name_of(headers.get("host", "")) not in self.hosts:
            return Refusal(403, "this page is reached under the address that was printed when it started")
        if scope["method"] not in ("GET", "HEAD"):
            if is_foreign(headers):
                return Refusal(403, "the request comes from another site")
            if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                return Refusal(415, "a request is JSON, and says so in its content-type")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:20]) > self.limits.body:
            return Refusal(413, f"a request has at most {self.limits.body} bytes")
        address = str((scope.get("client") or ("?", 0))[0])
        if not self.has_left(address):
            return Refusal(429, "too many requests; wait a little")
        if self.admits is None or scope["path"] in self.open_paths:
            return None
        token = token_of(headers)
        if token is None or not self.admits(token):
            return Refusal(401, "this token is not known here" if token else "a token is needed")
        # only now: an invented token would be a fresh allowance
        if not self.has_left(hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()):
            return Refusal(429, "too many requests; wait a little")
        return None

    def has_left(self, client: str) -> bool:
        """Whether a client may ask once more; what it may ask comes back evenly over the minute."""
        now, most = self.clock(), float(self.limits.per_minute)
        left, then = self.buckets.pop(client, (most, now))
        left = min(most, left + (now - then) * most / 60)
        while len(self.buckets) >= 10_000:
            del self.buckets[next(iter(self.buckets))]  # the one that has asked nothing for longest
        self.buckets[client] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    async def answer(self, send: Send, refusal: Refusal) -> None:
        body = json.dumps(self.said(refusal)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        # the rest of the body, if there is more, is not to be waited for
        headers += [(b"connection", b"close")] if refusal.status in (403, 408, 413, 415) else []
        headers += [(b"retry-after", b"5")] if refusal.status in (429, 503) else []
        headers += [(b"www-authenticate", b"Bearer")] if refusal.status == 401 else []
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def with_headers(send: Send) -> Send:
    """A `send` that adds HEADERS where the application has not set them."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", [])}
            more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
            message["headers"] = [*message.get("headers", []), *more]
        await send(message)

    return sending


def headers_of(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that another site's page sent this. What is no browser says nothing of it."""
    origin = headers.get("origin")
    if origin is not None and place_of(origin) != headers.get("host", "").lower():
        return True
    return headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def place_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def name_of(host: str) -> str:
    """A Host header's name, without port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def token_of(headers: Mapping[str, str]) -> str | None:
    """The token that a request carries: as `Authorization: Bearer ...`, or in the cookie."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    try:
        held = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return held.value if held is not None and held.value else None


def cookie(token: str, secure: bool = False) -> str:
    """The header that has a browser keep a token where no script can read it, and send it to this site alone."""
    return f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000{'; Secure' if secure else ''}"


async def read(receive: Receive, most: int) -> bytes | Refusal | None:
    """The whole body; a refusal where it is too long, None where the client has gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > most:
            return Refusal(413, f"a request has at most {most} bytes")
        if not message.get("more_body"):
            return bytes(body)


def again(body: bytes, receive: Receive) -> Receive:
    """What was read, for the application to read."""
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay


def require_server() -> None:
    """InputError where the packages that serve pages are not installed."""
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"the page needs the package {package}", how="pip install 'amenable[serve]'")


def listen(host: str, port: int) -> socket.socket:
    """The open port; 0 takes any that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol by name: only then does asyncio send small pieces at once, and not 40 ms later
    door = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        door.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD)
    try:
        door.bind((host, port))
        door.listen(128)
    except OSError as error:
        door.close()
        where = f"{host}:{port}"
        raise InputError(f"cannot be opened: {error.strerror or error}", where, "give another --port") from None
    return door


def address_of(door: socket.socket, host: str) -> str:
    """Where a browser finds the page."""
    return f"http://{f'[{host}]' if ':' in host else host}:{door.getsockname()[1]}"


def server(guard: Guard, most_clients: int = 256) -> Any:
    """A uvicorn server of an application behind its guard; run it on the sockets of `listen`."""
    import uvicorn

    options = uvicorn.Config(
        guard,
        http=impatient(guard.limits.seconds),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=guard.limits.idle_seconds,
        limit_concurrency=most_clients,
        h11_max_incomplete_event_size=32_768,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(options)


def impatient(seconds: float) -> Any:
    """uvicorn's protocol, which waits for ever for a request's first lines, with a limit on that."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Impatient(H11Protocol):
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.unwatch()

        def watch(self) -> None:
            """While first lines are awaited, one clock runs from their first byte; a request under way has none."""
            if self.cycle is not None and not self.cycle.response_complete:
                self.unwatch()
            elif self.timer is None:
                self.timer = self.loop.call_later(seconds, self.give_up)

        def unwatch(self) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

        def give_up(self) -> None:
            self.timer = None
            idle = self.cycle is None or self.cycle.response_complete
            if idle and not self.transport.is_closing():
                self.transport.close()

    return Impatient
