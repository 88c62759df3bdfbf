"""Headers that protect clients and the service: checked on requests, added to responses."""

import logging
import re
import time
from http import HTTPStatus
from secrets import token_hex
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.config import KitSettings
from app.kit.errors import problem_response
from app.kit.logs import REQUEST_ID, TRACE_ID, current_scope, is_probe, log_request

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]

ALWAYS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
NO_CONTENT: Final = (
    b"content-security-policy",
    b"default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
)
"""For a response that is no page."""
NO_STORE: Final = (b"cache-control", b"no-store")
REVALIDATE: Final = (b"cache-control", b"private, no-cache")
"""For a response with an ETag: the client may store it, and revalidates it each time."""

CORS_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-Match",
    "If-None-Match",
    "X-API-Key",
    "X-Request-ID",
)
"""Request headers that a page of another origin may send."""
CORS_EXPOSED: Final = ("ETag", "Idempotent-Replayed", "Location", "Retry-After", "X-Request-ID")
"""Response headers that a page of another origin may read."""

_TRACE: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_GIVEN_ID: Final = re.compile(rb"[\w.:-]{1,100}")
_HOST: Final = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d*)?")


def install(app: FastAPI, settings: KitSettings) -> None:
    """Add the middleware, outside of all others."""
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"],
            allow_headers=CORS_HEADERS,
            expose_headers=CORS_EXPOSED,
        )
    app.add_middleware(HeadersMiddleware, settings=settings)


class HeadersMiddleware:
    """Rejects a wrong ``Host``, adds security headers and ``X-Request-ID``, logs the request."""

    def __init__(self, app: ASGIApp, settings: KitSettings) -> None:
        """Wrap ``app``."""
        self.app = app
        self.hosts = frozenset(host for host in settings.allowed_hosts if host[0] != "*")
        self.suffixes = tuple(host[1:] for host in settings.allowed_hosts if host[0] == "*")
        self.restricted = bool(settings.allowed_hosts)
        hsts = f"max-age={settings.hsts_max_age}; includeSubDomains".encode()
        secure = ((b"strict-transport-security", hsts),) if settings.hsts_max_age else ()
        self.plain, self.secure = ALWAYS, (*ALWAYS, *secure)
        self.has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if its ``Host`` is allowed, and add headers to its response."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        added = self.secure if scope["scheme"] in {"https", "wss"} else self.plain
        hosts, request_id = self._read(scope)
        scope[REQUEST_ID] = request_id.decode()
        status: int | None = None
        size, is_complete = 0, False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, size, is_complete
            if message["type"] == "http.response.start":
                status = message["status"]
                headers: list[Header] = message["headers"]
                names = {name for name, _ in headers}
                if b"cache-control" not in names:
                    headers.append(REVALIDATE if b"etag" in names else NO_STORE)
                if b"content-security-policy" not in names:
                    headers.append(NO_CONTENT)
                headers.extend(added)
                headers.append((b"x-request-id", request_id))
                await send(message)
                return
            await send(message)
            size += len(message.get("body", b""))
            if not message.get("more_body", False) and not is_complete:
                is_complete = True
                log_request(scope, status, size, time.perf_counter() - started)

        token = current_scope.set(scope)
        try:
            if not self._is_accepted(scope, hosts):
                detail = "The request needs one Host header, with a name of this service."
                response = problem_response(scope["path"], HTTPStatus.BAD_REQUEST, detail)
                await response(scope, receive, send_with_headers)
            else:
                await self.app(scope, receive, send_with_headers)
        finally:
            current_scope.reset(token)
            if not is_complete:  # it failed, or its client is disconnected
                log_request(scope, status, size, time.perf_counter() - started)

    def _read(self, scope: Scope) -> tuple[list[bytes], bytes]:
        """Return the ``Host`` headers, and the client's request id or a new one."""
        hosts: list[bytes] = []
        request_id = b""
        for name, value in scope["headers"]:
            if name == b"host":
                hosts.append(value)
            elif name == b"x-request-id":
                request_id = value
            elif name == b"traceparent":
                if found := _TRACE.fullmatch(value):
                    scope[TRACE_ID] = found[1].decode()
            elif name == b"x-forwarded-for" and not self.has_warned:
                self._check_proxy(scope, value)
        if not _GIVEN_ID.fullmatch(request_id):
            request_id = token_hex(16).encode()
        return hosts, request_id

    def _is_accepted(self, scope: Scope, hosts: list[bytes]) -> bool:
        if is_probe(scope["path"]):  # called by IP address
            return len(hosts) <= 1
        if len(hosts) != 1:
            return False
        found = _HOST.fullmatch(hosts[0].decode("latin-1").lower())
        if found is None:
            return False
        return not self.restricted or found[1] in self.hosts or found[1].endswith(self.suffixes)

    def _check_proxy(self, scope: Scope, forwarded: bytes) -> None:
        """Warn if the server did not take the client's address from ``X-Forwarded-For``."""
        address = scope["client"][0] if scope["client"] else ""
        if address.encode() not in forwarded:
            self.has_warned = True
            logger.warning(
                "X-Forwarded-For from %s is ignored. If it is your proxy, add it to "
                "FORWARDED_ALLOW_IPS: until then, all its clients are treated as one.",
                address,
            )
