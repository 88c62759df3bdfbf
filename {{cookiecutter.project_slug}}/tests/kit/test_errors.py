"""Every error is one clear problem document, and tells nothing that it should not."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from httpx2 import ASGITransport, AsyncClient

from app.kit.errors import MAX_ECHO, MAX_ERRORS, UnhandledErrorMiddleware
from app.kit.routing import Router
from tests.conftest import problem


async def test_an_unknown_path(client: AsyncClient) -> None:
    assert problem(await client.get("/nowhere"), 404)["instance"] == "/nowhere"


async def test_a_method_that_is_not_there(client: AsyncClient) -> None:
    response = await client.delete("/health/live")
    assert problem(response, 405)["title"] == "Method Not Allowed"
    assert response.headers["allow"] == "GET, HEAD"


async def test_every_method_of_a_path_is_named(things: AsyncClient) -> None:
    response = await things.put("/things")
    problem(response, 405)
    assert response.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("declared", [True, False], ids=["by its length", "in parts"])
async def test_a_body_that_is_too_large(
    things_app: FastAPI, things: AsyncClient, *, declared: bool, method: str
) -> None:
    router = Router()

    @router.api_route("/read", methods=["GET", "POST"])
    async def read(request: Request) -> int:
        return len(await request.body())

    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 2**16
            yield b"x" * 2**16

    headers = {"content-type": "application/json"}
    if declared:
        headers["content-length"] = "1000000000"
    routes = list(things_app.router.routes)
    things_app.include_router(router)
    problem(await things.request(method, "/read", content=parts(), headers=headers), 413)
    things_app.router.routes[:] = routes
    assert sent <= 2**21  # the rest is never read


@pytest.mark.parametrize("length", ["9" * 5000, "1" * 30])
async def test_a_length_without_bound_is_no_reason_to_count(
    things: AsyncClient, length: str
) -> None:
    headers = {"content-length": length}
    problem(await things.post("/things", content=b"{}", headers=headers), 413)


async def test_headers_that_are_too_large(things: AsyncClient) -> None:
    problem(await things.get("/things", headers={"x": "x" * 33_000}), 431)
    assert (await things.get("/things", headers={"x": "x" * 30_000})).status_code == 200


@pytest.mark.parametrize("query", ["limit=%ff", "limit=1&%c3=1", "limit=%ed%a0%80"])
async def test_a_query_that_is_no_utf_8(things: AsyncClient, query: str) -> None:
    problem(await things.get(f"/things/entries?{query}"), 422)


async def test_an_object_with_too_many_keys(things: AsyncClient) -> None:
    response = await things.post("/things", json={f"{number}": 1 for number in range(1001)})
    (error,) = problem(response, 422)["errors"]
    assert error["message"] == "Not JSON: An object has too many keys"


async def test_a_key_that_is_named_twice(things: AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    response = await things.post("/things", content=b'{"id": 1, "id": 2}', headers=headers)
    (error,) = problem(response, 422)["errors"]
    assert error["message"] == "Not JSON: An object repeats a key"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"{", ["body.1"]),
        (b"", ["body"]),
        (b"[]", ["body"]),
        (b'{"id": NaN}', ["body.id"]),
        (b'{"id": 1e400}', ["body.id"]),
        (b'{"id": 99999999999999999999}', ["body.id"]),
        (b'{"id": 1, "name": "a\\u0000b"}', ["body.name"]),
        (b'{"id": 1, "name": "\\ud800"}', ["body.name"]),
        (b'{"id": 1, "name": "12345678901"}', ["body.name"]),
        (b'{"id": 1, "\\ud800": 1}', ["body"]),
        (b'{"id": "x", "other": 1}', ["body.id", "body.other"]),
    ],
)
async def test_bad_input_names_the_field(
    things: AsyncClient, body: bytes, fields: list[str]
) -> None:
    headers = {"content-type": "application/json"}
    response = await things.post("/things", content=body, headers=headers)
    errors = problem(response, 422)["errors"]
    assert [error["field"] for error in errors] == fields


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": ' + b"9" * 5000 + b"}",
        b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id": "\xff"}',
    ],
    ids=["5,000 digits", "100,000 deep", "not UTF-8"],
)
async def test_a_body_that_can_not_be_read(things: AsyncClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    problem(await things.post("/things", content=body, headers=headers), 422)


async def test_little_of_the_input_comes_back(things: AsyncClient) -> None:
    body = {"id": 1} | {f"{number}{'x' * 10_000}": 1 for number in range(50)}
    response = await things.post("/things", json=body)
    document = problem(response, 422)
    assert document["detail"] == "50 errors."
    assert len(document["errors"]) == MAX_ERRORS
    assert len(response.content) < MAX_ERRORS * (MAX_ECHO + 200)
    assert len((await things.get(f"/{'x' * 10_000}")).content) < MAX_ECHO + 300


async def test_a_taken_value_names_its_field(things: AsyncClient) -> None:
    await things.post("/things", json={"id": 1, "name": "secret"})
    response = await things.post("/things", json={"id": 2, "name": "secret"})
    document = problem(response, 409)
    assert [error["field"] for error in document["errors"]] == ["name"]
    assert "secret" not in response.text
    assert "INSERT" not in response.text


async def test_an_error_that_nobody_foresaw(
    things: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        response = await things.post("/things/crash", json={"id": 1})
    problem(response, 500)
    assert "secret" not in response.text
    assert "nobody foresaw this" in caplog.text  # with its trace, for us


async def test_an_error_behind_a_half_sent_answer_cuts_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half-way")

    transport = ASGITransport(UnhandledErrorMiddleware(app))
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        with pytest.raises(RuntimeError, match="half-way"):
            await client.get("/")


def test_openapi_declares_the_errors_of_every_operation(shared_app: FastAPI) -> None:
    document = shared_app.openapi()
    assert document["components"]["schemas"]["Problem"]["properties"]["errors"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            failures = {
                status: answer
                for status, answer in operation["responses"].items()
                if status >= "400"
            }
            assert path.startswith("/health/") or {"422", "503"} <= set(failures)
            for answer in failures.values():
                assert list(answer["content"]) == ["application/problem+json"]
