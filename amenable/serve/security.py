"""Middleware in front of every page and API: checks of origin, token, size, time and rate, and security headers.

Host     must be a name of this machine, so that no other site's name leads here (DNS rebinding)
Origin   of a request that changes something must be the page's own, and its body JSON, which no form can send
token    required where others can reach the page, except on `open_paths`
size     longer bodies are refused before they are read
time     slow requests are given up, and so are responses that take too long to fetch
rate     requests per minute of one address, and of one token
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
from amenable.serve.errors import APIError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
COOKIE = "amenable_token"
SEND_TIMEOUT = 60
"""seconds after which a client that reads nothing of its response is given up"""
SECURITY_HEADERS = {
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
"""headers of every response, unless the application sets them"""


@dataclass(frozen=True)
class Limits:
    """Limits on one client's requests."""

    body: int = 1_000_000
    """bytes"""
    seconds: float = 10.0
    """for a whole request to arrive"""
    idle_seconds: int = 15
    """for which an idle connection is kept"""
    answer_seconds: float = 600.0
    """for a whole response to be fetched"""
    per_minute: int = 600
    """requests of one address, and of one token"""


@dataclass
class SecurityMiddleware:
    """An ASGI application behind the checks.

    hosts: allowed names in the Host header; None where tokens are required, since the server's names are then unknown.
    authenticate: True for a known token; None where no token is required.
    error_body: an error as the application's JSON.
    """

    app: App
    hosts: frozenset[str] | None = LOCAL
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.monotonic
    authenticate: Callable[[str], bool] | None = None
    open_paths: frozenset[str] = frozenset()
    error_body: Callable[[APIError], dict[str, Any]] = lambda error: {"error": error.message}
    buckets: dict[str, tuple[float, float]] = field(default_factory=dict)
    """(requests left, time) by client"""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        send = with_headers(send)
        error = self.check(scope, headers_of(scope))
        if error is not None:
            await self.send_error(send, error)
            return
        try:
            body = await asyncio.wait_for(read_body(receive, self.limits.body), self.limits.seconds)
        except TimeoutError:
            await self.send_error(send, APIError(408, "the request took too long to arrive"))
            return
        if isinstance(body, APIError):
            await self.send_error(send, body)
        elif body is not None:
            try:
                async with asyncio.timeout(self.limits.answer_seconds):
                    await self.app(scope, replay_body(body, receive), send)
            except TimeoutError:
                # where the response has begun this fails, and the connection is closed
                await self.send_error(send, APIError(503, "the answer took too long"))

    def check(self, scope: Scope, headers: Mapping[str, str]) -> APIError | None:
        """Return the first error of a request's headers, None where its body may be read."""
        if self.hosts is not None and host_name(headers.get("host", "")) not in self.hosts:
            return APIError(403, "this page is reached under the address that was printed when it started")
        if scope["method"] not in ("GET", "HEAD"):
            if is_cross_site(headers):
                return APIError(403, "the request comes from another site")
            if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
                return APIError(415, "a request is JSON, and says so in its content-type")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length[:20]) > self.limits.body:
            return APIError(413, f"a request has at most {self.limits.body} bytes")
        address = str((scope.get("client") or ("?", 0))[0])
        if not self.within_rate_limit(address):
            return APIError(429, "too many requests; wait a little")
        if self.authenticate is None or scope["path"] in self.open_paths:
            return None
        token = token_of(headers)
        if token is None or not self.authenticate(token):
            return APIError(401, "this token is not known here" if token else "a token is needed")
        # only now: an invented token would be a fresh allowance
        if not self.within_rate_limit(hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()):
            return APIError(429, "too many requests; wait a little")
        return None

    def within_rate_limit(self, client: str) -> bool:
        """Count a request of a client; False where none is left. A token bucket, refilled evenly over the minute."""
        now, capacity = self.clock(), float(self.limits.per_minute)
        left, then = self.buckets.pop(client, (capacity, now))
        left = min(capacity, left + (now - then) * capacity / 60)
        while len(self.buckets) >= 10_000:
            del self.buckets[next(iter(self.buckets))]  # the client idle for longest
        self.buckets[client] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    async def send_error(self, send: Send, error: APIError) -> None:
        """Send an error as the whole response."""
        body = json.dumps(self.error_body(error)).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        # the rest of the body, if there is more, is not to be waited for
        headers += [(b"connection", b"close")] if error.status in (403, 408, 413, 415) else []
        headers += [(b"retry-after", b"5")] if error.status in (429, 503) else []
        headers += [(b"www-authenticate", b"Bearer")] if error.status == 401 else []
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def with_headers(send: Send) -> Send:
    """Return a `send` that adds SECURITY_HEADERS where the application has not set them."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = {name.lower() for name, _ in message.get("headers", [])}
            more = [(k.encode(), v.encode()) for k, v in SECURITY_HEADERS.items() if k.encode() not in own]
            message["headers"] = [*message.get("headers", []), *more]
        await send(message)

    return sending


def headers_of(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def is_cross_site(headers: Mapping[str, str]) -> bool:
    """True where a browser marks the request as another site's. Clients that are no browsers send no such mark."""
    origin = headers.get("origin")
    if origin is not None and origin_host(origin) != headers.get("host", "").lower():
        return True
    return headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def origin_host(origin: str) -> str:
    """Return host and port of an Origin header, "" where it has none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def host_name(host: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def token_of(headers: Mapping[str, str]) -> str | None:
    """Return the token of `Authorization: Bearer ...`, or of the cookie; None where there is neither."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return morsel.value if morsel is not None and morsel.value else None


def cookie(token: str, secure: bool = False) -> str:
    """Return the Set-Cookie value for a token: no script can read the cookie, and it is sent to this site alone."""
    return f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age=2592000{'; Secure' if secure else ''}"


async def read_body(receive: Receive, limit: int) -> bytes | APIError | None:
    """Return the whole body; an error where it is longer than `limit` bytes, None where the client disconnected."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            return APIError(413, f"a request has at most {limit} bytes")
        if not message.get("more_body"):
            return bytes(body)


def replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that hands the application the body that was read."""
    pending = [body]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay


def require_server() -> None:
    """Raise InputError where the packages that serve pages are not installed."""
    for package in ("fastapi", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise InputError(f"the page needs the package {package}", how="pip install 'amenable[serve]'")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket on a port; 0 takes any free port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol by name: only then does asyncio send small pieces at once, and not 40 ms later
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # on Windows SO_REUSEADDR would let two servers have one port
    reuse = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
    sock.setsockopt(socket.SOL_SOCKET, reuse, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * SEND_TIMEOUT)
    try:
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        where = f"{host}:{port}"
        raise InputError(f"cannot be opened: {error.strerror or error}", where, "give another --port") from None
    return sock


def address_of(sock: socket.socket, host: str) -> str:
    """Return the address of the page, for a browser."""
    return f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}"


def make_server(app: SecurityMiddleware, max_clients: int = 256) -> Any:
    """Return a uvicorn server of a protected application; run it on the socket of `listen`."""
    import uvicorn

    options = uvicorn.Config(
        app,
        http=header_timeout(app.limits.seconds),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=app.limits.idle_seconds,
        limit_concurrency=max_clients,
        h11_max_incomplete_event_size=32_768,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(options)


def header_timeout(seconds: float) -> Any:
    """Return uvicorn's HTTP protocol with a time limit on a request's headers, which it would await for ever."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class HeaderTimeout(H11Protocol):
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
            """Run one timer while headers are awaited, from their first byte; none during a request."""
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

    return HeaderTimeout
