"""Every error is one clear problem document, and tells nothing that it should not."""

import logging
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from app.errors import MAX_ECHO, MAX_ERRORS, UnhandledErrorMiddleware
from tests.conftest import problem


async def test_an_unknown_path(client: AsyncClient) -> None:
    assert problem(await client.get("/nowhere"), 404)["instance"] == "/nowhere"


async def test_a_method_that_is_not_there(client: AsyncClient) -> None:
    response = await client.delete("/health/live")
    assert problem(response, 405)["title"] == "Method Not Allowed"
    assert response.headers["allow"] == "GET"


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
