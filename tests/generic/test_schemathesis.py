"""Schemathesis works with keys that change, and with requests that end the caller's session."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from fastapi import FastAPI
from schemathesis import HookContext, Response
from schemathesis.openapi.checks import EnsureResourceAvailability
from uvicorn import Config, Server

from app.main import create_app
from tests.conftest import settings_for
from tests.kit import fuzzing, realworld
from tests.kit.test_fuzz import fuzz


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve an app without a database; return its URL."""
    server = Server(Config(app, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        task = asyncio.create_task(server.serve(sockets=[listening]))
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        await task


@pytest.fixture
def app(template: str) -> FastAPI:
    app = create_app(settings_for(template))
    realworld.mount(app)
    return app


async def test_keys_change_and_sessions_end(app: FastAPI, tmp_path: Path) -> None:
    tokens = [f"Token {number}" for number in range(1000)]
    unused = iter(tokens)

    async def sign_in() -> dict[str, str]:
        token = next(unused)
        app.state.realworld.tokens.add(token)
        return {"Authorization": token}

    paths = ("/articles", "/articles/{slug}", "/articles/{slug}/comments", "/user")
    included = [f"--include-path={realworld.PREFIX}{path}" for path in paths]
    async with served(app) as url:
        report = await fuzz(
            url, [sign_in], tmp_path, "--phases=fuzzing,stateful", *included, examples=10
        )
    assert report["exit_code"] == 0
    assert next(unused) > tokens[1]  # a request ended a session, and the run continued


Call = tuple[str, str, str, int, Any]
"""A request and its response: method, path, token, status, document."""


@pytest.mark.parametrize(
    ("before", "last", "is_failure"),
    [
        ([], ("GET", "old", "a", 404, {}), True),
        ([("POST", "", "a", 201, {"x": {"slug": "old"}})], ("GET", "old", "a", 404, {}), True),
        # Its key has changed.
        ([("PUT", "old", "a", 200, {"slug": "new"})], ("GET", "old", "a", 404, {}), False),
        ([("PUT", "old", "a", 204, None)], ("GET", "old", "a", 404, {}), False),
        ([("PUT", "old", "a", 200, {"slug": "new"})], ("GET", "new", "a", 404, {}), True),
        ([("PUT", "old", "a", 200, {"slug": "old"})], ("GET", "old", "a", 404, {}), True),
        ([("PUT", "old", "a", 422, {})], ("GET", "old", "a", 404, {}), True),
        # Its owner was deleted.
        ([("POST", "", "a", 201, {"slug": "old"})], ("GET", "old", "b", 404, {}), False),
    ],
)
def test_a_resource_that_was_deleted_or_renamed_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, before: list[Call], last: Call, *, is_failure: bool
) -> None:
    monkeypatch.setattr(fuzzing, "reachable_by", {})
    for call in before:
        fuzzing.after_call(HookContext(), *case_and_response(call))
    failure = EnsureResourceAvailability(
        operation="POST", message="gone", created_with="POST", not_available_with="GET"
    )
    assert fuzzing.filter_failure(HookContext(), failure, *case_and_response(last)) is is_failure


def case_and_response(call: Call) -> tuple[Any, Response]:
    method, slug, token, status, document = call
    path = "/articles/{slug}" if slug else "/articles"
    item: dict[str, Any] = {method.lower(): {"responses": {}}}
    schema = schemathesis.openapi.from_dict({"openapi": "3.1.0", "info": {}, "paths": {path: item}})
    request = requests.Request(method, "http://test", headers={"Authorization": token})
    content = b"" if document is None else json.dumps(document).encode()
    response = Response(
        status_code=status,
        headers={},
        content=content,
        request=request.prepare(),
        elapsed=0,
        verify=False,
    )
    return schema[path][method].Case(path_parameters={"slug": slug} if slug else {}), response
