"""Headers that protect clients and the service: checked on requests, added to responses."""

import base64
import hashlib
import re
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.config import KitSettings
from app.kit.errors import problem_response

Header = tuple[bytes, bytes]

ALWAYS: Final[tuple[Header, ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
NO_STORE: Final = (b"cache-control", b"no-store")
REVALIDATE: Final = (b"cache-control", b"private, no-cache")
"""For a response with an ETag: the client may keep it, and asks each time whether it is current."""

HEALTH: Final = "/health/"
"""Orchestrators and load balancers call these by address: any Host is accepted there."""

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
"""Response headers that it may read."""

_SCRIPT: Final = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_CDN: Final = "https://cdn.jsdelivr.net"


def install(app: FastAPI, settings: KitSettings) -> None:
    """Add the middleware. It comes last, so that it sees the responses of all others."""
    app.add_middleware(HeadersMiddleware, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"],
            allow_headers=CORS_HEADERS,
            expose_headers=CORS_EXPOSED,
        )


class HeadersMiddleware:
    """Rejects requests with a wrong ``Host``, and adds security headers to responses."""

    def __init__(self, app: ASGIApp, settings: KitSettings) -> None:
        """Wrap ``app``."""
        self.app = app
        self.hosts = frozenset(host for host in settings.allowed_hosts if host[0] != "*")
        self.suffixes = tuple(host[1:] for host in settings.allowed_hosts if host[0] == "*")
        self.restricted = bool(settings.allowed_hosts)
        hsts = f"max-age={settings.hsts_max_age}; includeSubDomains".encode()
        secure = ((b"strict-transport-security", hsts),) if settings.hsts_max_age else ()
        self.added = {"http": ALWAYS, "https": (*ALWAYS, *secure)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if its ``Host`` is right, and its response with more headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        added = self.added[scope["scheme"]]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers: list[Header] = message["headers"]
                names = {name for name, _ in headers}
                if b"cache-control" not in names:
                    headers.append(REVALIDATE if b"etag" in names else NO_STORE)
                headers.extend(added)
            await send(message)

        if not self._is_accepted(scope):
            detail = "The request needs one Host header, with a name of this service."
            response = problem_response(scope["path"], HTTPStatus.BAD_REQUEST, detail)
            await response(scope, receive, send_with_headers)
        elif scope["path"] == scope["app"].docs_url:
            await self.app(scope, receive, _PageSend(send_with_headers))
        else:
            await self.app(scope, receive, send_with_headers)

    def _is_accepted(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if scope["path"].startswith(HEALTH):
            return len(hosts) <= 1
        if len(hosts) != 1 or not hosts[0]:
            return False
        if not self.restricted:
            return True
        host = _without_port(hosts[0].decode("latin-1").lower())
        return host in self.hosts or host.endswith(self.suffixes)


class _PageSend:
    """Sends an HTML page with a policy that allows its own scripts only."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.start: Message = {}

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        if self.start:
            policy = page_policy(message.get("body", b""))
            self.start["headers"].append((b"content-security-policy", policy.encode()))
            await self.send(self.start)
            self.start = {}
        await self.send(message)


def page_policy(page: bytes) -> str:
    """Return the Content-Security-Policy of an API documentation page."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in _SCRIPT.findall(page)
    ]
    return (
        "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
        f"frame-ancestors 'none'; script-src {' '.join([_CDN, *hashes])}; "
        f"style-src {_CDN} 'unsafe-inline'; img-src 'self' data: https://fastapi.tiangolo.com"
    )


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
