"""Security headers, allowed hosts and CORS."""

import asyncio
import re
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from httpx2 import ASGITransport, AsyncClient, Response
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.main import create_app
from tests import caller
from tests.conftest import PATIENCE, problem, running, settings_for
from tests.kit.openapi import operations
from tests.kit.serving import serving

ORIGIN = {"Origin": "https://app.example.com"}
PREFLIGHT = ORIGIN | {
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "authorization, content-type, if-match, x-api-key",
}


def protected(response: Response, cache: str = "no-store") -> None:
    """Check the security headers of a response."""
    assert response.headers.get_list("cache-control") == [cache]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert len(response.headers.get_list("content-security-policy")) == 1
    policy = response.headers["content-security-policy"]
    assert policy == "default-src 'none'; base-uri 'none'; frame-ancestors 'none'"


def behind_proxy(app: Any, trusted: str) -> Any:
    """Return the app with uvicorn's proxy middleware, for these trusted addresses."""
    return ProxyHeadersMiddleware(app, trusted_hosts=trusted)


async def test_every_response_has_security_headers(app: FastAPI, client: AsyncClient) -> None:
    for method, url, status in (
        ("GET", "/health/live", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/nowhere", 404),
        ("PUT", "/health/live", 405),
    ):
        response = await client.request(method, url)
        assert response.status_code == status
        protected(response)
    client.headers.pop("authorization", None)
    for each in operations(app):
        protected(await client.request(each.method, re.sub(r"\{\w+\}", "x", each.path)))


async def test_errors_have_security_headers_and_routes_may_set_their_own(
    live_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings_for(live_url))

    @app.get("/defect")
    async def defect() -> None:
        raise ZeroDivisionError

    @app.get("/chosen")
    async def chosen() -> JSONResponse:
        return JSONResponse({}, headers={"Cache-Control": "public, max-age=60"})

    async with running(app) as client:
        broken = await client.get("/defect")
        problem(broken, 500)
        protected(broken)
        assert f"request {broken.headers['x-request-id']}" in caplog.text
        protected(await client.get("/chosen"), "public, max-age=60")


@pytest.mark.parametrize("path", ["/health/live", "/nowhere"])
async def test_strict_transport_security_is_sent_over_tls(live_app: FastAPI, path: str) -> None:
    async with running(live_app) as client:
        client.headers.update(await caller.credentials(live_app.state.database))
        secure = await client.get(f"https://test{path}")
        assert secure.headers["strict-transport-security"] == "max-age=31536000; includeSubDomains"
        plain = await client.get(f"http://test{path}")
        assert "strict-transport-security" not in plain.headers


@pytest.mark.parametrize(("scheme", "is_secure"), [("ws", False), ("wss", True)])
async def test_websocket_schemes_are_accepted(
    live_app: FastAPI, scheme: str, *, is_secure: bool
) -> None:
    transport = ASGITransport(behind_proxy(live_app, "127.0.0.1"))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/health/live", headers={"X-Forwarded-Proto": scheme})
    assert response.status_code == 200
    assert ("strict-transport-security" in response.headers) is is_secure
    protected(response)


async def test_strict_transport_security_can_be_turned_off(live_url: str) -> None:
    async with running(create_app(settings_for(live_url, hsts_max_age=0))) as client:
        response = await client.get("https://test/health/live")
        assert "strict-transport-security" not in response.headers


async def test_redirects_do_not_repeat_the_host_header(client: AsyncClient) -> None:
    response = await client.get("/health/live/", headers={"Host": "evil.example"})
    assert not response.is_redirect
    assert "location" not in response.headers


@pytest.mark.parametrize(
    ("host", "is_accepted"),
    [
        ("api.example.com", True),
        ("API.example.com:8443", True),
        ("a.b.example.org", True),
        ("[::1]:80", True),
        ("example.org", False),
        ("evil.example", False),
        ("api.example.com.evil.example", False),
        ("evil-example.org", False),
        ("evil.example/.example.org", False),
        ("evil.example#.example.org", False),
        ("evil@a.example.org", False),
        ("a.example.org:x", False),
        ("", False),
    ],
)
async def test_only_allowed_hosts_are_served(
    live_url: str, host: str, *, is_accepted: bool
) -> None:
    hosts = "api.example.com, *.example.org [::1]"
    app = create_app(settings_for(live_url, allowed_hosts=hosts))
    async with app.router.lifespan_context(app):
        transport = ASGITransport(app)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.get("/nowhere", headers={"Host": host})
            problem(response, 404 if is_accepted else 400)
            protected(response)
            # Probes call by IP address.
            assert (await client.get("/health/live", headers={"Host": host})).status_code == 200


HOSTS = {
    b"host: a": 404,
    b"x: y": 400,
    b"host:": 400,
    b"host: a/b": 400,
    b"host: a\r\nhost: a": 400,
    b"host: a\r\nhost: b": 400,
}
"""Heads of a request, and the statuses of the responses."""


async def test_a_request_requires_exactly_one_host(live_url: str) -> None:
    answers = {}
    async with serving(live_url) as service, asyncio.timeout(PATIENCE):
        address, port = service.url.removeprefix("http://").split(":")
        for head in HOSTS:
            reader, writer = await asyncio.open_connection(address, int(port))
            writer.write(b"GET /nowhere HTTP/1.1\r\nconnection: close\r\n" + head + b"\r\n\r\n")
            answers[head] = await reader.read()
            writer.close()
    assert {head: int(answer[9:12]) for head, answer in answers.items()} == HOSTS
    assert all(b"application/problem+json" in answer for answer in answers.values())


async def test_without_cors_origins_no_origin_is_allowed(client: AsyncClient) -> None:
    for method, headers in (("GET", ORIGIN), ("OPTIONS", PREFLIGHT)):
        response = await client.request(method, "/health/live", headers=headers)
        assert not [name for name in response.headers if name.startswith("access-control-")]


async def test_configured_cors_origins_are_allowed(live_url: str) -> None:
    app = create_app(
        settings_for(live_url, cors_origins=f"{ORIGIN['Origin']},http://localhost:3000")
    )
    async with running(app) as client:
        allowed = await client.options("/health/live", headers=PREFLIGHT)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == ORIGIN["Origin"]
        assert "access-control-allow-credentials" not in allowed.headers
        protected(allowed)
        refused = await client.options(
            "/health/live", headers=PREFLIGHT | {"Origin": "https://evil.example"}
        )
        assert "access-control-allow-origin" not in refused.headers
        protected(refused)
        for path in ("/health/live", "/nowhere"):  # and errors are readable
            response = await client.get(path, headers=ORIGIN)
            assert response.headers["access-control-allow-origin"] == ORIGIN["Origin"]
            exposed = set(response.headers["access-control-expose-headers"].split(", "))
            assert {"ETag", "Location", "Retry-After", "Idempotent-Replayed"} < exposed
            assert "X-Request-ID" in exposed


async def test_a_preflight_requires_an_allowed_host(live_url: str) -> None:
    app = create_app(settings_for(live_url, cors_origins=ORIGIN["Origin"], allowed_hosts="test"))
    async with running(app) as client:
        assert (await client.options("/nowhere", headers=PREFLIGHT)).status_code == 200
        refused = await client.options("/nowhere", headers=PREFLIGHT | {"Host": "evil.example"})
        problem(refused, 400)
        protected(refused)


@pytest.mark.parametrize("path", ["/health/live", "/nowhere"])
async def test_a_request_has_an_id(live_app: FastAPI, path: str) -> None:
    async with running(live_app) as client:
        given = await client.get(path, headers={"X-Request-ID": "a-1:b.c_d"})
        assert given.headers.get_list("x-request-id") == ["a-1:b.c_d"]
        made = set()
        for bad in ("", "a b", "x" * 101, '"', None):
            headers = {} if bad is None else {"X-Request-ID": bad}
            (found,) = (await client.get(path, headers=headers)).headers.get_list("x-request-id")
            assert re.fullmatch("[0-9a-f]{32}", found)
            made.add(found)
        assert len(made) == 5


async def test_an_untrusted_proxy_is_logged_once(
    live_app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    sent = {"X-Forwarded-For": "203.0.113.7"}
    url = "/health/live"
    for trusted, count in (("127.0.0.1", 0), ("192.0.2.1", 1)):
        transport = ASGITransport(behind_proxy(live_app, trusted))
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            for headers in ({}, sent, sent):
                assert (await client.get(url, headers=headers)).status_code == 200
        assert caplog.text.count("X-Forwarded-For from 127.0.0.1 is ignored") == count
